"""Draws pictures for captions with a trained run.

    python -m stackgan_tf.sample --captions="this flower has six round red petals"
    python -m stackgan_tf.sample --run=mine --captions="a red bird" --captions="a blue bird"

A run on embeddings that came with its data (--dataset=reed) has no text encoder and draws from
vectors, some of which its data holds:

    python -m stackgan_tf.sample --run=birds \
        --embeddings=data/birds/test/char-CNN-RNN-embeddings.pickle

A caption's row holds Stage-I's pictures above Stage-II's. The noise follows from --seed and the
place in the row, so pictures below each other differ by the caption only. grid.png and the single
pictures land in checkpoints/<run>/samples/sample-0001, the next ones in sample-0002. It takes
seconds.
"""

import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from stackgan_tf import images, restricted_pickle
from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.generate import Generator

COLUMNS = 8  # pictures side by side in the grid
EXAMPLE = '--captions="this flower has six rounded red petals"'


def main(_):
    values = flags.FLAGS
    given = given_flags()
    paths = sample(given.get("checkpoint_dir", Config.checkpoint_dir),
                   given.get("run", Config.run), values.captions, values.count, values.seed,
                   values.output, values.embeddings, values.rows)
    print("\n".join(paths))


def sample(checkpoint_dir: str, run: str, captions: Sequence[str] = (), count: int = 4,
           seed: int = 0, output: str = "", embeddings: str = "", most: int = 8) -> list[str]:
    """Writes `count` pictures of each caption and a grid of all; returns the paths, grid first.

    Args:
        embeddings: a file of vectors to draw from instead of captions; `most` of them at most.
    """
    check_captions(captions)
    generator = Generator(checkpoint_dir, run)
    check_text(generator, captions, embeddings)
    vectors = None
    if embeddings:
        captions, vectors = read_embeddings(embeddings, generator.embedding_dim, most)
    if generator.stage == 1:
        print(f"run {run!r} has no Stage-II yet: these are Stage-I's pictures alone.", flush=True)
    names = [[[f"{i}_{j}_stage{stage}.png" for j in range(count)] for stage in generator.stages]
             for i in range(len(captions) or 1)]
    folder = prepare_folder(os.path.join(checkpoint_dir, run, "samples"), output,
                            ["grid.png", *(n for one in names for row in one for n in row)])
    seeds = [seed + j for j in range(count)]
    rows, labels, paths = [], [], [os.path.join(folder, "grid.png")]
    said = captions or [""]
    for caption, what, caption_names in zip(said, said if vectors is None else vectors, names):
        made = [generator.generate([what] * count, seeds, stage) for stage in generator.stages]
        for pictures, picture_names in zip(made, caption_names):
            for picture, name in zip(pictures, picture_names):
                paths.append(os.path.join(folder, name))
                save(paths[-1], picture)
        for first in range(0, count, COLUMNS):
            rows += [pictures[first:first + COLUMNS] for pictures in made]
            labels += ["" if first else caption] + [""] * (len(made) - 1)
    save(paths[0], images.labelled_grid(rows, labels))
    return paths


def check_captions(captions: Sequence[str]) -> None:
    for i, caption in enumerate(captions):
        if not caption.strip():
            raise UserError(f"caption {i + 1} of {len(captions)} is empty; say what to draw: "
                            f"{EXAMPLE}")


def check_text(generator: Generator, captions: Sequence[str], embeddings: str) -> None:
    """UserError if the run cannot draw from what was given."""
    run = generator.run
    given = "captions" if captions else "embeddings" if embeddings else ""
    if not generator.text and given:
        raise UserError(f"run {run!r} was trained without text; leave --{given} out.")
    if not generator.text:
        return
    if captions and embeddings:
        raise UserError("--captions and --embeddings are two ways to say what to draw; give one.")
    if not generator.embeds and not embeddings:
        raise UserError(f"run {run!r} was trained on the embeddings of its data and has no text "
                        "encoder, so a sentence cannot be drawn; give vectors of that kind: "
                        "--embeddings=FILE.npy, or the data's char-CNN-RNN-embeddings.pickle.")
    if not given:
        raise UserError(f"run {run!r} draws what a caption says; give one: {EXAMPLE}")


def read_embeddings(path: str, dim: int, most: int) -> tuple[list[str], np.ndarray]:
    """Labels and float32 (N, dim), N <= most, spread over the file.

    Args:
        path: .npy of float (n, dim), or a pickle with an array (captions, dim) of each picture,
            of which the first caption is taken.
    """
    path = os.path.expanduser(path)
    try:
        if path.endswith(".npy"):
            vectors = np.asarray(np.load(path, allow_pickle=False))
        else:
            vectors = np.stack([np.asarray(value) if np.ndim(value) == 1 else value[0]
                                for value in restricted_pickle.iterate(path)])
    except OSError as error:
        raise UserError(f"--embeddings={path} cannot be read: {error.strerror or error}."
                        ) from error
    except (ValueError, TypeError, IndexError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no arrays"
        raise UserError(f"--embeddings={path} holds no vectors: {reason}") from error
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.shape[1] != dim or not len(
            vectors) or not np.isfinite(vectors).all():
        raise UserError(f"--embeddings={path} holds {vectors.dtype} {vectors.shape}; the run reads "
                        f"finite floats of shape (n, {dim}).")
    chosen = np.arange(len(vectors))
    if len(vectors) > most:
        chosen = np.linspace(0, len(vectors) - 1, most).round().astype(int)
        print(f"{most} of the {len(vectors):,} vectors are drawn; more with --rows.", flush=True)
    name = os.path.basename(path)
    return [f"{name}, row {i}" for i in chosen], vectors[chosen].astype(np.float32)


def prepare_folder(samples: str, output: str, names: Sequence[str]) -> str:
    """The folder to write `names` in; UserError rather than overwriting one of them."""
    if not output:
        if "://" in samples:
            raise UserError(f"pictures cannot be written in {samples}; give a local --output.")
        return new_folder(samples)
    for name in names:
        if os.path.exists(os.path.join(output, name)):
            raise UserError(f"--output={output} already holds {name}; choose another folder, or "
                            "move its pictures away.")
    return output


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


def save(path: str, picture) -> None:
    try:
        images.save_png(path, picture)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror or error}; choose another "
                        "--output or make room.") from error


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_multi_string("captions", [], "what to draw; repeat the flag for more rows")
    flags.DEFINE_string("embeddings", "", "vectors to draw from instead of captions: a .npy file "
                        "of float (n, dim), or a char-CNN-RNN-embeddings.pickle")
    flags.DEFINE_integer("rows", 8, "vectors of --embeddings, spread over the file", lower_bound=1)
    flags.DEFINE_integer("count", 4, "pictures of each caption", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "the noise follows from it", lower_bound=0,
                         upper_bound=2**31 - 1)
    flags.DEFINE_string("output", "", "folder to write in; '': a new one in the run's samples")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
