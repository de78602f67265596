"""Your own pictures: a folder with `captions.jsonl` and the pictures it names.

One line of `captions.jsonl` a picture, UTF-8:

    {"file": "images/a.jpg", "captions": ["a red bird", "..."], "class": "robin", "split": "train"}

"file" lies inside the folder; "captions" has one text or more; "class" (a name or a whole
number) and "split" ("train" or "test") are on every line or on none. Without "split", both
splits are the whole folder.
"""

import itertools
import logging
import os
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from stackgan_tf import images, manifest, parallel, picture_files
from stackgan_tf.datasets import NoSplit
from stackgan_tf.manifest import MANIFEST, Line
from stackgan_tf.messages import printable

_log = logging.getLogger(__name__)


def load(config, split: str) -> tf.data.Dataset:
    """A split of a folder, in the manifest's order, decoded as it is read.

    Args:
        config: has `data_dir`, the folder; `load_size`, the side S of the pictures handed
            out, cut to their centred square; `max_unreadable`, how many damaged pictures
            are skipped, each with a warning, before it is an error.
        split: "train" or "test".

    Returns:
        Dataset of dicts: image uint8 (S, S, 3), captions string (n,) with n differing from
        picture to picture, file_name string (), and label int64 () if the lines have a
        "class": its index among the sorted names of both splits.

    Raises:
        ValueError: one line, if the folder, the manifest or the pictures' headers are bad.
            Damage behind a header shows only while iterating, where tf.data wraps the
            ValueError in a tf.errors.OpError: `plain_error` takes it out again, and
            `examples` raises it as it is.
    """
    folder = Folder(config, split)
    signature = {
        "image": tf.TensorSpec((config.load_size, config.load_size, 3), tf.uint8),
        "captions": tf.TensorSpec((None,), tf.string),
        "file_name": tf.TensorSpec((), tf.string),
    }
    if folder.class_names:
        signature["label"] = tf.TensorSpec((), tf.int64)
    return tf.data.Dataset.from_generator(lambda: iter(folder), output_signature=signature)


def examples(config, split: str) -> Iterator[dict]:
    """What `load` hands out, once and without TensorFlow: NumPy values, captions of str.

    The manifest and the headers are checked by the call itself, not by the first `next`.
    """
    return iter(Folder(config, split))


def raw_examples(config, split: str) -> list[dict]:
    """What the manifest names, for inspection: nothing is opened and nothing refused.

    Returns:
        dicts like those of `examples`, but with `path` in place of `image`, and with `class_name`
        if there are classes. A line that cannot be used is a dict of `file_name` and `error` among
        "train".
    """
    problems: dict[int, str] = {}
    lines = manifest.read(config.data_dir, with_text=False, problems=problems)
    names = sorted({line.class_name for line in lines} - {None})
    label = {name: np.int64(i) for i, name in enumerate(names)}
    rows = []
    if split == "train":
        rows += [{"file_name": f"{MANIFEST} line {number}", "error": problem}
                 for number, problem in problems.items()]
    for line in _lines_of(lines, split) if lines else []:
        row = {"path": line.path, "captions": line.captions, "file_name": line.file}
        if names:
            row |= {"label": label[line.class_name], "class_name": line.class_name}
        rows.append(row)
    return rows


def plain_error(error: tf.errors.OpError) -> ValueError | None:
    """The one-line ValueError that a dataset of `load` failed with; None if it was another."""
    found = re.search(r"ValueError: (.*)", error.message or "")
    return ValueError(found.group(1)) if found else None


class Folder:
    """A split of a folder, checked; iterating decodes it, as often as wanted.

    Attributes:
        lines: the split's `Line`s, in the manifest's order.
        class_names: sorted names of the classes of both splits; empty without "class".
        unreadable: reason by file, of the pictures found damaged so far.
    """

    def __init__(self, config, split: str):
        if config.load_size < 1:
            raise ValueError(f"load_size={config.load_size} is no picture size; try 304.")
        self.data_dir, self.size = config.data_dir, config.load_size
        self.max_unreadable = config.max_unreadable
        lines = manifest.read(config.data_dir, getattr(config, "embedding_dim", 1) > 0)
        self.class_names = sorted({line.class_name for line in lines} - {None})
        self.lines = _lines_of(lines, split)
        self.unreadable: dict[str, str] = {}
        self._check_headers()

    def __iter__(self) -> Iterator[dict]:
        count = 0
        lines = [line for line in self.lines if line.file not in self.unreadable]
        for line, image, problem in parallel.in_order(self._decode, lines):
            if problem:
                self._skip({line.file: problem})
                continue
            count += 1
            example = {
                "image": image,  # (S, S, 3)
                "captions": np.array(line.captions, dtype=object),  # (n,)
                "file_name": line.file,
            }
            if self.class_names:
                example["label"] = np.int64(self.class_names.index(line.class_name))
            yield example
        if count == 0:
            self._refuse()

    def _decode(self, line: Line):
        try:
            return line, images.resize_square(picture_files.read_rgb(line.path), self.size), None
        except ValueError as error:
            return line, None, str(error)

    def _check_headers(self) -> None:
        def check(line):
            try:
                picture_files.read_size(line.path)
            except ValueError as error:
                return line, str(error)
            return line, None

        checked = parallel.in_order(check, self.lines)
        self._skip({line.file: problem for line, problem in checked if problem})
        if len(self.unreadable) == len(self.lines):
            self._refuse()

    def _skip(self, problems: dict[str, str]) -> None:
        """Warns once a picture: later passes leave out what `unreadable` has."""
        self.unreadable.update(problems)
        if len(self.unreadable) > self.max_unreadable:
            self._refuse()
        for file, problem in problems.items():
            _log.warning("skipped %s", printable(
                f"{os.path.join(self.data_dir, file)}: {problem}"))

    def _refuse(self) -> None:
        first = itertools.islice(self.unreadable.items(), 3)
        names = "; ".join(f"{file} ({problem.rstrip('.')})" for file, problem in first)
        more = "; ..." if len(self.unreadable) > 3 else ""
        raise ValueError(
            f"{len(self.unreadable)} of {len(self.lines)} pictures in {self.data_dir} cannot be "
            f"read (max_unreadable={self.max_unreadable}): {names}{more}. Repair them, or take "
            f"their lines out of {MANIFEST}."
        )


def _lines_of(lines: list[Line], split: str) -> list[Line]:
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    if all(line.split is None for line in lines):
        return lines
    chosen = [line for line in lines if line.split == split]
    if not chosen:
        raise NoSplit(
            f'{MANIFEST}: no line has "split": "{split}", all {len(lines)} have '
            f'"{lines[0].split}"; mark some lines "{split}", or take "split" out of every '
            f"line to use the whole folder for both."
        )
    return chosen


def has_test(config) -> bool:
    """False where no line has a "split" and both splits are the whole folder."""
    # any line tells: all have one or none has; what is wrong with others is told by `load`
    return any(line.split for line, _ in itertools.islice(
        manifest.iterate(config.data_dir, False, {}), 1))
