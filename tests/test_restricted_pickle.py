"""Pickles of data are read as `pickle` reads them; anything else is refused before it runs."""

import io
import os
import pickle
import pickletools
import tracemalloc

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from python2_pickle import dumps

from stackgan_tf import restricted_pickle


def load(data):
    return restricted_pickle.load(io.BytesIO(data))


def refusal(data):
    with pytest.raises(ValueError) as caught:
        load(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def same(one, other):
    if isinstance(other, np.ndarray):
        assert isinstance(one, np.ndarray) and one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif isinstance(other, (list, tuple)):
        assert type(one) is type(other) and len(one) == len(other)
        for a, b in zip(one, other):
            same(a, b)
    elif isinstance(other, dict):
        same(list(one.items()), list(other.items()))
    else:
        assert type(one) is type(other) and one == other


# What Python 2 wrote

def test_the_bytes_of_python_2():
    """Written out by hand: class 200 as a protocol 0 scalar, and a name of latin1 letters."""
    data = (b"(lp0\ncnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'i8'\np3\nI0\nI1\n"
            b"tp4\nRp5\n(I3\nS'<'\np6\nNNNI-1\nI-1\nI0\ntp7\nbS'\\xc8\\x00\\x00\\x00\\x00\\x00"
            b"\\x00\\x00'\np8\ntp9\nRp10\naS'Oiseau_d\\xe9sert\\\\'\np11\na.")
    number, name = load(data)
    assert number == 200 and number.dtype == np.int64 and name == "Oiseau_d\xe9sert\\"
    # genops, with which one might look for names first, does not come through
    with pytest.raises(UnicodeDecodeError):
        list(pickletools.genops(data))


@pytest.mark.parametrize("protocol", [0, 2])
def test_python_2(protocol):
    rng = np.random.default_rng(0)
    values = [np.int64(1), np.int64(127), np.int64(128), np.int64(200), "jpg/image_06734", "it's",
              rng.normal(size=(10, 7)).astype(np.float32), rng.normal(size=(2, 3)),
              rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), 300, 70_000, []]
    data = dumps(values, protocol)
    same(load(data), values)
    same(pickle.loads(data, encoding="latin1"), values)  # the writer is right: Python agrees


# What Python 3 wrote: pickle itself is the oracle

@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(min_size=1)  # b"" asks for builtins.bytes below protocol 3
    | arrays.arrays(st.sampled_from([np.uint8, np.float32, ">i4", "U3", "S2", bool]), (2, 3)),
    lambda inner: st.lists(inner)
    | st.dictionaries(st.text() | st.integers(-2**60, 2**60), inner)
    | st.tuples(inner, inner, inner, inner) | st.tuples(inner), max_leaves=20),
    st.integers(0, 4), st.booleans())
