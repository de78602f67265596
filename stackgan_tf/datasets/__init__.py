"""Data sets: a file each, named by --dataset, which finds pictures and captions of a split."""


import os


class NoSplit(ValueError):
    """The data is in order, but has no such split."""


def cache(data_dir: str) -> str | None:
    """The folder that TFDS keeps its sets in, None for its default; ValueError if that would be in
    the home folder and there is none: a folder of the name ~ would be made."""
    if not (data_dir or "TFDS_DATA_DIR" in os.environ) and os.path.expanduser("~") == "~":
        raise ValueError("there is no home folder to keep data sets in; give --data_dir.")
    return os.path.expanduser(data_dir) or None
