"""Draws pictures for captions with a trained run.

    python -m stackgan_tf.sample --captions="this flower has six round red petals"
    python -m stackgan_tf.sample --run=mine --captions="a red bird" --captions="a blue bird"
    python -m stackgan_tf.sample --captions_file=captions.txt --count=1        # one caption a line

A caption's row holds Stage-I's pictures above Stage-II's. Picture j of a caption is of the noise
--seed + j, so pictures below each other differ by the caption only, and --seed=7 --count=1 draws
again what stood eighth under --seed=0. What one thing changes:

    ... --captions=A --captions=B --interpolate=captions       # strip.png, animation.gif/png/webp
    ... --captions=A --interpolate=noise --count=3             # over three noises
    ... --captions=A --truncation=0,0.5,1                      # rows of z times 0, 0.5 and 1
    ... --captions=A --epsilon_scale=0,1                       # and of epsilon, of c's noise
    ... --captions=A --text_strength=1,2                       # and of what the caption says
    ... --captions=A --neighbors=5         # beside each the training pictures that are most alike

All that lands in checkpoints/<run>/samples/sample-0001, the next in sample-0002. It takes seconds.
For metrics, 0000000.png, 0000001.png ... of the captions in turn; the same command goes on:

    python -m stackgan_tf.sample --captions_file=captions.txt --folder=DIR --count=30000

A run on embeddings that came with its data (--dataset=reed) has no text encoder and draws from
vectors, some of which its data holds:

    python -m stackgan_tf.sample --run=birds \
        --embeddings=data/birds/test/char-CNN-RNN-embeddings.pickle
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from stackgan_tf import images, neighbors, picture_folder, strips
from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.generate import Generator
from stackgan_tf.knobs import HELP, NAMES
from stackgan_tf.parallel import in_order
from stackgan_tf.progress import Progress
from stackgan_tf.run_folder import refuse_unwritable
from stackgan_tf.what_to_draw import check_text, read_captions, read_embeddings, read_values

GRID_PICTURES = 512  # of each stage; 200 MB at 256x256
# What lands in the output besides the grid and its pictures.
FILES = {"interpolate": ("strip.png", "animation.gif", "animation.png", "animation.webp"),
         "neighbors": ("neighbors.png",), **{name: (f"{name}.png",) for name in NAMES}}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to draw, how and where: the flags of the same names (`define_own_flags`)."""

    captions: Sequence[str] = ()
    captions_file: str = ""
    embeddings: str = ""
    rows: int = 8
    count: int | None = None
    seed: int = 0
    stage: int | None = None
    truncation: Sequence[float] = (1.0,)
    epsilon_scale: Sequence[float] = (1.0,)
    text_strength: Sequence[float] = (1.0,)
    interpolate: str | None = None
    steps: int = 16
    neighbors: int = 0
    folder: str = ""
    output: str = ""
    data_dir: str | None = None

    @property
    def knobs(self) -> dict[str, float]:
        """The first, or only, value of each."""
        return {name: getattr(self, name)[0] for name in NAMES}


def main(_):
    given = given_flags()
    options = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(Options)}
    paths = sample(given.get("checkpoint_dir", Config.checkpoint_dir),
                   given.get("run", Config.run), **options)
    print("\n".join(paths))


def sample(checkpoint_dir: str, run: str, captions: Sequence[str] = (), **options) -> list[str]:
    """Draws what the options say; returns the paths of what was written, the overview first.

    Args:
        options: fields of Options.
    """
    o = Options(captions=captions, **options)
    o = dataclasses.replace(o, captions=read_captions(o.captions, o.captions_file),
                            output=os.path.expanduser(o.output),
                            **{name: read_values(name, getattr(o, name)) for name in NAMES})
    mode = find_mode(o)
    if o.output:
        refuse_unwritable(o.output, "--output", models=False)
    generator = Generator(checkpoint_dir, run, o.stage)
    check_text(generator, o.captions, o.embeddings)
    generator.check_knobs(name for name in NAMES if set(getattr(o, name)) != {1.0})
    labels = texts = o.captions or [""]
    if o.embeddings:
        # a folder has them in turn, like captions: it can be gone on with
        most = None if mode == "folder" else o.rows
        labels, texts = read_embeddings(o.embeddings, generator.embedding_dim, most)
    if mode == "folder":
        return fill_folder(generator, texts, o)
    samples = os.path.join(checkpoint_dir, run, "samples")
    if mode == "grid":
        return draw_grid(generator, labels, texts, o, samples)
    check_size(mode, len(texts), o)
    check_output(samples, o.output, FILES[mode])
    if mode in NAMES:
        seeds = range(o.seed, o.seed + (o.count or 4))
        made = [strips.sweep(generator, labels, texts, seeds, mode, getattr(o, mode), o.knobs)]
    else:
        make = {"interpolate": interpolation, "neighbors": show_neighbors}[mode]
        made = make(generator, labels, texts, o)
    folder = o.output or new_folder(samples)
    paths = [os.path.join(folder, name) for name in FILES[mode]]
    for path, data in zip(paths, made, strict=True):
        save(path, data)
    return paths