def test_as_pickle_reads_it(value, protocol, pure_python):
    data = (pickle._dumps if pure_python else pickle.dumps)(value, protocol)
    same(load(data), pickle.loads(data))
    data = pickle.dumps([value, 1], protocol)
    same(list(restricted_pickle.iterate(io.BytesIO(data))), pickle.loads(data))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_damage_is_a_line_or_other_data(data):
    """Whatever bytes are changed or cut off, nothing but a ValueError comes out."""
    whole = dumps([np.int64(200), "name", np.arange(6, dtype=np.float32).reshape(2, 3)],
                  data.draw(st.sampled_from([0, 2])))
    damaged = bytearray(whole[:data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        load(bytes(damaged))
    except ValueError as error:
        assert "\n" not in str(error)


# Refused

class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class ByState:
    pass


def touch(path):
    return f"touch {path}"


@pytest.mark.parametrize("protocol", range(6))
def test_calls_are_refused_and_not_made(tmp_path, protocol):
    path = tmp_path / "ran"
    for evil, name in ((Evil(os.system, touch(path)), "system"),
                       (Evil(eval, f"open({str(path)!r}, 'w')"), "eval"),
                       (Evil(np.load, str(path)), "load"),
                       (Evil(getattr, np, "load"), "getattr"), (ByState(), "ByState")):
        if protocol < 2 and name == "ByState":
            name = "_reconstructor"
        if name == "getattr":  # a module cannot be pickled: its number will do
            evil = Evil(getattr, 1, "real")
        data = pickle.dumps([1, evil], protocol)
        message = refusal(data)
        assert f".{name};" in message and "nothing of it was run" in message
        with pytest.raises(ValueError):  # nor while streaming
            list(restricted_pickle.iterate(io.BytesIO(data)))
    assert not path.exists()


def text(value):
    return b"\x8c" + bytes([len(value)]) + value


@pytest.mark.parametrize("data, asked", [
    (b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.", "numpy.core.multiarray.fromfile"),
    (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
    (b"cnumpy.core\nmultiarray._reconstruct\n.", "numpy.core.multiarray._reconstruct"),
    (b"c__builtin__\neval\n(S'1'\ntR.", "__builtin__.eval"),
    (b"cposix\nsystem\n(S'id'\ntR.", "posix.system"),
    (b"(iposix\nsystem\n.", "posix.system"),
    (b"(S'id'\nios\nsystem\n.", "os.system"),
    (b"\x80\x04" + text(b"_codecs") + text(b"encode.__globals__") + b"\x93.",
     "_codecs.encode.__globals__"),
    (b"\x80\x04" + text(b"numpy") + text(b"dtype.__class__") + b"\x93.", "numpy.dtype.__class__"),
    (b"\x80\x04" + text(b"numpy") + b"K\x01\x93.", "a name that is no text"),
    (b"c_codecs\nencode\n(Vx\nVrot13\ntR.", "encode of other arguments"),
    (b"c_codecs\nencode\n(Vx\nVlatin1\nVignore\ntR.", "encode of other arguments"),
    (b"cnumpy\nndarray\n((K\x02ttR.", "ndarray of other arguments"),
    (b"cnumpy\ndtype\n(VO\nI00\nI01\ntR.", "dtype 'O'"),
    (b"cnumpy\ndtype\n(VO8\nI00\nI01\ntR.", "dtype 'O8'"),
    (b"cnumpy\ndtype\n(V(2)i4,O\nI00\nI01\ntR.", "dtype '(2)i4,O'"),
    (b"cnumpy\ndtype\n(VV16\nI00\nI01\ntR.", "dtype 'V16'"),
    (b"\x82\x01.", "number 1 of the extension"), (b"\x83\x01\x01.", "number 257 of the"),
    (b"\x84\x01\x00\x01\x00.", "number 65537 of the extension"),
    (b"Pid\n.", "persistent object 'id'"), (b"K\x01Q.", "persistent"),
    (b"cnumpy\nndarray\n)\x81.", "a new object"),
    (b"(cnumpy\nndarray\no.", "a new object"),
    (b"\x97.", "a buffer beside"), (b"\x8f.", "a set"),
    (b"}(K\x01K\x02tK\x03s.", "a dict with a tuple"),
    (b"}\x8a\x08" + (2**61).to_bytes(8, "little") + b"K\x03s.", "an integer above 2**61"),
    (b"}L-%dL\nK\x03s." % (7 * 2**61 - 7), "an integer above 2**61"),
    (b"K\x012.", "an item once more"),
])
def test_what_it_asks_for_is_named(data, asked):
    message = refusal(data)
    assert asked in message and "nothing of it was run" in message


def test_build_changes_nothing_but_arrays_and_dtypes():
    for target in (b"]", b"}", b"K\x01", b"cnumpy\ndtype\n", b"c_codecs\nencode\n"):
        assert "damaged" in refusal(target + b"}(Va\nK\x01ub.")


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tVb\ntR"
FLOATS = b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(K\x03V<\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def test_arrays_are_as_large_as_their_bytes():
    eight = b"U\x08" + 8 * b"\0"
    good = ARRAY + b"(K\x01(K\x02t" + FLOATS + b"I00\n" + eight + b"tb."
    assert load(good).tolist() == [0, 0]
    for shape in (b"K\x03", b"K\x01", b"J\xfe\xff\xff\xff", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f"):
        bad = ARRAY + b"(K\x01(" + shape + b"t" + FLOATS + b"I00\n" + eight + b"tb."
        assert "other content" in refusal(bad)
    # a list in place of the bytes is how arrays of objects are written
    assert "other content" in refusal(ARRAY + b"(K\x01(K\x01t" + FLOATS + b"I00\n(K\x01ltb.")
    assert "damaged" in refusal(b"(" + ARRAY + b"l.")  # never given its content


def scalar(kind, data):
    return (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(V" + kind
            + b"\nI00\nI01\ntR(K\x03V<\nNNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb" + data + b"tR")


@pytest.mark.parametrize("kind, shape", [
    (b"S0", b"K\x01(J\xff\xff\xff\x7ft"),  # NumPy gives each empty text a character
    (b"U0", b"K\x01(J\xff\xff\xff\x7ft"),
    (b"f4", b"K\x01(" + b"K\x00" * 33 + b"t"),
    (b"f4", b"K\x01(K\x00\x8a\x07" + (2**48).to_bytes(7, "little") + b"t"),
    (b"f4", b"K\x01(K\x00\x8b\x00\x10\0\0" + 4096 * b"\x7f" + b"t"),
    (b"f4", b"K\x01]K\x00a")])  # a list in the place of the shape
def test_no_content_is_no_array_of_any_size(kind, shape):
    array = ARRAY + b"(" + shape + FLOATS.replace(b"Vf4", b"V" + kind) + b"I00\nC\x00tb."
    tracemalloc.start()
    assert len(refusal(array)) < 300
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


MAKERS = {  # from the bytes, or the text, at place 5
    "scalars": scalar(b"S50000", b"h\x05"), "scalars of a text": scalar(b"S50000", b"h\x05"),
    "bytes of a text": b"c_codecs\nencode\n(h\x05Vlatin1\ntR",
    "arrays of a text": ARRAY + b"(K\x01(K\x02t" + FLOATS.replace(
        b"Vf4", b"VS25000") + b"I00\nh\x05tb",
    "arrays of another byte order": ARRAY + b"(K\x01(M\x88\x13K\x05t" + FLOATS.replace(
        b"Vf4", b"Vi2").replace(b"V<", b"V>") + b"I00\nh\x05tb"}


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_remembered_is_not_made_again_and_again(name):
    """50 kB in the memo, at many places, and 200 times some hundred bytes."""
    places = [(100 + i).to_bytes(4, "little") for i in range(200)]
    data = (b"T" if "text" in name else b"B") + (50_000).to_bytes(4, "little") + bytes(50_000)
    data += b"q\x05" + b"".join(b"r" + place for place in places) + b"0]" + b"".join(
        MAKERS[name].replace(b"h\x05", b"j" + place) + b"a" for place in places) + b"."
    tracemalloc.start()
    assert "refers back" in (said := refusal(data)) or "more than 4 times the memory" in said
    assert tracemalloc.get_traced_memory()[1] < 8 * len(data)
    tracemalloc.stop()


def test_tuples_in_tuples_are_neither_hashed_nor_written_out():
    """Each twice the one below: 2**80 in all."""
    nested = b")" + b"q\x00h\x00\x86" * 80
    for data in (nested + b"Va\n\x93.", b"Va\n" + nested + b"\x93.",
                 b"cnumpy\ndtype\n(" + nested + b"tR.",
                 ARRAY + b"(K\x01" + nested + FLOATS + b"I00\nC\x04\0\0\0\0tb."):
        assert len(refusal(data)) < 300
    with pytest.raises(ValueError, match="entry 0 is one tuple, not an array"):
        list(restricted_pickle.arrays(io.BytesIO(b"(" + nested + b"l.")))


def test_keys_that_all_have_one_hash_are_refused():
    """Each new one is compared with all before: hours for a file of a megabyte."""
    numbers = scalar(b"c16", b"C\x10" + np.complex128(3 - 4j).tobytes())
    assert "a dict with a complex128 as a key" in refusal(b"}" + numbers + b"K\x01s.")
    assert load(b"}L%dL\nK\x03s." % (2**61 - 1)) == {2**61 - 1: 3}


@pytest.mark.parametrize("data", [
    FLOATS + b".", FLOATS + b"\x85.", b"]" + FLOATS + b"a.", b"(" + FLOATS + b"l.",
    b"](" + FLOATS + b"K\x01e.", b"]((K\x01" + FLOATS + b"tta.", b"}K\x01" + FLOATS + b"\x85s.",
    b"]" + FLOATS + b"\x85\x85a."])
def test_dtypes_are_no_data(data):
    """Bare, in a list or dict, or in a tuple of a tuple there; read whole or item by item."""
    assert "a dtype that is of no array" in refusal(data)
    with pytest.raises(restricted_pickle.PickleError, match="a dtype that is of no array"):
        list(restricted_pickle.iterate(io.BytesIO(data)))


def test_arrays_of_records_are_refused():
    """Their field offsets, which NumPy does not check, would read foreign memory."""
    record = (b"cnumpy\ndtype\n(VU4\nI00\nI01\ntR(K\x03V|\nN(Va\nt}Va\n(" + FLOATS
              + b"J\xff\xff\xff\x7fts" + b"K\x10K\x01K\x10tb.")
    assert "records" in refusal(record)


def test_lengths_beyond_the_file_allocate_nothing():
    tracemalloc.start()
    for data in (b"T\xff\xff\xff\x7fx.", b"B\xff\xff\xff\xffx.", b"\x8e" + 7 * b"\xff" + b"\x7fx.",
                 b"\x8d" + 8 * b"\xff" + b"x.", b"\x8b\xff\xff\xff\x7f.", b"T\xff\xff\xff\xffx."):
        assert "damaged" in refusal(data)
    load(b"K\x01r\xff\xff\xff\xff.")  # CPython makes room for 4 billion memo entries
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff\xe0", b".", b"K\x01K\x02.",
                                  b"]a.", b"e.", b"(.", b"h\x05.", b"R.", b"K\x01s.", b"L9\n"])
def test_no_pickles(tmp_path, data):
    (tmp_path / "x.pickle").write_bytes(data)
    with pytest.raises(ValueError, match="x.pickle is (no pickle|empty).*get it again.$"):
        restricted_pickle.load(tmp_path / "x.pickle")


def test_nesting_without_end():
    deep = load(b"]" * 100_000 + b"a" * 99_999 + b".")
    for _ in range(99_999):
        (deep,) = deep
    assert deep == []


# Memory

@pytest.mark.parametrize("protocol", [0, 2])
def test_pictures_are_never_held_twice(tmp_path, protocol):
    """60 pictures of 77 kB: pickle.load holds those of protocol 0 twice, for their memo."""
    pictures = [np.full((160, 160, 3), i, np.uint8) for i in range(60)]
    (tmp_path / "x.pickle").write_bytes(dumps(pictures, protocol))
    size = sum(picture.nbytes for picture in pictures)

    def peak(function):
        tracemalloc.start()
        function()
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory / size

    def all_of_them():
        for i, picture in enumerate(restricted_pickle.iterate(tmp_path / "x.pickle")):
            assert picture[7, 7, 2] == i

    assert peak(lambda: restricted_pickle.load(tmp_path / "x.pickle")) < 1.3
    assert peak(all_of_them) < (0.3 if protocol == 0 else 1.3)  # item by item, or a batch


def test_iterate():
    same(list(restricted_pickle.iterate(io.BytesIO(pickle.dumps(np.eye(3), 4)))), list(np.eye(3)))
    nested = [[1], [2, [3]]]
    same(list(restricted_pickle.iterate(io.BytesIO(pickle.dumps(nested)))), nested)
    with pytest.raises(ValueError, match="holds one int, not a list"):
        list(restricted_pickle.iterate(io.BytesIO(pickle.dumps(3))))
    picture = np.eye(2)
    with pytest.raises(ValueError, match="refers back"):  # the second is the first, let go
        list(restricted_pickle.iterate(io.BytesIO(pickle.dumps([picture, picture], 4))))
