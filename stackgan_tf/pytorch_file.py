"""Reads a PyTorch state dict (.pth) into NumPy arrays, with or without PyTorch.

Where PyTorch is installed, `torch.load(weights_only=True)` reads it, once its sizes are checked
here. Where not, or where that refuses (it knows fewer of Python 2's pickles), the reader here does,
through `restricted_pickle`: the names that PyTorch writes are interpreted, never imported. Two
formats:

zip (PyTorch 1.6 and later): `NAME/data.pkl`, and each storage as `NAME/data/KEY`, not compressed.
legacy: five pickles, one behind the other (magic number, protocol version, system, the state
dict, the storages' keys), then each storage: int64 count of its elements, and the elements.

In both, a tensor is (storage, offset, sizes, strides), and a storage a persistent id: ("storage",
kind, key, device, count of elements), in the legacy format with a view of it behind.
"""

import io
import math
import os
import struct
import zipfile

import numpy as np

from stackgan_tf import restricted_pickle
from stackgan_tf.restricted_pickle import PickleError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

# Storages by the type of their elements; bfloat16 is not NumPy's: the upper half of a float32.
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
             "BFloat16Storage": "bfloat16", "LongStorage": "<i8", "IntStorage": "<i4",
             "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
             "BoolStorage": "<u1"}
_REMEDY = ("only a state dict of tensors is read, and nothing of it was run. If you trust its "
           "maker, have it saved again with torch.save(netG.state_dict(), PATH).")


def read(path: str) -> dict[str, np.ndarray]:
    """{name: float32 array} of a state dict, in the order of the file.

    Raises:
        PickleError (a ValueError): one line with what the file asks for, or what is wrong in it.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        is_zip = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        (_check_zip if is_zip else _check_legacy)(file, path, size)
        tensors = _read_with_torch(path, size)
        if tensors is None:
            file.seek(0)
            tensors = (_read_zip if is_zip else _read_legacy)(file, path, size)
    return tensors


def _read_with_torch(path, size):
    """As `read`; None if PyTorch is not there or refuses, so that our own words say why."""
    try:
        import torch
    except (ImportError, OSError):  # not installed, or not for this machine
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # a tensor may repeat its numbers without end; none of these do
        if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > size:
            return None
        return {name: tensor.detach().float().numpy() for name, tensor in state.items()}
    except Exception:  # on a bad file nearly anything; our own reader decides and explains
        return None


def _check_zip(file, path, size):
    """Reads all but the numbers, before PyTorch does: what it holds is no larger than it is, and
    its pickle makes no more than that."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise PickleError(f"{path}: {entry.filename[:100]!r} in it is compressed, "
                                      "which PyTorch never does; get it again.")
            if sum(entry.file_size for entry in entries) > size:
                raise PickleError(f"{path} claims to hold more than its {size:,} bytes; get it "
                                  "again.")
            folders = {name[:-len("data.pkl")] for name in archive.namelist()
                       if name.endswith("/data.pkl") and name.count("/") == 1}
            if len(folders) != 1:
                raise PickleError(f"{path} is a zip but no PyTorch file (it has no data.pkl).")
            folder, reader = folders.pop(), _Reader(path, size)
            return reader, reader.load(io.BytesIO(archive.read(folder + "data.pkl"))), folder
    except PickleError:
        raise
    except Exception as error:  # what zipfile raises on damage, encryption and the like
        raise _damaged(path) from error


def _read_zip(file, path, size):
    reader, state, folder = _check_zip(file, path, size)
    try:
        with zipfile.ZipFile(file) as archive:
            names, order = set(archive.namelist()), folder + "byteorder"
            if order in names and archive.read(order) != b"little":
                raise PickleError(f"{path} was written by a big-endian machine; have it saved "
                                  "again on another.")
            for key, storage in reader.storages.items():
                name = f"{folder}data/{key}"
                if name not in names:
                    raise PickleError(f"{path} lacks the storage {name[:100]!r}; get it again.")
                storage.data = archive.read(name)
                if len(storage.data) != storage.size:
                    raise PickleError(
                        f"{path}: the storage {key[:100]!r} should have {storage.size:,} bytes "
                        f"and has {len(storage.data):,}; get it again.")
            return reader.arrays(state)
    except PickleError:
        raise
    except Exception as error:
        raise _damaged(path) from error


def _check_legacy(file, path, size):
    """Reads all but the numbers: torch.load takes whatever is in the memory for a storage that
    is not listed, and makes room for as much as a file claims."""
    reader = _Reader(path, size)
    try:
        if reader.load(file) != _MAGIC:
            raise PickleError("another pickle")
    except PickleError as error:
        raise PickleError(f"{path} is no PyTorch file (neither a zip nor the format before it); "
                          "give one that torch.save made.") from error
    if reader.load(file) != _PROTOCOL:
        raise PickleError(f"{path} is of another PyTorch format than {_PROTOCOL} and zip; have it "
                          "saved again with a PyTorch of today.")
    system = reader.load(file)
    if type(system) is not dict or system.get("little_endian") is not True:
        raise PickleError(f"{path} was written by a big-endian machine; have it saved again on "
                          "another.")
    state, keys = reader.load(file), reader.load(file)
    if type(keys) is not list or not all(isinstance(key, str) for key in keys) or (
            sorted(keys) != sorted(reader.storages)):
        raise PickleError(f"{path}: the list of its storages is not that of its tensors; get it "
                          "again.")
    for key in keys:
        storage, head = reader.storages[key], file.read(8)
        if len(head) < 8 or storage.size > size - file.tell():
            raise PickleError(f"{path} is cut off in its storage {key[:100]!r}; get it again.")
        (count,) = struct.unpack("<q", head)
        if count != storage.count:
            raise PickleError(f"{path}: the storage {key[:100]!r} should have {storage.count:,} "
                              f"numbers and has {count:,}; get it again.")
        storage.place = file.tell()
        file.seek(storage.size, os.SEEK_CUR)
    return reader, state


