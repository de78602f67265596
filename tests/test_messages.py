"""What went wrong, in one line."""

import errno

import pytest
import tensorflow as tf

from stackgan_tf.messages import reason


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError(errno.EACCES, "Permission denied", "a/b"), "Permission denied (a/b)"),
    (OSError("no more\nof this"), "no more"),
    (tf.errors.DataLossError(None, None, "{{node save/Restore}} bad block\nin x"), "bad block"),
    (tf.errors.UnavailableError(None, None, ""), "UnavailableError"),
    (IndexError(), "IndexError"), (ValueError("x" * 999), "x" * 400)])
def test_the_first_line_says_it(error, said):
    assert reason(error) == said
