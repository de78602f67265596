"""The page of `demo`: a Gradio page over a generator, loaded here or served elsewhere."""

import atexit
import base64
import functools
import html
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which reads it
if "GRADIO_TEMP_DIR" not in os.environ:  # else one folder for all users of a machine
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="stackgan_tf_demo_")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
import gradio as gr  # noqa: E402

from stackgan_tf import strips  # noqa: E402
from stackgan_tf.config import UserError  # noqa: E402
from stackgan_tf.knobs import MOST, NAMES, is_value  # noqa: E402

MOST_PICTURES = 8
MOST_SEED = 2**53 - 1 - MOST_PICTURES  # whole numbers are exact so far in a browser
LONGEST_CAPTION = 1000  # letters
STEPS = 16  # of a walk
NEIGHBORS = 5
WEEK = 7 * 24 * 3600
# Of each knob, in the order of NAMES: the slider's label, and its end.
SLIDERS = {"truncation": ("Truncation of the noise", 1.5),
           "epsilon_scale": ("Noise of the condition", 1.5),
           "text_strength": ("Strength of the caption", 3.0)}
# The system's own fonts: a page that works offline fetches none.
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
CSS = """
.small-pictures img {image-rendering: pixelated}
#walk-animation img {width: 100%; max-width: 320px; border-radius: 8px; display: block}
.gradio-container {max-width: 1240px !important; margin: auto}
"""


