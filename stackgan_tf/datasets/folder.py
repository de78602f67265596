"""Your own pictures: a folder with `captions.jsonl` and the pictures it names.

One line of `captions.jsonl` a picture, UTF-8:

    {"file": "images/a.jpg", "captions": ["a red bird", "..."], "class": "robin", "split": "train"}

"file" lies inside the folder; "captions" has one text or more; "class" (a name or a whole
number) and "split" ("train" or "test") are on every line or on none. Without "split", both
splits are the whole folder.
"""

import dataclasses
import itertools
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from stackgan_tf import images, parallel, picture_files
from stackgan_tf.caption_files import Twice, is_empty, unique

MANIFEST = "captions.jsonl"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows editors put it first
EXAMPLE = '{"file": "images/a.jpg", "captions": ["a red bird"]}'

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Line:
    """One checked line of the manifest; `path` is resolved and inside the folder."""

    number: int
    file: str
    captions: tuple[str, ...]
    class_name: str | None
    split: str | None
    path: Path


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
        dicts like those of `examples`, but with `path` in place of `image`, with `class_name` if
        there are classes, and with `split`, None where "train" and "test" are both the whole
        folder. A line that cannot be used is a dict of `file_name` and `error` among "train".
    """
    problems: dict[int, str] = {}
    lines = read_manifest(config.data_dir, with_text=False, problems=problems)
    names = sorted({line.class_name for line in lines} - {None})
    label = {name: np.int64(i) for i, name in enumerate(names)}
    rows = []
    if split == "train":
        rows += [{"file_name": f"{MANIFEST} line {number}", "error": problem}
                 for number, problem in problems.items()]
    for line in _lines_of(lines, split) if lines else []:
        row = {"path": line.path, "captions": line.captions, "file_name": line.file,
               "split": line.split}
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
        lines = read_manifest(config.data_dir, getattr(config, "embedding_dim", 1) > 0)
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
            _log.warning("skipped %s: %s", os.path.join(self.data_dir, file), problem)

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
        raise ValueError(
            f'{MANIFEST}: no line has "split": "{split}", all {len(lines)} have '
            f'"{lines[0].split}"; mark some lines "{split}", or take "split" out of every '
            f"line to use the whole folder for both."
        )
    return chosen


def read_manifest(
    data_dir: str, with_text: bool = True, problems: dict[int, str] | None = None
) -> list[Line]:
    """Reads and checks the whole of a folder's `captions.jsonl`, opening no picture.

    Without text the lines need no captions. With `problems`, a line that cannot be used is left
    out and noted there, {line number: what is wrong}, instead of raising at the first.

    Raises:
        ValueError: one line with the manifest's line number, the value and a remedy.
    """
    lines, seen = [], {}
    for line, _ in iter_manifest(data_dir, with_text, problems):
        try:
            check_new(line, seen.setdefault(line.path, line.number))
        except ValueError as error:
            if problems is None:
                raise
            problems[line.number] = str(error).removeprefix(f"{MANIFEST} line {line.number}: ")
            continue
        lines.append(line)
    return lines


def iter_manifest(
    data_dir: str, with_text: bool = True, problems: dict[int, str] | None = None
) -> Iterator[tuple[Line, int]]:
    """The checked lines of `captions.jsonl` one by one, each with its offset in bytes.

    Remembers no line but the first, so a picture named twice is the caller's to find. Raises
    what `read_manifest` does.
    """
    manifest = _manifest(data_dir)
    folder, first, offset = manifest.parent.resolve(), None, 0
    try:
        with open(manifest, "rb") as file:
            for number, raw in enumerate(file, start=1):
                begin, offset = offset, offset + len(raw)
                if number == 1:
                    raw = raw.removeprefix(BYTE_ORDER_MARK)
                if not raw.strip():
                    continue
                try:
                    line = _parse(raw, number, folder, with_text)
                    _check_alike(first or line, line)
                except ValueError as error:
                    if problems is None:
                        raise ValueError(f"{MANIFEST} line {number}: {error}") from error
                    problems[number] = str(error)
                    continue
                first = first or line
                yield line, begin
    except OSError as error:
        raise ValueError(f"{manifest} cannot be read: {error.strerror}.") from error
    if first is None and not problems:
        raise ValueError(f"{manifest} is empty; write one line a picture: {EXAMPLE}")


def has_test(config) -> bool:
    """False where no line has a "split" and both splits are the whole folder."""
    # any line tells: all have one or none has; what is wrong with others is told by `load`
    return any(line.split for line, _ in itertools.islice(
        iter_manifest(config.data_dir, False, {}), 1))


def count(data_dir: str) -> int:
    """Lines of the manifest, unchecked: at least as many as either split has pictures."""
    with open(_manifest(data_dir), "rb") as file:
        return sum(1 for line in file if line.strip())


def line_at(data_dir: str, offset: int, with_text: bool = True) -> Line:
    """The line that `iter_manifest` gave with this offset, numbered 0."""
    manifest = _manifest(data_dir)
    with open(manifest, "rb") as file:
        file.seek(offset)
        raw = file.readline().removeprefix(BYTE_ORDER_MARK)
    return _parse(raw, 0, manifest.parent.resolve(), with_text)


def check_new(line: Line, first: int) -> None:
    """ValueError if a line's picture was named before, in the line numbered `first`."""
    if first != line.number:
        raise ValueError(
            f'{MANIFEST} line {line.number}: "file" is {line.file!r}, the same picture as in line '
            f"{first}; merge the captions into one line."
        )


