"""What networks read off many pictures, kept a hundred at a time.

A killed job goes on with the hundred it was at, and what was read once is not read again. One file
for each reader and hundred, complete or absent: <folder>/<reader>/00000012.npz.
"""

import dataclasses
import io
import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from stackgan_tf.config import UserError
from stackgan_tf.disk import ERRORS, write_whole
from stackgan_tf.messages import reason
from stackgan_tf.progress import Progress

CHUNK = 100


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads numbers off pictures.

    Attributes:
        name: what it is asked for by.
        key: a folder name that tells its numbers from those of any other reader.
        read: uint8 (N, H, W, 3) -> {name: array (N, ...)}.
    """

    name: str
    key: str
    read: Callable


def collect(folder: str, count: int, make: Callable, readers: Sequence[Reader], what: str
            ) -> dict[str, dict[str, np.ndarray]]:
    """What each reader reads off `count` pictures: {its name: {array's name: (count, ...)}}.

    Args:
        folder: where it is kept; whatever decides on the pictures stands in its name.
        make: (first, last) -> uint8 (last - first, H, W, 3), asked only for what is missing.
        what: the pictures in a word, for the progress.

    Raises UserError where the folder cannot be written.
    """
    places = [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
    found = {(reader.name, first): _load(_path(folder, reader, first), last - first)
             for reader in readers for first, last in places}
    missing = [(first, last) for first, last in places
               if any(found[reader.name, first] is None for reader in readers)]
    done = count - sum(last - first for first, last in missing)
    if done and missing:
        print(f"{what}: going on after {done:,} of {count:,}", flush=True)
    bar = Progress(what, done, count, every=5 * CHUNK) if missing else None
    for first, last in missing:
        pictures = make(first, last)
        for reader in readers:
            if found[reader.name, first] is None:
                found[reader.name, first] = arrays = reader.read(pictures)
                _save(_path(folder, reader, first), arrays)
        done += last - first
        bar.update(done, {})
    if bar is not None:
        bar.close()
    return {reader.name: _join([found[reader.name, first] for first, _ in places])
            for reader in readers}


def remove_others(parent: str, keep: str) -> None:
    """Removes the readings in `parent` of other weights than `keep`, which their names begin with
    as drawings.Drawings made them; what else lies there is not ours."""
    for name in tf.io.gfile.listdir(parent) if tf.io.gfile.isdir(parent) else ():
        if re.match("[0-9a-f]{12}-(train|test)-", name) and not name.startswith(keep):
            tf.io.gfile.rmtree(os.path.join(parent, name))


def _path(folder, reader, first):
    return os.path.join(folder, reader.key, f"{first // CHUNK:08d}.npz")


def _load(path, rows):
    """{name: array (rows, ...)}; None if there is no such file, or only one of fewer rows."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            with np.load(io.BytesIO(file.read()), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
    except Exception:  # absent; or damaged, on which zipfile raises nearly anything: read again
        return None
    if not arrays or any(len(array) < rows for array in arrays.values()):
        return None
    return {name: array[:rows] for name, array in arrays.items()}


def _save(path, arrays):
    data = io.BytesIO()
    np.savez(data, **arrays)
    try:
        write_whole(path, data.getvalue(), shared=True)
    except ERRORS as error:
        raise UserError(f"cannot write {path}: {reason(error)}; make room, or see to its "
                        "permissions. The same command then goes on.") from error


def _join(chunks):
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