def draw_grid(generator, labels, texts, o: Options, samples: str) -> list[str]:
    """Single pictures of both stages, and a grid of the first ones."""
    if generator.stage == 1 and o.stage is None:
        print(f"run {generator.run!r} has no Stage-II yet: these are Stage-I's pictures alone.",
              flush=True)
    count, stages = o.count or 4, generator.stages
    places = [(i, j) for i in range(len(texts)) for j in range(count)]
    names = ["grid.png", *(f"{i}_{j}_stage{stage}.png" for i in range(len(texts))
                           for stage in stages for j in range(count))]
    check_output(samples, o.output, names)
    captions, seeds = [texts[i] for i, _ in places], [o.seed + j for _, j in places]
    batches = [generator.batches(captions, seeds, stage, **o.knobs) for stage in stages]
    made = (one for some in zip(*batches) for one in zip(*some))
    made = itertools.chain([next(made)], made)  # a run that draws nothing leaves no folder
    folder = o.output or new_folder(samples)
    shown = []  # of each of the first places: a picture a stage

    def pictures() -> Iterator[tuple[str, np.ndarray]]:
        for (i, j), one in zip(places, made):
            if len(shown) < GRID_PICTURES:
                shown.append(one)
            for stage, picture in zip(stages, one):
                yield os.path.join(folder, f"{i}_{j}_stage{stage}.png"), picture

    def write(item):
        path, picture = item
        save(path, generator.png(picture))

    total = len(names) - 1
    bar = Progress("pictures", 0, total, every=1000)
    for done, _ in enumerate(in_order(write, pictures()), 1):
        bar.update(done, {} if total > 1000 else None)
    bar.close()
    paths = [os.path.join(folder, name) for name in names]
    save(paths[0], strips.grid(labels, shown, count))
    if len(places) > len(shown):
        print(f"grid.png shows the first {len(shown)} of {len(places):,}.", flush=True)
    return paths


def interpolation(generator, labels, texts, o: Options) -> list[bytes]:
    if o.interpolate == "captions":
        if len(texts) < 2:
            raise UserError("--interpolate=captions goes from one caption to the next; give two "
                            "or more.")
        seeds = [o.seed] * len(texts)
    else:
        if len(texts) > 1:
            raise UserError("--interpolate=noise keeps the caption and changes the noise; give one "
                            f"caption, not {len(texts)}.")
        seeds = range(o.seed, o.seed + (o.count or 2))
        texts = [texts[0]] * len(seeds)
    return strips.interpolation(generator, labels, texts, seeds, o.steps, **o.knobs)


def show_neighbors(generator, labels, texts, o: Options) -> list[bytes]:
    """A row a picture: itself, then the training pictures nearest to it."""
    places = [(i, o.seed + j) for i in range(len(texts)) for j in range(o.count or 4)]
    made = generator.generate([texts[i] for i, _ in places], [seed for _, seed in places],
                              **o.knobs)
    found, distances = neighbors.of_run(generator, made, o.neighbors, o.data_dir)
    rows = [np.concatenate([picture[None], near]) for picture, near in zip(made, found)]
    lines = [f"{labels[i]} | nearest training pictures, at " + ", ".join(f"{d:.1f}" for d in row)
             + " of 255" for (i, _), row in zip(places, distances)]
    return [images.encode_png(images.labelled_grid(rows, lines))]


def fill_folder(generator, texts, o: Options) -> list[str]:
    count, folder = o.count or 4, os.path.expanduser(o.folder)
    if "://" in folder:
        raise UserError(f"pictures cannot be written in {folder}; give a local --folder.")
    made = picture_folder.fill(folder, count, generator, texts, o.seed, **o.knobs)
    print(f"{count:,} pictures are in {folder}, {made:,} of them new.", flush=True)
    return [folder]


