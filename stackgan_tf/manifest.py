"""`captions.jsonl`: a line for each picture of a captioned folder, read and checked.

What a line is stands in datasets/folder.py.
"""

import dataclasses
import functools
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from stackgan_tf.caption_files import Twice, is_empty, unique

MANIFEST = "captions.jsonl"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # Windows editors put it first
EXAMPLE = '{"file": "images/a.jpg", "captions": ["a red bird"]}'
_FORM = f'write one line a picture: {EXAMPLE} (to train without text, "file" alone)'


@dataclasses.dataclass(frozen=True)
class Line:
    """One checked line of the manifest; `path` is resolved and inside the folder."""

    number: int
    file: str
    captions: tuple[str, ...]
    class_name: str | None
    split: str | None
    path: Path


def read(
    data_dir: str, with_text: bool = True, problems: dict[int, str] | None = None
) -> list[Line]:
    """Reads and checks the whole of a folder's `captions.jsonl`, opening no picture.

    Without text the lines need no captions. With `problems`, a line that cannot be used is left
    out and noted there, {line number: what is wrong}, instead of raising at the first.

    Raises:
        ValueError: one line with the manifest's line number, the value and a remedy.
    """
    lines, seen = [], {}
    for line, _ in iterate(data_dir, with_text, problems):
        try:
            check_new(line, seen.setdefault(line.path, line.number))
        except ValueError as error:
            if problems is None:
                raise
            problems[line.number] = str(error).removeprefix(f"{MANIFEST} line {line.number}: ")
            continue
        lines.append(line)
    return lines


def iterate(
    data_dir: str, with_text: bool = True, problems: dict[int, str] | None = None
) -> Iterator[tuple[Line, int]]:
    """The checked lines of `captions.jsonl` one by one, each with its offset in bytes.

    Remembers no line but the first, so a picture named twice is the caller's to find. Raises
    what `read` does.
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
        raise ValueError(f"{manifest} is empty; {_FORM}")


def count(data_dir: str) -> int:
    """Lines of the manifest, unchecked: at least as many as either split has pictures."""
    with open(_manifest(data_dir), "rb") as file:
        return sum(1 for line in file if line.strip())


def line_at(data_dir: str, offset: int, with_text: bool = True) -> Line:
    """The line that `iterate` gave with this offset, numbered 0."""
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
        raise ValueError(f"{manifest} is missing; {_FORM}")
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
        raise ValueError(f'"captions" is {problem}; give a list of texts: ["a red bird"] (or train '
                         "without text: --embedding_dim=0).")
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
        alike = _other_spelling(folder / file)
        # as JSON, whose escapes show what looks the same
        remedy = (f"write {json.dumps(os.path.join(os.path.dirname(file), alike))}, which is there"
                  if alike else "add it or drop the line")
        raise ValueError(f'"file" is {file!r}, which is not in {folder}; {remedy}.')
    if not is_file:
        raise ValueError(f'"file" is {file!r}, which is not a file; give the picture itself.')
    return path


def _other_spelling(path):
    """The name beside a missing `path` that differs in capitals or Unicode's form alone; ""."""
    try:
        names = _plain_names(path.parent, os.stat(path.parent).st_mtime_ns)
    except OSError:
        return ""
    return names.get(_plain(path.name), "")


@functools.lru_cache(maxsize=8)
def _plain_names(folder, _changed):
    """{plain name: name} of a folder, read once for all of a manifest's lines."""
    return {_plain(name): name for name in os.listdir(folder)}


def _plain(name):
    return unicodedata.normalize("NFC", name).casefold()


def _value(line: dict, key: str) -> str:
    if key in line:
        return _short(line[key])
    return f"missing (the line has {_short(', '.join(line)) if line else 'nothing'})"


def _short(value) -> str:
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else text[:57] + "..."