def _read_legacy(file, path, size):
    reader, state = _check_legacy(file, path, size)
    for storage in reader.storages.values():
        file.seek(storage.place)
        storage.data = file.read(storage.size)
    return reader.arrays(state)


def _damaged(path):
    return PickleError(f"{path} is damaged or cut off; get it again.")


class _Storage:
    """Numbers of one kind; `data`, and in the legacy format their `place`, come later."""

    def __init__(self, kind, count):
        self.kind, self.count = kind, count
        self.item = 2 if kind == "bfloat16" else np.dtype(kind).itemsize
        self.size = count * self.item

    def numbers(self):
        if self.kind == "bfloat16":
            return (np.frombuffer(self.data, "<u2").astype("<u4") << 16).view("<f4")
        return np.frombuffer(self.data, self.kind)


class _Tensor:
    def __init__(self, storage, offset, sizes, strides):
        self.storage, self.offset, self.sizes, self.strides = storage, offset, sizes, strides

    def array(self):
        numbers = self.storage.numbers()[self.offset:]
        steps = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers, self.sizes, steps, writeable=False)
        return view.astype(np.float32)


class _Reader:
    """What PyTorch's pickles ask for, made of checked arguments. Each raises PickleError."""

    def __init__(self, path, size):
        self.path, self.size, self.storages = path, size, {}
        self.names = {
            ("collections", "OrderedDict"): self.ordered_dict,
            ("torch._utils", "_rebuild_tensor"): self.tensor,  # before PyTorch 0.4
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): self.parameter,
        }
        for module in ("torch", "torch.cuda"):
            self.names.update({(module, name): kind for name, kind in _STORAGES.items()})

    def load(self, source):
        if isinstance(source, io.BytesIO):
            source.name = self.path  # for its messages
        return restricted_pickle.load(source, self.names, self.storage, _REMEDY)

    def refuse(self, what):
        raise PickleError(f"{self.path} holds {what}; {_REMEDY}")

    def ordered_dict(self, items=()):
        """Python 3 fills it afterwards; Python 2 wrote a list of [key, value]."""
        if not all(type(item) in (list, tuple) and len(item) == 2 and isinstance(item[0], str)
                   for item in items):
            self.refuse("a dict of other keys than names")
        return dict(items)

    def storage(self, identity):
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
            self.refuse("something that is neither a tensor nor a storage")
        _, kind, key, _, count, *view = identity
        if type(kind) is not restricted_pickle.Name or kind.kind not in _STORAGES.values() or (
                not isinstance(key, str) or type(count) is not int or abs(count) >= 2**99):
            self.refuse("a storage of an unknown kind or size")
        if view not in ([], [None]):
            self.refuse("a storage that is part of another")
        made = _Storage(kind.kind, count)
        if not 0 <= made.size <= self.size:
            raise PickleError(f"{self.path}: the storage {key[:100]!r} claims {count:,} numbers, "
                              f"more than the {self.size:,} bytes of the file; get it again.")
        known = self.storages.setdefault(key, made)
        if (known.kind, known.count) != (made.kind, count):
            self.refuse(f"two storages named {key[:100]!r}")
        return known

    def tensor(self, storage, offset, sizes, strides, *_):
        """The rest: whether it needs a gradient, its hooks."""
        if type(storage) is not _Storage or type(sizes) is not tuple or (
                type(strides) is not tuple) or not len(sizes) == len(strides) <= 8:
            self.refuse("a tensor without sizes")
        numbers = (offset, *sizes, *strides)
        if not all(type(number) is int and abs(number) < 2**40 for number in numbers):
            self.refuse("a tensor without sizes")
        if min(numbers) < 0:
            self.refuse(f"a tensor of negative sizes or strides {sizes} {strides}")
        last = offset + sum((n - 1) * stride for n, stride in zip(sizes, strides))
        if not 0 < math.prod(sizes) <= storage.count or last >= storage.count:
            self.refuse(f"a tensor {sizes} beyond the {storage.count:,} numbers of its storage")
        return _Tensor(storage, offset, sizes, strides)

    def parameter(self, data, *_):
        if type(data) is not _Tensor:
            self.refuse("a parameter that is no tensor")
        return data

    def arrays(self, state):
        """The state dict once the storages are read."""
        if type(state) is not dict:
            self.refuse(f"one {type(state).__name__.strip('_').lower()}")
        for name, value in state.items():
            if not isinstance(name, str) or type(value) is not _Tensor:
                self.refuse(f"{str(name)[:100]!r}, which is no tensor")
        if sum(math.prod(t.sizes) * t.storage.item for t in state.values()) > self.size:
            self.refuse("tensors that are larger than the file")
        return {name: tensor.array() for name, tensor in state.items()}