def find_mode(o: Options) -> str:
    """What is to be made; UserError for options that do not go together."""
    modes = {name: f"--{name}" for name in ("folder", "interpolate", "neighbors")
             if getattr(o, name)}
    modes |= {name: f"--{name} of several values" for name in NAMES if len(getattr(o, name)) > 1}
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes.values())} make different things; give one of them.")
    if o.folder and o.output:
        raise UserError("--folder and --output are two places to write in; give one.")
    if o.interpolate == "captions" and o.count:
        raise UserError("--interpolate=captions keeps the noise of --seed; leave --count out.")
    if o.interpolate == "noise" and o.count == 1:
        raise UserError("--count=1: --interpolate=noise goes over two noises or more.")
    return next(iter(modes), "grid")


def check_size(mode: str, texts: int, o: Options) -> None:
    """UserError for more pictures than an overview can hold."""
    drawn = texts * (o.count or 4)
    ends = (o.count or 2) if o.interpolate == "noise" else texts
    pictures = {"interpolate": (ends - 1) * o.steps, "neighbors": drawn * (o.neighbors + 1),
                **{name: drawn * len(getattr(o, name)) for name in NAMES}}[mode]
    if pictures > GRID_PICTURES:
        raise UserError(f"--{mode} would show {pictures:,} pictures; at most {GRID_PICTURES} fit, "
                        f"so give fewer captions or a smaller "
                        f"{'--steps' if o.interpolate else '--count'}.")


def check_output(samples: str, output: str, names: Sequence[str]) -> None:
    """UserError where `names` cannot be written, rather than overwriting one of them."""
    if "://" in (output or samples):
        raise UserError(f"pictures cannot be written in {output or samples}; give a local "
                        "--output.")
    if output and os.path.exists(os.path.join(output, picture_folder.SETTINGS)):
        raise UserError(f"--output={output} holds pictures that --folder made for metrics; choose "
                        "another folder.")
    for name in names if output else ():
        if os.path.exists(os.path.join(output, name)):
            raise UserError(f"--output={output} already holds {name}; choose another folder, or "
                            "move its pictures away.")


def new_folder(parent: str) -> str:
    """Makes the first of parent/sample-0001, -0002, ... that is not there yet."""
    number = 1
    while True:
        path = os.path.join(parent, f"sample-{number:04d}")
        try:
            os.makedirs(path)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            raise UserError(f"cannot write in {parent}: {error.strerror}; give another "
                            "--output.") from error


def save(path: str, data: bytes) -> None:
    try:
        images.write(path, data)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}; choose another "
                        "--output or make room.") from error


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_multi_string("captions", [], "what to draw; repeat the flag for more rows")
    flags.DEFINE_string("captions_file", "", "a UTF-8 file of captions instead, one a line")
    flags.DEFINE_string("embeddings", "", "vectors to draw from instead of captions: a .npy file "
                        "of float (n, dim), or a char-CNN-RNN-embeddings.pickle")
    flags.DEFINE_integer("rows", 8, "vectors of --embeddings, spread over the file; --folder takes "
                         "all", lower_bound=1)
    flags.DEFINE_integer("count", None, "pictures of each caption (default: 4); with --folder "
                         "pictures in all, with --interpolate=noise noises (2)", lower_bound=1,
                         upper_bound=10**7)
    flags.DEFINE_integer("seed", 0, "picture j of a caption is of the noise seed + j",
                         lower_bound=0, upper_bound=2**62)
    flags.DEFINE_integer("stage", None, "1 or 2; the highest that is trained if not given",
                         lower_bound=1, upper_bound=2)
    for name, text in HELP.items():
        flags.DEFINE_list(name, "1", f"{text}. Of several values a labelled row each")
    flags.DEFINE_enum("interpolate", None, ["captions", "noise"], "a strip and animations from "
                      "one caption, or noise, to the next")
    flags.DEFINE_integer("steps", 16, "--interpolate: from one to the next", lower_bound=1,
                         upper_bound=1000)
    flags.DEFINE_integer("neighbors", 0, "show each picture beside so many training pictures: "
                         "those most like it, compared as 16x16 pixels", lower_bound=0,
                         upper_bound=100)
    flags.DEFINE_string("data_dir", None, "--neighbors: where the training data is now, if it was "
                        "moved")
    flags.DEFINE_string("folder", "", "fill this folder with --count pictures of the captions, or "
                        "vectors, in turn, or go on with it")
    flags.DEFINE_string("output", "", "folder to write in; '': a new one in the run's samples")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
