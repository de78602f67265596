"""Pictures of a trained run, from Python.

    import stackgan_tf.api as sg
    sg.generate("a yellow flower", run="default")[0].show()
"""

import functools
import numbers
import os
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image

from stackgan_tf.caption_files import is_empty
from stackgan_tf.config import Config
from stackgan_tf.generate import Generator
from stackgan_tf.knobs import MOST, is_value
from stackgan_tf.messages import of_tensorflow, printable
from stackgan_tf.run_folder import PARTS, Part

MOST_PICTURES = 10**7  # of a caption at a time, as `sample`


def generate(captions: str | Sequence[str] | np.ndarray | None = None, run: str = Config.run, *,
             seed: int = 0, count: int = 1, stage: int | None = None, truncation: float = 1.0,
             epsilon_scale: float = 1.0, text_strength: float = 1.0,
             checkpoint_dir: str = Config.checkpoint_dir) -> list:
    """Pictures of a caption, each a function of the caption and its seed alone.

    The run is loaded at the first call and kept, until it is trained further.

    Args:
        captions: one, or a list of them; None for a run that was trained without text; float
            (n, dim) for one on the embeddings of its data, which has no text encoder.
        run, checkpoint_dir: the run, as in its training.
        seed: picture j of each caption is of the noise seed + j, as in `stackgan_tf.sample`.
        count: pictures of each caption.
        stage: 1 or 2; the highest that is trained if None.
        truncation: what the noise is multiplied by; below 1 pictures vary less.
        epsilon_scale: the same of the conditioning augmentation's epsilon.
        text_strength: the caption's embedding is moved so many times as far from the mean of the
            training captions'; below 1 pictures show less of it, above 1 they exaggerate it.

    Returns:
        `count` PIL.Image.Image for one caption or None; for several, a list of such lists.

    Raises:
        ValueError: a value that cannot be, no such run, or one that cannot draw this; one line.
    """
    knobs = {"truncation": truncation, "epsilon_scale": epsilon_scale,
             "text_strength": text_strength}
    _check(captions, run, checkpoint_dir, seed, count, stage, knobs)
    try:
        generator = _load(os.path.expanduser(checkpoint_dir), run, stage)
    except Exception as error:
        if words := of_tensorflow(error):  # a place that it cannot read
            raise ValueError(words) from error
        raise
    one = captions is None or isinstance(captions, str)
    texts = [captions] if one else list(captions)
    _check_text(generator, captions)
    seeds = [int(seed) + j for j in range(count)]
    made = generator.generate([text for text in texts for _ in seeds], seeds * len(texts),
                              **knobs)
    pictures = [Image.fromarray(picture) for picture in made]
    rows = [pictures[i * count:(i + 1) * count] for i in range(len(texts))]
    return rows[0] if one else rows


def _load(checkpoint_dir, run, stage):
    exports = tuple(Part(checkpoint_dir, run, name).fingerprint() for name in PARTS)
    return _cached(checkpoint_dir, run, stage, exports)


@functools.lru_cache(maxsize=4)
def _cached(checkpoint_dir, run, stage, exports):
    """`exports` is part of the key only: a run that was exported anew is loaded anew."""
    return Generator(checkpoint_dir, run, stage)


def _check(captions, run, checkpoint_dir, seed, count, stage, knobs):
    for name, value, low in (("seed", seed, -2**63), ("count", count, 1)):
        if not isinstance(value, numbers.Integral) or value < low:
            raise ValueError(f"{name}={value!r} is no whole number of at least {low}.")
    if count > MOST_PICTURES:
        raise ValueError(f"count={count} is more than {MOST_PICTURES}, which is more than memory "
                         "holds; draw some at a time, with another seed each.")
    for name, value, kinds in (("run", run, str),
                               ("checkpoint_dir", checkpoint_dir, (str, os.PathLike))):
        if not isinstance(value, kinds):
            raise ValueError(f"{name}={printable(repr(value))} is no text.")
    if int(seed) + int(count) > 2**63:  # NumPy's would wrap around
        raise ValueError(f"seed={seed} with count={count} goes beyond 2**63 - 1.")
    if stage is not None and (not isinstance(stage, numbers.Integral) or stage not in (1, 2)):
        raise ValueError(f"stage={stage!r} is unknown; give 1, 2 or None for the highest.")
    for name, value in knobs.items():
        if not is_value(value):
            raise ValueError(f"{name}={value!r} is no number of at least 0 and at most {MOST:g}.")
    if isinstance(captions, np.ndarray) and captions.dtype.kind == "f":
        return
    texts = [captions] if isinstance(captions, str) else captions
    if captions is None:
        return
    if not isinstance(texts, (list, tuple, np.ndarray)) or np.ndim(texts) == 0 or not len(texts):
        raise ValueError(f"captions={printable(repr(captions))} is neither a string nor a list of "
                         "strings.")
    for text in texts:
        if isinstance(text, str) and re.search("[\ud800-\udfff]", text):
            raise ValueError(f"the caption {text!r} holds half a character; it cannot be UTF-8.")
        if not isinstance(text, str) or is_empty(text):
            raise ValueError(f"the caption {printable(repr(text))} is no text; say what to draw.")


def _check_text(generator, captions):
    vectors = isinstance(captions, np.ndarray) and captions.dtype.kind == "f"
    if generator.text and captions is None:
        raise ValueError(f"run {generator.run!r} draws what a caption says; give one.")
    if not generator.text and captions is not None:
        raise ValueError(f"run {generator.run!r} was trained without text; leave captions out.")
    if vectors and (captions.ndim != 2 or captions.shape[1] != generator.embedding_dim
                    or not len(captions) or not (
                        np.abs(captions) <= np.finfo(np.float32).max).all()):
        raise ValueError(f"captions are {captions.shape}; the run reads finite floats of shape "
                         f"(n, {generator.embedding_dim}).")
    if generator.text and not generator.embeds and not vectors:
        raise ValueError(f"run {generator.run!r} has no text encoder (it was trained on the "
                         "embeddings of its data); give such vectors, float (n, "
                         f"{generator.embedding_dim}), instead of sentences.")
