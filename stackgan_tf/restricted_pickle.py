"""Reads pickles of plain data, of Python 2 and 3, without running what they ask for.

A pickle is a program, and `pickle.load` runs it. This is a small machine for the opcodes that
lists of texts, numbers and NumPy arrays are made of, at any protocol. It imports nothing and calls
nothing by name: each of the few names that NumPy writes stands for a function of this file, and
any other is refused by name as soon as it is read. A caller may stand in for further names, with
functions of its own; they are not imported either.

Why not `pickle.Unpickler` with a `find_class`: NumPy's own `__setstate__` and `scalar` trust the
shapes, field offsets and dtypes of the file; the memo is sized by an index in the file; and a
memoized string stays beside the array made of it, so that a 2.5 GB pickle needs 5 GB. A few bytes
can also ask for a large memoized string's content again and again: what is made is counted, and
is no more than a few times the file. Why no look
ahead with `pickletools.genops`: it reads the file a second time, and fails at the first byte
above 127 of a protocol 0 string, which is how Python 2 wrote class 128.
"""

import codecs
import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator

import numpy as np

# Exactly the names that NumPy's arrays and scalars are pickled with; any other is refused.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.multiarray", "scalar"): "scalar",
    ("numpy._core.multiarray", "scalar"): "scalar",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
}


_REMEDY = ("only lists, texts, numbers and NumPy arrays of numbers are read, and nothing of it was "
           "run. If you trust its maker, have it written again as such (protocol 4 or lower).")


_MOST_MADE = 4  # bytes for each of the file; text and byte order cost a real one 2 more at most
_MOST_DIMENSIONS, _LONGEST_DIMENSION = 32, 2**48
_LARGEST_KEY = 2**61  # Python's hash of an int is its rest by 2**61 - 1: multiples all collide


class PickleError(ValueError):
    """The file asks for what it may not have, is damaged or is no pickle. One line."""


def load(source, names=None, persistent=None, remedy=_REMEDY):
    """The content of a pickle: lists, tuples, dicts, str, bytes, numbers, arrays, None.

    Args:
        source: a path, or a binary file that can be sought in, which is left behind the pickle.
            Strings of Python 2 are read as latin1. Arrays come out read-only; numbers and texts
            of NumPy of a fixed size only.
        names: {(module, name): stand-in} of what the pickle may ask for besides NumPy's names; a
            function is called with the arguments in the file, which it has to check, anything
            else is the `kind` of a Name, not to be called.
        persistent: function of a persistent id (from untrusted bytes) that gives the object.
        remedy: how a refusal ends.

    Raises:
        PickleError (a ValueError): one line with the file's name and what it asked for.
    """
    with _opened(source) as machine:
        machine.names = {**ALLOWED, **names} if names else ALLOWED
        machine.persistent, machine.remedy = persistent, remedy
        for _ in machine.run(stream=False):
            pass
        return machine.result


def iterate(source) -> Iterator:
    """The items of a pickled list, one after the other, each forgotten when handed out.

    The memory is that of an item where the list was written item by item (protocol 0), of up to
    a thousand where it was written in batches. Arguments and errors as for `load`.
    """
    with _opened(source) as machine:
        yield from machine.run(stream=True)
        if not machine.streamed:
            if not isinstance(machine.result, (list, tuple, np.ndarray)):
                raise PickleError(f"{machine.name} holds one {type(machine.result).__name__}, not "
                                  "a list.")
            yield from machine.result


def arrays(source) -> Iterator[np.ndarray]:
    """The items of a pickled list of arrays, as `iterate` gives them. Anything else is refused:
    np.asarray of lists in lists, each twice the one below, would not come to an end."""
    name = getattr(source, "name", source)
    for i, item in enumerate(iterate(source)):
        if not isinstance(item, np.ndarray):
            raise PickleError(f"{name}: entry {i} is one {type(item).__name__}, not an array; get "
                              "it again.")
        yield item


@contextlib.contextmanager
def _opened(source):
    if hasattr(source, "read"):
        yield _Machine(source, str(getattr(source, "name", "the pickle")))
    else:
        with open(source, "rb") as file:
            yield _Machine(file, os.fspath(source))


class Name:
    """A name that the pickle has asked for and may have."""

    def __init__(self, kind):
        self.kind = kind


class _Unbuilt:
    """An array or a dtype whose state is still to come, and its places in the memo."""

    def __init__(self, kind, code=None):
        self.kind, self.code, self.places = kind, code, []