class Page:
    """What the page's buttons do, and how they lie.

    Args:
        generator: a generate.Generator or a served_generator.ServedGenerator.
        examples: captions to click on.
        vectors: {label: float (dim,)} to choose from in place of a caption, for a run that reads
            embeddings and has no text encoder.
        nearest: pictures uint8 (N, S, S, 3), count -> the nearest training pictures and their
            distances, as `neighbors.of_run`; None where these are not at hand.
        walks: whether the generator can walk.
        notes: lines for the foot of the page.
    """

    def __init__(self, generator, examples: Sequence[str] = (),
                 vectors: dict[str, np.ndarray] | None = None, nearest: Callable | None = None,
                 walks: bool = True, notes: Sequence[str] = ()):
        self.generator, self.examples, self.vectors = generator, list(examples), vectors
        self.nearest, self.walks, self.notes = nearest, walks, notes

    # What the buttons do

    def draw(self, caption, seed, count, *knobs) -> list[list[tuple[np.ndarray, str]]]:
        """The pictures of each stage, each above its seed; `knobs` as knobs.NAMES has them."""
        text, seeds, knobs = self._read(caption, seed, count, knobs)
        made = self.generator.draw_stages(text and text * len(seeds), seeds, **knobs)
        return [[(picture, f"seed {number}") for picture, number in zip(pictures, seeds)]
                for pictures in made.values()]

    def walk(self, caption, seed, goal, *knobs) -> tuple[str, list[np.ndarray]]:
        """An animation, as HTML, and frames of the walk to another caption, or the next seed."""
        text, seeds, knobs = self._read(caption, seed, 2, knobs)
        if text and str(goal or "").strip():
            text, seeds = text + self._text(goal), [seeds[0]] * 2
        elif text:
            text = text * 2
        frames = strips.between(self.generator, text, seeds, STEPS, **knobs)
        data = strips.encode_animation(strips.there_and_back(frames), "WEBP", quality=90)
        shown = frames[np.linspace(0, len(frames) - 1, strips.COLUMNS).round().astype(int)]
        return (f'<img alt="from one picture to the other and back" '
                f'src="data:image/webp;base64,{base64.b64encode(data).decode()}">', list(shown))

    def find_nearest(self, caption, seed, count, *knobs) -> list[tuple[np.ndarray, str]]:
        """A row a picture: itself, then the training pictures nearest to it."""
        text, seeds, knobs = self._read(caption, seed, count, knobs)
        made = self.generator.draw_stages(text and text * len(seeds), seeds, **knobs)
        made = made[max(made)]
        found, distances = self.nearest(made, NEIGHBORS)
        return [one for i, picture in enumerate(made) for one in
                [(picture, f"drawn, seed {seeds[i]}"),
                 *((near, f"distance {far:.1f}") for near, far in zip(found[i], distances[i]))]]

    def _read(self, caption, seed, count, knobs):
        """([what the generator takes] or None, seeds, {knob: value}); UserError for what cannot be.

        The page's own bounds do not hold for requests that were written by hand.
        """
        for name, value, low, high in (("seed", seed, 0, MOST_SEED),
                                       ("number of pictures", count, 1, MOST_PICTURES)):
            if not isinstance(value, (int, float)) or value != value or not (
                    low <= value <= high) or value != int(value):
                raise UserError(f"The {name} is a whole number from {low} to {high}.")
        knobs = dict(zip(NAMES, knobs))
        for name, value in knobs.items():
            if not is_value(value):
                raise UserError(f"The {name.replace('_', ' ')} is a number of at least 0 and at "
                                f"most {MOST:g}; 1 draws as trained.")
        text = self._text(caption) if self.generator.text else None
        return text, [int(seed) + i for i in range(int(count))], knobs

    def _text(self, caption):
        """[a caption], or [the vector of a label]."""
        if self.vectors is not None:
            if caption not in self.vectors:
                raise UserError("Choose one of the descriptions.")
            return [self.vectors[caption]]
        # a request by hand may hold half of a surrogate pair, which no encoder reads
        text = str(caption or "").encode("utf-8", "replace").decode().strip()
        if not text:
            raise UserError("Say what to draw: the caption is empty.")
        if len(text) > LONGEST_CAPTION:
            raise UserError(f"The caption has {len(text):,} letters; write at most "
                            f"{LONGEST_CAPTION:,}.")
        return [text]

    # How they lie

    def build(self) -> gr.Blocks:
        with gr.Blocks(title=f"StackGAN: {self.generator.run}", analytics_enabled=False,
                       delete_cache=(3600, WEEK)) as blocks:
            gr.HTML(f"<h1>StackGAN</h1>{html.escape(self.generator.run)}")
            with gr.Row():
                with gr.Column(scale=2, min_width=260):
                    caption = self._caption("Caption", self.examples[0] if self.examples else "",
                                            elem_id="caption")
                    draw = gr.Button("Draw", variant="primary", elem_id="draw")
                    with gr.Row():
                        seed = gr.Number(0, precision=0, minimum=0, maximum=MOST_SEED,
                                         label="Seed", min_width=120)
                        more = gr.Button("Next seeds", min_width=120, elem_id="more")
                    count = gr.Slider(1, MOST_PICTURES, 4, step=1, label="Pictures")
                    knobs = [gr.Slider(0, most, 1, step=0.05, label=label,
                                       visible=name in self.generator.knobs)
                             for name, (label, most) in SLIDERS.items()]
                galleries = [self._gallery(stage) for stage in self.generator.stages]
            inputs = [caption, seed, count, *knobs]
            drawing = {"fn": plain(lambda *values: dict(zip(galleries, self.draw(*values)))),
                       "inputs": inputs, "outputs": galleries, "concurrency_id": "generator"}
            chosen = caption.submit if self.vectors is None else caption.input
            gr.on([draw.click, chosen], **drawing)
            more.click(None, [seed, count], seed, js="(seed, count) => seed + count").then(
                **drawing)
            self._lay_examples(caption, drawing)
            with gr.Tabs():
                if self.walks:
                    self._lay_walk(caption, seed, knobs)
                if self.nearest:
                    self._lay_nearest(inputs)
            for note in self.notes:
                gr.HTML(f"<small>{html.escape(note)}</small>")
            if self.examples or not self.generator.text:
                blocks.load(**drawing)  # a first look, before anything is typed
        return blocks

    def launch(self, host: str, port: int, **options) -> gr.Blocks:
        """Shows the page; returns at Ctrl-C, or with `prevent_thread_lock` at once."""
        blocks = self.build()
        blocks.launch(server_name=host, server_port=port, share=False, run_history=False,
                      enable_monitoring=False, ssr_mode=False, quiet=True, footer_links=[],
                      css=CSS, theme=gr.themes.Default(**FONTS), **options)
        return blocks

    def _caption(self, label, value, **options):
        """What says what to draw: text, a choice, or nothing."""
        if self.vectors is not None:
            return gr.Dropdown(list(self.vectors), value=value or None, label=label, **options)
        return gr.Textbox(value, max_lines=4, label=label, max_length=LONGEST_CAPTION,
                          visible=self.generator.text, **options)

    def _gallery(self, stage):
        label = {1: "Stage-I: the sketch", 2: "Stage-II: the picture"}[stage]
        return gr.Gallery(label=label, elem_id=f"stage{stage}", columns=2, height="auto", scale=2,
                          min_width=280, format="png", object_fit="contain", interactive=False)

    def _lay_examples(self, caption, drawing):
        if self.examples and self.vectors is None:
            shown = gr.Examples([[one] for one in self.examples], [caption], elem_id="examples",
                                label="Examples")
            shown.load_input_event.then(**drawing)

    def _lay_walk(self, caption, seed, knobs):
        with gr.Tab("Latent walk"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                goal = self._caption("From the caption to", "", info="empty: from the seed's "
                                     "picture to the next seed's", elem_id="goal")
                start = gr.Button("Walk", elem_id="walk")
            animation = gr.HTML(elem_id="walk-animation", min_height=200)
            strip = gr.Gallery(label="On the way", elem_id="walk-strip", columns=4, height="auto",
                               scale=3, min_width=420, format="png", object_fit="contain",
                               interactive=False)
            start.click(plain(self.walk), [caption, seed, goal, *knobs],
                        [animation, strip], concurrency_id="generator")

    def _lay_nearest(self, inputs):
        with gr.Tab("Nearest training pictures"):
            gr.HTML(f"Does it copy? Beside each picture stand the {NEIGHBORS} training pictures "
                    "most like it, compared as 16x16 pixels; a copy is at a distance near 0 (of "
                    "255).")
            search = gr.Button("Find them", elem_id="nearest")
            found = gr.Gallery(label="Nearest training pictures", elem_id="neighbors",
                               columns=1 + NEIGHBORS, height="auto", format="png",
                               object_fit="contain", interactive=False)
            search.click(plain(self.find_nearest), inputs, found, concurrency_id="data")


def plain(function: Callable) -> Callable:
    """For Gradio, which takes a message for HTML: a UserError as text."""
    @functools.wraps(function)
    def run(*values):
        try:
            return function(*values)
        except UserError as error:
            raise gr.Error(html.escape(str(error)), print_exception=False) from None

    return run
