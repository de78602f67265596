"""Counts how many pictures of a data set are in memory at once: photographs take 36 MB each."""

import weakref

import numpy as np


class Picture(np.ndarray):
    """An array that can be watched."""


class Watched:
    """Iterates the elements of pictures, which it makes one by one and lets go.

    Attributes:
        most: how many of them there were at a time.
    """

    def __init__(self, pictures):
        self.pictures, self.made, self.most = pictures, [], 0

    def __iter__(self):
        for picture in self.pictures:
            image = picture.view(Picture)
            self.made.append(weakref.ref(image))
            self.most = max(self.most, sum(one() is not None for one in self.made))
            yield {"image": image, "captions": ["a"]}
            del image, picture