class _Parts(tuple):
    """A tuple with a dtype or something unbuilt in it: what arrays are made of, and no data."""


_NO_DATA = (np.dtype, _Unbuilt, _Parts)


def _tuple(items):
    return (_Parts if any(isinstance(item, _NO_DATA) for item in items) else tuple)(items)


_FORGOTTEN = object()  # in the memo: was there, and is not kept

_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_NUMBERS = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
_STRINGS = {  # opcode: (format of the length, encoding)
    b"U": ("<B", "latin1"), b"T": ("<i", "latin1"),
    b"\x8c": ("<B", "utf-8"), b"X": ("<I", "utf-8"), b"\x8d": ("<Q", "utf-8"),
    b"C": ("<B", None), b"B": ("<I", None), b"\x8e": ("<Q", None), b"\x96": ("<Q", None),
}
_LINES = {
    b"I": lambda line: {b"00": False, b"01": True}[line] if len(line) == 2 and line[:1] == b"0"
    else int(line),
    b"L": lambda line: int(line.rstrip(b"L")),
    b"F": float,
    b"V": lambda line: line.decode("raw-unicode-escape"),
    b"S": lambda line: codecs.escape_decode(line[1:-1])[0].decode("latin1"),
}
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_PUTS = {b"q": "<B", b"r": "<I"}
_GETS = {b"h": "<B", b"j": "<I"}
_EXTENSIONS = {b"\x82": "<B", b"\x83": "<H", b"\x84": "<I"}
_REFUSED = {
    b"2": "an item once more",  # no pickler writes it
    b"o": "a new object",
    b"\x81": "a new object", b"\x92": "a new object",
    b"\x97": "a buffer beside the file", b"\x98": "a buffer beside the file",
    b"\x8f": "a set", b"\x90": "a set", b"\x91": "a set",
}


