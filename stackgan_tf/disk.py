"""Files and folders that are there whole or not at all, after a power cut too.

What counts is written beside its place, brought to the disk, and only then renamed.
"""

import contextlib
import errno
import os
import platform
import re
from collections.abc import Iterator

import tensorflow as tf

ERRORS = (OSError, tf.errors.OpError)  # what reading and writing raise, here and through GFile


def tfds_folder(data_dir: str) -> str | None:
    """Where TFDS keeps its sets, None for its default; ValueError if that would be in the home
    folder and there is none: a folder of the name ~ would be made."""
    if not (data_dir or "TFDS_DATA_DIR" in os.environ) and os.path.expanduser("~") == "~":
        raise ValueError("there is no home folder to keep data sets in; give --data_dir.")
    return os.path.expanduser(data_dir) or None


def sync(path: str) -> None:
    """Brings a file, or a folder's list of names, to the disk; a rename alone survives no power
    cut. Object stores have nothing to sync."""
    if "://" in path or (os.name == "nt" and os.path.isdir(path)):  # which Windows cannot sync
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot either
            raise
    finally:
        os.close(handle)


def sync_all(folder: str) -> None:
    """The same of a folder and of all that is in it."""
    if "://" not in folder:
        for root, _, names in os.walk(folder):
            for path in [os.path.join(root, name) for name in names] + [root]:
                sync(path)


def sync_parent(path: str) -> None:
    """The same of the folder that the name `path` stands in."""
    if "://" not in path:
        sync(os.path.dirname(os.path.abspath(path)))


def make_folders(path: str) -> None:
    """Makes a folder, and those above it that are missing, to stay. Raises ERRORS."""
    missing, there = [], path
    while "://" not in path and there and not os.path.isdir(there):
        missing.append(there)
        there = os.path.dirname(there.rstrip("/"))
    tf.io.gfile.makedirs(path)
    for made in reversed(missing):
        sync_parent(made.rstrip("/"))


def remove(path: str) -> None:
    """Removes a file or a folder and what is in it, if it is there; of a link the link. Raises
    ERRORS."""
    if "://" not in path and os.path.islink(path):
        os.remove(path)
    elif tf.io.gfile.exists(path):
        (tf.io.gfile.rmtree if tf.io.gfile.isdir(path) else tf.io.gfile.remove)(path)


def remove_quietly(path: str) -> None:
    """The same if that can be done: of no use any more, but in nobody's way."""
    with contextlib.suppress(*ERRORS):
        remove(path)


def is_forbidden(error: Exception) -> bool:
    """Whether it is the permissions that something was not read or written for."""
    return isinstance(error, (PermissionError, tf.errors.PermissionDeniedError)) or any(
        os.strerror(code) in str(error) for code in (errno.EACCES, errno.EROFS))


@contextlib.contextmanager
def replacing(path: str, beside: str) -> Iterator[None]:
    """The block writes the file `beside`, which then takes the place of `path`. Raises ERRORS."""
    try:
        yield
        sync(beside)
        tf.io.gfile.rename(beside, path, overwrite=True)
    except BaseException:
        remove_quietly(beside)  # it would keep a full disk full
        raise
    sync_parent(path)


def write_whole(path: str, data: bytes, shared: bool = False) -> None:
    """Writes a file whole or not at all; makes missing folders.

    Args:
        shared: another process may write the same file at the same time.

    Raises ERRORS.
    """
    make_folders(os.path.dirname(path))
    beside = own_name(path) if shared else path + ".tmp"
    with replacing(path, beside), tf.io.gfile.GFile(beside, "wb") as file:
        file.write(data)


def own_name(path: str) -> str:
    """A name beside `path` that no other process takes."""
    return f"{path}.{os.getpid()}.tmp"


def own_folder(path: str) -> str:
    """The same for a folder that is to become `path`: hidden, and says by whom it is written."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{_machine()}.{os.getpid()}.tmp")


def remove_orphans(folder: str) -> None:
    """Removes what `own_folder` named in it for processes of this machine that have ended. Those
    of other machines may still be at it."""
    with contextlib.suppress(*ERRORS):
        for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else ():
            found = re.fullmatch(rf"\..+\.{_machine()}\.(\d+)\.tmp(\.tmp)?/?", name)
            if found and _has_ended(int(found[1])):
                remove_quietly(os.path.join(folder, name))


def _machine():
    return re.sub(r"\W", "_", platform.node())


def _has_ended(process):
    if process == os.getpid():  # an earlier one of that number
        return True
    try:
        if os.name != "nt":  # where this would end it
            os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False
