"""TensorBoard's log of one part of a run."""

import contextlib
import os

import numpy as np
import tensorflow as tf

from stackgan_tf.disk import ERRORS, write_whole
from stackgan_tf.messages import reason


class Logs:
    """Writes where it can: a log that finds no room is said, and never costs the training."""

    def __init__(self, folder: str):
        self.folder = folder
        self._writer, self._said = None, False

    @contextlib.contextmanager
    def writing(self):
        """In this block tf.summary writes to the folder; what fails there is left out."""
        try:
            self._writer = self._writer or tf.summary.create_file_writer(self.folder)
        except tf.errors.OpError as error:
            self._say(error)
        try:
            with (self._writer or tf.summary.create_noop_writer()).as_default():
                yield  # flushed then
            self._said = self._writer is None
        except tf.errors.OpError as error:
            self._say(error)

    def write(self, name: str, data: bytes) -> bool:
        """Writes a file of the folder, whole or not at all; says whether it did."""
        try:
            write_whole(os.path.join(self.folder, name), data)
            return True
        except ERRORS as error:
            self._say(error)
            return False

    def _say(self, error):
        if not self._said:
            print(f"warning: {self.folder} could not be written, so the log has a gap: "
                  f"{reason(error)}", flush=True)
        self._said = True


def scalar(name: str, value: float, step: int) -> None:
    """tf.summary.scalar that leaves nothing behind: TensorFlow keeps a tensor of each Python number
    that it has seen, for ever, 2 KB a call; not of NumPy's."""
    tf.summary.scalar(name, np.float32(value), np.int64(step))
