"""What went wrong, in one line."""

import errno
import sys

import pytest
import tensorflow as tf

from stackgan_tf.messages import of_tensorflow, reason


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    (OSError(errno.EACCES, "Permission denied", "a/b"), "Permission denied (a/b)"),
    (OSError("no more\nof this"), "no more"),
    (tf.errors.DataLossError(None, None, "{{node save/Restore}} bad block\nin x"), "bad block"),
    (tf.errors.UnavailableError(None, None, ""), "UnavailableError"),
    (IndexError(), "IndexError"), (ValueError("x" * 999), "x" * 400)])
def test_the_first_line_says_it(error, said):
    assert reason(error) == said


@pytest.mark.parametrize("error, remedy", [
    (tf.errors.ResourceExhaustedError(None, None, "a/b; No space left on device"), "make room"),
    (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), "--batch_size"),
    (tf.errors.ResourceExhaustedError(None, None, "a/b; Too many open files"), "try again later"),
    (tf.errors.UnavailableError(None, None, "503 of gs://a/b"), "try again later"),
    (tf.errors.PermissionDeniedError(None, None, "a/b; Permission denied"), "the permissions"),
    (tf.errors.FailedPreconditionError(None, None, "a/b; Is a directory"), "see to the file"),
    (tf.errors.UnimplementedError(None, None, "File system scheme 's3' not implemented (file: "
                                  "'s3://b/x')"), "give a folder of this machine"),
    (tf.errors.InvalidArgumentError(None, None, "shapes [2] and [3] do not fit"), None),
    (tf.errors.UnimplementedError(None, None, "deterministic op not implemented"), None),
    (ValueError("a/b; No space left on device"), None)])
def test_what_tensorflow_was_refused_and_what_is_a_fault_of_ours(error, remedy, monkeypatch):
    said = of_tensorflow(error)
    assert bool(said) == bool(remedy) and (not remedy or remedy in said and "\n" not in said)
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert of_tensorflow(error) == ""
