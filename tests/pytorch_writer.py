"""Writes state dicts byte for byte as PyTorch does, in both its formats, without PyTorch."""

import pickle
import pickletools
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {"f4": "FloatStorage", "f2": "HalfStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


def plain(value):
    """A pickle's opcodes for a value, without head, end and memo."""
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


def storage(key, kind, count, legacy, module="torch"):
    ends = b"N" if legacy else b""  # not a view
    return (b"(" + plain("storage") + f"c{module}\n{kind}\n".encode() + plain(str(key))
            + plain("cuda:0") + plain(count) + ends + b"tQ")


def tensor(key, kind, count, shape, strides, legacy, offset=0, module="torch", version="_v2"):
    rest = plain(False) + b"ccollections\nOrderedDict\n)R" if version else b""
    return (f"ctorch._utils\n_rebuild_tensor{version}\n".encode() + b"("
            + storage(key, kind, count, legacy, module) + plain(offset) + plain(tuple(shape))
            + plain(tuple(strides)) + rest + b"tR")


def strides(shape):
    return [int(np.prod(shape[i + 1:])) for i in range(len(shape))]


def state_dict(items, python2=False):
    """items: [(name, opcodes)]; Python 2 gave an OrderedDict its items as a list of lists."""
    if python2:
        pairs = b"".join(b"]" + b"(U" + bytes([len(n)]) + n.encode() + value + b"e"
                         for n, value in items)
        return b"\x80\x02ccollections\nOrderedDict\n(](" + pairs + b"etR."
    pairs = b"".join(plain(name) + value for name, value in items)
    meta = b"}" + plain("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + pairs + b"u" + meta + b"."


def as_pickle(arrays, legacy, **changes):
    python2 = changes.pop("python2", False)
    return state_dict([(name, tensor(i, KINDS[array.dtype.str[1:]], array.size, array.shape,
                                     strides(array.shape), legacy, **changes))
                       for i, (name, array) in enumerate(arrays.items())], python2)


def write_legacy(path, arrays, state=None, counts=None, little_endian=True, **changes):
    system = {"protocol_version": 1001, "little_endian": little_endian,
              "type_sizes": {"short": 2, "int": 4, "long": 4}}
    heads = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, system))
    keys = [str(i) for i in range(len(arrays))]
    data = b"".join(struct.pack("<q", (counts or {}).get(i, array.size)) + array.tobytes()
                    for i, array in enumerate(arrays.values()))
    path.write_bytes(heads + (state or as_pickle(arrays, True, **changes))
                     + pickle.dumps(keys, 2) + data)
    return str(path)


def write_zip(path, arrays, state=None, compress=zipfile.ZIP_STORED, leave_out=(), **changes):
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("netG/data.pkl", state or as_pickle(arrays, False, **changes))
        archive.writestr("netG/byteorder", "little")
        for i, array in enumerate(arrays.values()):
            if i not in leave_out:
                archive.writestr(f"netG/data/{i}", array.tobytes())
        archive.writestr("netG/version", "3\n")
    return str(path)


WRITERS = {"legacy": write_legacy, "zip": write_zip}
