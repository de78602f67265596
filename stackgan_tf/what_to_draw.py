"""What shall be drawn, captions, a file of them, or vectors, and with which knobs; refused in the
flags' words."""

import os
import re
from collections.abc import Sequence

import numpy as np

from stackgan_tf import restricted_pickle
from stackgan_tf.caption_files import is_empty, read_lines
from stackgan_tf.config import UserError
from stackgan_tf.knobs import MOST, is_value

EXAMPLE = '--captions="this flower has six rounded red petals"'


def read_captions(captions: Sequence[str], path: str) -> list[str]:
    """Those given, or those of the file at `path`; UserError for an empty one."""
    if captions and path:
        raise UserError("--captions and --captions_file are two ways to say what to draw; give "
                        "one.")
    if path:
        path = os.path.expanduser(path)
        try:
            return read_lines(path)
        except OSError as error:
            raise UserError(f"--captions_file={path} cannot be read: {error.strerror or error}."
                            ) from error
        except ValueError as error:
            raise UserError(f"--captions_file={path}: {error}") from error
    for i, caption in enumerate(captions):
        if re.search("[\ud800-\udfff]", caption):  # how Python reads other bytes
            raise UserError(f"caption {i + 1} of {len(captions)} is no UTF-8; have the terminal "
                            "send that, or put it into a --captions_file.")
        if is_empty(caption):
            raise UserError(f"caption {i + 1} of {len(captions)} is empty; say what to draw: "
                            f"{EXAMPLE}")
    return list(captions)


def read_values(name: str, values: Sequence) -> list[float]:
    """The values of a knob, --name=values, as numbers."""
    for value in values:
        try:
            good = is_value(float(value))
        except ValueError:
            good = False
        if not good:
            raise UserError(f"--{name}={value} is no number of at least 0 and at most {MOST:g}; "
                            "1 draws as trained.")
    if not values:
        raise UserError(f"--{name}= names no number; 1 draws as trained.")
    return [float(value) for value in values]


def check_text(generator, captions: Sequence[str], embeddings: str) -> None:
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


def read_embeddings(path: str, dim: int, most: int | None) -> tuple[list[str], np.ndarray]:
    """Labels and float32 (N, dim), N <= most, spread over the file; None takes all.

    Args:
        path: .npy of float (n, dim), or a pickle with an array (captions, dim) of each picture,
            of which the first caption is taken.
    """
    path = os.path.expanduser(path)
    try:
        if path.endswith(".npy"):
            vectors = np.asarray(np.load(path, allow_pickle=False))
        else:
            vectors = np.stack([value if value.ndim == 1 else value[0]
                                for value in restricted_pickle.arrays(path)])
    except OSError as error:
        raise UserError(f"--embeddings={path} cannot be read: {error.strerror or error}."
                        ) from error
    except Exception as error:  # on hostile bytes NumPy raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else "no arrays"
        raise UserError(f"--embeddings={path} holds no vectors: {reason}") from error
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or vectors.shape[1] != dim or not len(
            vectors) or not (np.abs(vectors) <= np.finfo(np.float32).max).all():
        raise UserError(f"--embeddings={path} holds {vectors.dtype} {vectors.shape}; the run reads "
                        f"finite floats of shape (n, {dim}).")
    chosen = np.arange(len(vectors))
    if most and len(vectors) > most:
        chosen = np.linspace(0, len(vectors) - 1, most).round().astype(int)
        print(f"{most} of the {len(vectors):,} vectors are drawn; more with --rows.", flush=True)
    name = os.path.basename(path)
    return [f"{name}, row {i}" for i in chosen], vectors[chosen].astype(np.float32)