def _manifest(data_dir: str) -> Path:
    """The path of a folder's manifest, which is there."""
    if not str(data_dir).strip():
        raise ValueError(f"data_dir is empty; give the folder that holds {MANIFEST}.")
    folder = Path(os.path.expanduser(data_dir))  # the shell leaves --data_dir=~/birds as it is
    manifest = folder / MANIFEST
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"data_dir={data_dir} {problem}; give the folder with {MANIFEST}.")
    if not manifest.is_file():
        raise ValueError(f"{manifest} is missing; write one line a picture: {EXAMPLE}")
    return manifest


def _check_alike(first: Line, line: Line) -> None:
    for key, before, now in (
        ("class", first.class_name, line.class_name),
        ("split", first.split, line.split),
    ):
        if (before is None) != (now is None):
            has, lacks = ("has no", "has one") if now is None else ("has a", "has none")
            raise ValueError(
                f'{has} "{key}", but line {first.number} {lacks}; give it on every line or on none.'
            )


def _parse(raw: bytes, number: int, folder: Path, with_text: bool) -> Line:
    try:
        line = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8; save it as UTF-8.") from error
    except json.JSONDecodeError as error:
        problem = f"{error.msg} at character {error.pos + 1}"
        raise ValueError(f"not JSON ({problem}); write it like {EXAMPLE}") from error
    except Twice:
        raise
    except (RecursionError, ValueError) as error:  # nested 1000 deep; a number of 5000 digits
        raise ValueError(f"not usable JSON; write it like {EXAMPLE}") from error
    if not isinstance(line, dict):
        raise ValueError(f"is {_short(line)}, not an object; write it like {EXAMPLE}")
    file = line.get("file")
    if not isinstance(file, str) or not file.strip():
        raise ValueError(f'"file" is {_value(line, "file")}; give a path such as "images/a.jpg".')
    split = line.get("split")
    if split not in (None, "train", "test"):
        raise ValueError(f'"split" is {_short(split)}; use "train" or "test".')
    captions = _captions(line) if with_text or line.get("captions") else ()
    class_name = _class_name(line)
    for text in (file, class_name or "", *captions):
        if "\0" in text or re.search("[\ud800-\udfff]", text):
            raise ValueError(f"{_short(text)} holds a character that is no text; take it out.")
    return Line(number, file, captions, class_name, split, _path(file, folder))


def _captions(line: dict) -> tuple[str, ...]:
    captions = line.get("captions")
    if isinstance(captions, str):
        raise ValueError(f'"captions" is a text; make it a list: "captions": [{_short(captions)}].')
    if not isinstance(captions, list) or not captions:
        problem = _value(line, "captions")
        raise ValueError(f'"captions" is {problem}; give a list of texts: ["a red bird"].')
    for caption in captions:
        if not isinstance(caption, str) or is_empty(caption):
            raise ValueError(
                f'"captions" holds {_short(caption)}; give a text that says what is to be seen, '
                f"or take it out."
            )
    return tuple(captions)


def _class_name(line: dict) -> str | None:
    value = line.get("class")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f'"class" is {_short(value)}; give a name or a whole number.')
    return str(value)


def _path(file: str, folder: Path) -> Path:
    inside = f"{folder}; use a path inside it."
    if os.path.isabs(file):
        raise ValueError(f'"file" is {file!r}, an absolute path; give it relative to {inside}')
    if os.path.normpath(file).split(os.sep)[0] == "..":
        raise ValueError(f'"file" is {file!r}, which leaves the folder {inside}')
    try:
        path = (folder / file).resolve()
        exists, is_file = path.exists(), path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long; links in a circle
        problem = getattr(error, "strerror", None) or "its links run in a circle"
        raise ValueError(f'"file" is {_short(file)}, which cannot be opened: {problem}.') from error
    if not path.is_relative_to(folder):
        raise ValueError(f'"file" is {file!r}, a link to {path}, which is outside of {inside}')
    if not exists:
        raise ValueError(f'"file" is {file!r}, which is not in {folder}; add it or drop the line.')
    if not is_file:
        raise ValueError(f'"file" is {file!r}, which is not a file; give the picture itself.')
    return path


def _value(line: dict, key: str) -> str:
    if key in line:
        return _short(line[key])
    return f"missing (the line has {_short(', '.join(line)) if line else 'nothing'})"


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."
