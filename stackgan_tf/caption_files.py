"""Captions in files: one a line, or beside the pictures, as Reed et al. 2016 gave them out.

And the checks that every kind of such files needs.
"""

import collections
import os
import unicodedata
from pathlib import Path

MOST_LINES = 1_000_000
LONGEST_LINE = 10_000  # bytes


def read_lines(path: str | os.PathLike) -> list[str]:
    """The captions of a UTF-8 file, one a line, without the blanks at their ends.

    Raises:
        ValueError: it is empty or too large, or a line is empty, too long or no UTF-8; one line
            that names the line.
        OSError: it cannot be read.
    """
    captions, empty = [], []
    with open(path, "rb") as file:
        while line := file.readline(LONGEST_LINE + 1):
            number = len(captions) + 1
            if number > MOST_LINES:
                raise ValueError(f"line {number:,} is one too many: at most {MOST_LINES:,} "
                                 "captions; split the file.")
            if len(line) > LONGEST_LINE:
                raise ValueError(f"line {number:,} has more than {LONGEST_LINE:,} bytes; write one "
                                 "caption a line.")
            try:
                captions.append(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
            except UnicodeDecodeError as error:
                raise ValueError(f"line {number:,} is no UTF-8 at its byte {error.start + 1} "
                                 f"(0x{line[error.start]:02x}); save the file as UTF-8."
                                 ) from error
            if "\r" in captions[-1]:
                raise ValueError(f"line {number:,} holds a carriage return, the line end of an old "
                                 "Mac; save the file with line ends \\n.")
            if is_empty(captions[-1]):
                empty.append(number)
    if len(empty) == len(captions):
        raise ValueError("no line holds a caption; write one a line.")
    if empty:
        named = ", ".join(f"{number:,}" for number in empty[:5])
        raise ValueError(f"{'lines' if len(empty) > 1 else 'line'} {named}"
                         f"{f' ... ({len(empty):,} in all)' if len(empty) > 5 else ''} "
                         f"{'are' if len(empty) > 1 else 'is'} empty; remove what is empty, or say "
                         "what to draw.")
    return captions


def is_empty(caption: str) -> bool:
    """Whether nothing of a text is to be seen: blanks, zero-width spaces, byte order marks."""
    return not any(c.isprintable() and not c.isspace() for c in caption)


class Twice(ValueError):
    """A name stands twice in an object: json would drop the first, captions for instance."""


def unique(pairs: list) -> dict:
    """The object of json's (name, value); for json.loads(..., object_pairs_hook=unique).

    Raises:
        Twice: one line.
    """
    found = {}
    for name, value in pairs:
        if name in found:
            raise Twice(f'"{name[:60]}" stands twice in it; keep one.')
        found[name] = value
    return found


class Confined:
    """Refuses what leads out of a folder by a link in it. The folder itself may be a link.

    Args:
        roots: the folder that the user named, and others that count as named.
        flag: with which another one can be named.
    """

    def __init__(self, *roots: str | os.PathLike, flag: str):
        self.roots, self.flag = tuple(map(os.path.realpath, roots)), flag
        self._folders = {}  # their real paths: a folder's files need not be followed one by one

    def check(self, path: str | os.PathLike) -> None:
        """ValueError, one line, if a file is outside."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        if os.path.islink(real):
            real = os.path.realpath(real)
        if not real.startswith(tuple(os.path.join(root, "") for root in self.roots)):
            raise ValueError(f"{path} is a link to {real}, which is outside of {self.roots[0]}; "
                             f"put the files there, or name the folder they are in: {self.flag}.")


class CaptionFiles:
    """A folder of `<class>/<picture>.txt`, one caption a line; any other file is left alone.

    A picture's folder counts where the captions have a folder of that name, as of birds; else its
    own name is enough: the flowers' class folders are not in their pictures' names.

    Args:
        root: the folder above that the user named, out of which no link may lead; None: this one.

    Raises:
        ValueError: it is no folder, or holds no .txt file.
    """

    def __init__(self, folder: str | os.PathLike, root: str | os.PathLike | None = None):
        self.folder = Path(os.path.expanduser(folder))
        if not self.folder.is_dir():
            raise ValueError(f"the captions' folder {folder} is not there; give the one that "
                             "holds <class>/<picture>.txt.")
        self._paths, self._read = collections.defaultdict(list), {}
        for where, _, files in os.walk(self.folder):
            for name in files:
                if name.endswith(".txt"):
                    self._paths[_spelled(name[:-4])].append(os.path.join(where, name))
        self._folders = {_folders(path)[-1] for paths in self._paths.values() for path in paths}
        if not self._paths:
            raise ValueError(f"the captions' folder {folder} holds no .txt file; give the one that "
                             "holds <class>/<picture>.txt.")
        self._confined = Confined(root or self.folder, flag="--captions_dir")

    def of(self, file_name: str) -> list[str]:
        """The captions of a picture, [] if it has none; its extension does not matter.

        Raises:
            ValueError: a link leads out to them, or they are no text; or it is not known which of
                several files is of this picture, or of which of several pictures a file is.
        """
        path = self._find(_spelled(file_name.replace("\\", "/")))
        if path is None:
            return []
        self._confined.check(path)
        with open(path, "rb") as file:
            content = file.read()
        if b"\0" in content:  # UTF-16, as Windows saves "Unicode"
            raise ValueError(f"{path} is no UTF-8; save it so.")
        # a few of the released ones have bytes of another encoding
        lines = content.decode("utf-8-sig", "replace").replace("\ufffd", " ").splitlines()
        return [" ".join(line.split()) for line in lines if not is_empty(line)]

    def _find(self, picture):
        folders, name = _folders(picture), os.path.basename(picture)
        stem = name if name in self._paths else os.path.splitext(name)[0]
        paths = self._paths.get(stem, [])
        if folders[-1] in self._folders:
            paths = [path for path in paths if _folders(path)[-1] == folders[-1]]
        shared = [len(os.path.commonprefix([folders[::-1], _folders(path)[::-1]]))
                  for path in paths]
        if not paths:
            return None
        paths = [path for path, count in zip(paths, shared) if count == max(shared)]
        if len(paths) > 1:
            raise ValueError(f"the captions of {picture} may be {paths[0]} or {paths[1]}; put them "
                             "in a folder of the same name as the picture's, or leave one out.")
        first = self._read.setdefault(paths[0], picture)
        if first != picture and not max(shared):
            raise ValueError(f"{paths[0]} may be of {first} or of {picture}; put the captions in "
                             "folders of the same names as the pictures'.")
        return paths[0]


def _folders(path):
    """The names of the folders that a path leads through; [""] of none."""
    return os.path.dirname(_spelled(path)).split("/")


def _spelled(name):
    """One of the spellings that Unicode has of a name: file systems have their own."""
    return unicodedata.normalize("NFC", name)
