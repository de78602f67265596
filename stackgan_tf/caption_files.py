"""Captions in text files beside the pictures, as Reed et al. 2016 gave them out: `text_c10/`."""

import os
from pathlib import Path


class CaptionFiles:
    """A folder of `<class>/<picture>.txt`, one caption a line; any other file is left alone.

    Raises:
        ValueError: it is no folder, or holds no .txt file.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise ValueError(f"the captions' folder {folder} is not there; give the one that "
                             "holds <class>/<picture>.txt.")
        # By the file's own name: the flowers' class folders are not in their file names.
        self.paths = {}
        for where, _, files in os.walk(self.folder):
            self.paths.update((name[:-4], os.path.join(where, name)) for name in files
                              if name.endswith(".txt"))
        if not self.paths:
            raise ValueError(f"the captions' folder {folder} holds no .txt file; give the one that "
                             "holds <class>/<picture>.txt.")

    def of(self, file_name: str) -> list[str]:
        """The captions of a picture, [] if it has none; its folder and extension do not matter."""
        name = os.path.basename(file_name.replace("\\", "/"))
        path = self.paths.get(name) or self.paths.get(os.path.splitext(name)[0])
        if path is None:
            return []
        with open(path, "rb") as file:
            # a few of the released ones have bytes of another encoding
            lines = file.read().decode("utf-8", "replace").replace("\ufffd", " ").splitlines()
        return [caption for line in lines if (caption := " ".join(line.split()))]
