"""TensorBoard's log of one part of a run."""

import contextlib
import re

import tensorflow as tf


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

    def _say(self, error):
        if not self._said:
            reason = re.sub(r"\{\{.*?\}\} ?", "", error.message or "no reason given")
            print(f"warning: {self.folder} could not be written, so the log has a gap: "
                  f"{reason.splitlines()[0][:400]}", flush=True)
        self._said = True
