r"""Writes pickles byte for byte as Python 2 did, with NumPy's names of that time.

Protocol 0 as its `pickle` module: text, every string and tuple memoized, and lists appended item
by item; bytes above 127 are written \x80 inside quotes. Protocol 2 as its cPickle: binary, and
items in batches of a thousand.
"""

import struct

import numpy as np


def dumps(value, protocol):
    writer = Writer(protocol)
    return (b"\x80\x02" if protocol == 2 else b"") + writer.any(value) + b"."


class Writer:
    def __init__(self, protocol):
        self.binary, self.places = protocol == 2, 0
        self.kinds = {}

    def put(self):
        self.places += 1
        place = self.places - 1
        if not self.binary:
            return b"p%d\n" % place
        return b"q" + bytes([place]) if place < 256 else b"r" + struct.pack("<I", place)

    def get(self, place):
        if not self.binary:
            return b"g%d\n" % place
        return b"h" + bytes([place]) if place < 256 else b"j" + struct.pack("<I", place)

    def any(self, value):
        if isinstance(value, list):
            return self.list(value)
        if isinstance(value, (str, bytes)):
            return self.string(value)
        if isinstance(value, np.ndarray):
            return self.array(value)
        if isinstance(value, np.generic):
            return self.scalar(value)
        return self.integer(value)

    def list(self, values):
        if not self.binary:
            begin = b"(l" + self.put()
            return begin + b"".join(self.any(value) + b"a" for value in values)
        parts = [b"]" + self.put()]
        for first in range(0, len(values), 1000):
            parts += [b"(", *map(self.any, values[first:first + 1000]), b"e"]
        return b"".join(parts)

    def string(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        if self.binary:
            head = b"U" + bytes([len(data)]) if len(data) < 256 else (
                b"T" + struct.pack("<i", len(data)))
            return head + data + self.put()
        # what Python 2's repr() of a str gives
        text = "".join({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(
            c, c if " " <= c <= "~" else f"\\x{ord(c):02x}") for c in data.decode("latin1"))
        return b"S'" + text.encode("ascii") + b"'\n" + self.put()

    def integer(self, value):
        if self.binary and 0 <= value < 256:
            return b"K" + bytes([value])
        if self.binary and 0 <= value < 65536:
            return b"M" + struct.pack("<H", value)
        if not -2**31 <= value < 2**31:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data if self.binary else b"L%dL\n" % value
        return b"J" + struct.pack("<i", value) if self.binary else b"I%d\n" % value

    def tuple(self, *parts):
        return b"(" + b"".join(parts) + b"t" + self.put()

    def name(self, module, name):
        return f"c{module}\n{name}\n".encode() + self.put()

    def dtype(self, kind):
        if kind.str in self.kinds:
            return self.get(self.kinds[kind.str])
        made = self.name("numpy", "dtype") + self.tuple(
            self.string(kind.str[1:]), self.integer(0), self.integer(1)) + b"R"
        self.kinds[kind.str] = self.places
        order, minus = kind.str[0], b"J\xff\xff\xff\xff" if self.binary else b"I-1\n"
        return made + self.put() + self.tuple(
            self.integer(3), self.string(order), b"NNN", minus, minus, self.integer(0)) + b"b"

    def array(self, value):
        parts = [self.name("numpy.core.multiarray", "_reconstruct"),
                 self.tuple(self.name("numpy", "ndarray"), self.tuple(self.integer(0)),
                            self.string("b")), b"R", self.put()]
        false = b"\x89" if self.binary else b"I00\n"
        parts += [self.tuple(
            self.integer(1), self.tuple(*map(self.integer, value.shape)), self.dtype(value.dtype),
            false, self.string(value.tobytes())), b"b"]
        return b"".join(parts)

    def scalar(self, value):
        return self.name("numpy.core.multiarray", "scalar") + self.tuple(
            self.dtype(value.dtype), self.string(value.tobytes())) + b"R" + self.put()