class _Machine:
    """Stack, marks and memo of a pickle that is being read.

    Attributes:
        result: what the pickle holds, once `run` is through.
        streamed: whether `run` handed out items of a list.
    """

    def __init__(self, file, name):
        self.file, self.name = file, name
        # A length in a pickle can claim anything; no more is asked for than the file has.
        begin = file.tell()
        file.seek(0, os.SEEK_END)
        self.size = self.left = file.tell() - begin
        file.seek(begin)
        self.stack, self.marks, self.memo = [], [], {}
        self.places = {}  # {id: places in the memo} of what arrays may be made of
        self.unbuilt = self.made = 0
        self.stream, self.result, self.streamed = False, None, False
        self.names, self.persistent, self.remedy = ALLOWED, None, _REMEDY

    def run(self, stream: bool) -> Iterator:
        """Reads to the end; yields the items of the outermost list when `stream`."""
        self.stream = stream
        try:
            while (code := self.read(1)) != b".":
                if stream and self.appends_to_outermost(code):
                    self.streamed = True
                    items = self.data(self.to_mark() if code == b"e" else [self.stack.pop()])
                    items.reverse()
                    while items:
                        yield items.pop()
                else:
                    self.step(code)
            (self.result,) = self.stack
            if self.marks or self.unbuilt or (self.streamed and type(self.result) is not list):
                raise self.damaged()
            self.data([self.result])
        except (PickleError, OSError):
            raise
        except MemoryError as error:
            raise PickleError(f"{self.name} does not fit into the memory.") from error
        except Exception as error:  # on hostile bytes nearly anything
            raise self.damaged() from error

    def appends_to_outermost(self, code):
        """Whether the opcode adds to a list that is alone on the stack."""
        if code == b"a":
            return not self.marks and len(self.stack) == 2 and type(self.stack[0]) is list
        return code == b"e" and self.marks == [1] and type(self.stack[0]) is list

    def damaged(self):
        if not self.size:
            return PickleError(f"{self.name} is empty (0 bytes); get it again.")
        return PickleError(f"{self.name} is no pickle, or is damaged or cut off at byte "
                           f"{self.size - self.left:,} of {self.size:,}; get it again.")

    def refuse(self, what):
        raise PickleError(f"{self.name} asks for {what[:100]!s}; {self.remedy}")

    def charge(self, count):
        """Counts bytes about to be made of what is in the memory already."""
        self.made += count
        if self.made > _MOST_MADE * self.size:
            self.refuse(f"more than {_MOST_MADE} times the memory of its {self.size:,} bytes")

    def data(self, values):
        """The values, none of which may be a dtype: arrays alone are made of them."""
        for value in values:
            if isinstance(value, _Unbuilt):
                raise self.damaged()
            if isinstance(value, _NO_DATA):
                self.refuse("an array of records, or a dtype that is of no array")
        return values

    def read(self, count):
        if not 0 <= count <= self.left:
            raise self.damaged()
        self.left -= count
        return self.file.read(count)

    def line(self):
        line = self.file.readline()
        self.left -= len(line)
        if not line.endswith(b"\n"):
            raise self.damaged()
        return line[:-1]

    def number(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def to_mark(self):
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def put(self, place):
        value = self.memo[place] = self.stack[-1]
        if isinstance(value, _Unbuilt):
            value.places.append(place)
        elif isinstance(value, tuple) or (type(value) in (str, bytes) and len(value) > 1000):
            self.places.setdefault(id(value), []).append(place)

    def get(self, place):
        if self.memo[place] is _FORGOTTEN:
            raise PickleError(f"{self.name} refers back to an array that was let go already; have "
                              "it written again without repeated objects.")
        self.stack.append(self.memo[place])

    def forget(self, *used):
        """Takes what has become an array out of the memo, where it would stay beside it."""
        for value in used:
            for place in self.places.pop(id(value), ()):
                if self.memo[place] is value:  # not of another one that had its id before
                    self.memo[place] = _FORGOTTEN

    def step(self, code):
        stack, push = self.stack, self.stack.append
        if code in _STRINGS:
            form, encoding = _STRINGS[code]
            data = self.read(self.number(form))
            push(data.decode(encoding, "surrogatepass") if encoding else data)
        elif code in _LINES:
            push(_LINES[code](self.line()))
        elif code in _CONSTANTS:
            push(_CONSTANTS[code])
        elif code in _NUMBERS:
            push(self.number(_NUMBERS[code]))
        elif code in (b"\x8a", b"\x8b"):
            count = self.number("<B" if code == b"\x8a" else "<i")
            push(int.from_bytes(self.read(count), "little", signed=True))
        elif code in _TUPLES:
            items = _tuple(stack[-_TUPLES[code]:])
            del stack[-_TUPLES[code]:]
            push(items)
        elif code in _PUTS:
            self.put(self.number(_PUTS[code]))
        elif code in _GETS:
            self.get(self.number(_GETS[code]))
        elif code in _EXTENSIONS:
            self.refuse(f"number {self.number(_EXTENSIONS[code])} of the extension registry")
        elif code in _REFUSED:
            self.refuse(_REFUSED[code])
        else:
            _STEPS[code](self)

    def pop(self):
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def append(self, items):
        if type(self.stack[-1]) is not list:
            raise self.damaged()
        self.stack[-1].extend(self.data(items))

    def set_items(self, items):
        for key in items[::2]:  # no tuples: hashing nested ones can take for ever
            if not isinstance(key, (str, bytes, int, float, np.generic)) or isinstance(
                    key, np.complexfloating):
                self.refuse(f"a dict with a {type(key).__name__} as a key")
            if isinstance(key, int) and abs(key) >= _LARGEST_KEY:
                self.refuse("a dict with an integer above 2**61 as a key")
        if type(self.stack[-1]) is not dict:
            raise self.damaged()
        self.stack[-1].update(zip(items[::2], self.data(items[1::2]), strict=True))

    def new(self, kind, fill):
        items = self.to_mark()
        self.stack.append(kind())
        fill(items)

    def find_class(self, module, name):
        """Puts an allowed name on the stack; it is compared as written, never looked up."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("a name that is no text")
        if (module, name) not in self.names:
            self.refuse(f"{module}.{name}")
        self.stack.append(Name(self.names[module, name]))

    def persistent_object(self):
        if self.persistent is None:
            self.refuse("a persistent object")
        self.stack.append(self.persistent(self.stack.pop()))

    def instance(self):
        self.find_class(self.line().decode(), self.line().decode())
        self.refuse("an old-style instance")

    def reduce(self):
        """Calls none of the names: it makes what NumPy would, from checked arguments."""
        arguments, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or not isinstance(arguments, tuple):
            raise self.damaged()
        if callable(name.kind):  # a stand-in of the caller, which may copy what it is given
            self.charge(sum(8 * len(a) for a in arguments if isinstance(a, (list, tuple, dict))))
            made = name.kind(*arguments)
        elif (name.kind == "array" and type(arguments[0]) is Name
              and arguments[0].kind == "ndarray"):
            made = _Unbuilt("array")
        elif name.kind == "dtype":
            made = _Unbuilt("dtype", self.checked_dtype(arguments[0]))
        elif name.kind == "scalar":
            kind, data = arguments
            made = self.array((), kind, data, "C")
            self.charge(made.nbytes)
            made = made[()]
        elif name.kind == "encode" and arguments[1:] == ("latin1",):
            self.forget(arguments, arguments[0])
            made = self.latin1(arguments[0])
        else:
            self.refuse(f"{name.kind} of other arguments than NumPy's")
        self.unbuilt += isinstance(made, _Unbuilt)
        self.stack.append(made)

    def build(self):
        state, target = self.stack.pop(), self.stack.pop()
        if type(target) is dict and self.names is not ALLOWED:
            self.stack.append(target)  # attributes of a stand-in, such as _metadata: not kept
            return
        if type(target) is not _Unbuilt:
            raise self.damaged()
        if target.kind == "dtype":
            _, order, subarray, names, fields = state[:5]
            if subarray is not None or names is not None or fields is not None:
                self.refuse("an array of records")
            made = kept = target.code.newbyteorder(order)
        else:
            _, shape, kind, is_fortran, data = state
            self.forget(state, data)
            made = self.array(shape, kind, data, "F" if is_fortran else "C")
            kept = _FORGOTTEN if self.stream else made
        for place in target.places:
            self.memo[place] = kept
        self.unbuilt -= 1
        self.stack.append(made)

    def checked_dtype(self, code):
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch(r"[<>=|]?([biufc]\d{1,2}|[SU]\d{1,7})", code):
            self.refuse(f"a NumPy array of dtype {code!r}")
        return np.dtype(code)

    def latin1(self, text):
        self.charge(len(text))
        return text.encode("latin1")

    def array(self, shape, kind, data, order):
        """The array of these bytes, without a copy where they are bytes; never larger than them."""
        if not isinstance(kind, np.dtype) or type(shape) is not tuple:
            raise self.damaged()
        if len(shape) > _MOST_DIMENSIONS or not all(
                type(n) is int and 0 <= n < _LONGEST_DIMENSION for n in shape):
            raise PickleError(f"{self.name} holds an array with other content than its size; get "
                              "it again.")
        data, count = self.latin1(data) if isinstance(data, str) else data, math.prod(shape)
        if type(data) is not bytes or count * kind.itemsize != len(data):
            raise PickleError(f"{self.name} holds an array of {kind} {shape} with other content "
                              "than that; get it again.")
        if not data:
            self.charge(4 * count)  # of empty texts, which NumPy gives a character each
            return np.empty(shape, kind)
        array = np.frombuffer(data, kind).reshape(shape, order=order)
        if not kind.isnative:
            self.charge(len(data))
        return array.astype(kind.newbyteorder("="), copy=False)  # as NumPy reads it


_STEPS = {
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"0": _Machine.pop,
    b"1": lambda m: m.to_mark() and None,
    b"]": lambda m: m.stack.append([]),
    b"}": lambda m: m.stack.append({}),
    b"t": lambda m: m.stack.append(_tuple(m.to_mark())),
    b"l": lambda m: m.new(list, m.append),
    b"d": lambda m: m.new(dict, m.set_items),
    b"a": lambda m: m.append([m.stack.pop()]),
    b"e": lambda m: m.append(m.to_mark()),
    b"s": lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    b"u": lambda m: m.set_items(m.to_mark()),
    b"c": lambda m: m.find_class(m.line().decode(), m.line().decode()),
    b"\x93": lambda m: m.find_class(m.stack.pop(-2), m.stack.pop()),
    b"i": _Machine.instance,
    b"Q": _Machine.persistent_object,
    b"P": lambda m: m.refuse(f"the persistent object {m.line().decode('latin1')!r}"),
    b"R": _Machine.reduce,
    b"b": _Machine.build,
    b"p": lambda m: m.put(int(m.line())),
    b"g": lambda m: m.get(int(m.line())),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"\x80": lambda m: m.read(1),
    b"\x95": lambda m: m.read(8) and None,  # a frame's length says nothing new
}
