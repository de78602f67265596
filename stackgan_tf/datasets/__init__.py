"""Data sets: a file each, named by --dataset, which finds pictures and captions of a split."""


class NoSplit(ValueError):
    """The data is in order, but has no such split."""
