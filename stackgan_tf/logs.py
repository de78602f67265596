"""TensorBoard's log of one part of a run."""

import contextlib

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
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(self.folder)
            with self._writer.as_default():  # flushes at its end
                yield
            self._said = False
        except tf.errors.OpError as error:
            if not self._said:
                print(f"warning: {self.folder} could not be written, so the log has a gap: "
                      f"{(error.message or 'no reason given').splitlines()[0]}", flush=True)
            self._said = True
