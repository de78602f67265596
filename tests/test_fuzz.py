"""The readers of files from strangers, against random ones.

Each either gives a value that keeps its promises or raises a ValueError of one line, and nothing
is imported, called or written by it. Some hundred files each; many thousand with `-m slow`.
"""

import codecs
import contextlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from python2_pickle import dumps
from pytorch_writer import plain, state_dict, storage, tensor, write_legacy

from stackgan_tf import manifest, picture_files, pytorch_file, restricted_pickle
from stackgan_tf.datasets import webdataset

ROUNDS = pytest.mark.parametrize("rounds", [4, pytest.param(250, marks=pytest.mark.slow)])


def fuzz(strategy, check, rounds, figure):
    """Runs check(value) on 50 random values a round; hypothesis makes a failing one small."""
    examples = [0, 0]
    for number in range(rounds):
        @seed(number)  # the same values each time
        @settings(max_examples=50, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))
        @given(strategy)
        def one(value):
            examples[0] += 1
            examples[1] += check(value) is not None

        one()
    figure(f"{examples[0]:,} files, {examples[1]:,} of them read, the others refused")
    assert examples[1] and examples[1] < examples[0]  # both ways are walked


def value_or_line(function, *arguments, most=600):
    """What it gives; None where it refuses in one line."""
    with nothing_run():
        try:
            return function(*arguments)
        except ValueError as error:
            assert "\n" not in str(error) and 10 < len(str(error)) < most, str(error)
    return None


# What would show that a file is run; Python itself tells (PEP 578).
HARMLESS = ("open", "import encodings", "import torch (",  # the reader asks whether it is there
            "object.__", "sys._getframe", "array.__new__", "os.listdir", "os.scandir",
            "code.__new__", "builtins.id", "gc.", "time.sleep")
_events = []
_watching = []


def _note(event, arguments):
    if _watching:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            event = "open to write"
        said = f"import {arguments[0]} (" if event == "import" else event
        if not said.startswith(HARMLESS) or event == "open to write":
            _events.append(f"{said} {arguments!r:.200}")


@pytest.fixture(scope="module", autouse=True)
def audit():
    codecs.lookup("cp437")  # of names in zip files; Python loads it at first use
    sys.addaudithook(_note)  # for the rest of the process: there is no way to take one out
    yield
    _watching.clear()


@contextlib.contextmanager
def nothing_run():
    _watching.append(True)
    try:
        yield
    finally:
        _watching.clear()
        seen, _events[:] = list(_events), []
    assert not seen, seen


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def test_the_watch_sees_what_pickle_does():
    with pytest.raises(AssertionError, match="find_class"):
        with nothing_run():
            pickle.loads(b"cnumpy\ndtype\n.")
    with pytest.raises(AssertionError, match="os.system|posix"):
        with nothing_run():
            os.system("true")


# Manifests

PATHS = st.sampled_from(["0.png", "1.png", "./0.png", "in/../0.png", "in/2.png", "in", "..", "/",
                         "../x", "/etc/passwd", "~/0.png", "out.png", "circle.png", "none.png",
                         "captions.jsonl", "", " ", "0.png\0", "a" * 300, "C:\\0.png", "in//2.png",
                         "\ud800", "0.png ", "file:///0.png"])
TEXTS = st.text(max_size=8) | st.sampled_from(["a red bird", " ", "\t", "a\0b", "\udcff", "🐦",
                                               "\u202eabc", "\n"])
ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
                   lambda inner: st.lists(inner, max_size=3)
                   | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6)
OBJECTS = st.fixed_dictionaries(
    {"file": PATHS | ANY, "captions": st.lists(TEXTS, max_size=3) | ANY},
    optional={"class": st.sampled_from(["a", "b", 3, None]) | ANY,
              "split": st.sampled_from(["train", "test", "val", None]), "more": ANY})
GOOD = st.builds(lambda file, caption: {"file": file, "captions": [caption]},
                 st.sampled_from(["0.png", "1.png", "in/2.png"]), st.just("a red bird"))
LINES = (GOOD | OBJECTS | ANY).map(lambda value: json.dumps(value).encode()) | GOOD.map(
    lambda value: json.dumps(value).encode()) | st.binary(max_size=30) | st.sampled_from(
    [b"", b" ", b"\xef\xbb\xbf", b"{}", b"[" * 3000, b'{"file": ' + b"9" * 5000 + b"}",
     b'{"file": "0.png", "file": "1.png", "captions": ["a"]}'])
MANIFESTS = st.lists(LINES, max_size=4).flatmap(lambda lines: st.sampled_from(
    [b"\n", b"\r\n", b"\n\n", b"\r"]).map(lambda end: end.join(lines)))


@ROUNDS
def test_manifests(tmp_path, figure, rounds):
    data = tmp_path / "data"
    (data / "in").mkdir(parents=True)
    for place in (data / "0.png", data / "1.png", data / "in/2.png", tmp_path / "x"):
        place.write_bytes(b"a picture")
    (data / "out.png").symlink_to(tmp_path / "x")
    (data / "circle.png").symlink_to("circle.png")

    def check(content):
        (data / "captions.jsonl").write_bytes(content)
        lines = value_or_line(manifest.read, str(data))
        problems = {}
        listed = value_or_line(manifest.read, str(data), True, problems)
        # listing what is wrong finds the same as stopping at the first that is
        assert (lines is None) == (bool(problems) or listed is None)
        assert lines is None or lines == listed
        for line in listed or ():
            raw = json.loads(content.split(b"\n")[line.number - 1].removeprefix(b"\xef\xbb\xbf"))
            assert line.file == raw["file"] and line.path.is_file()
            assert line.path == (data / line.file).resolve() and data in line.path.parents
            assert line.captions == tuple(raw["captions"]) and line.captions
            assert all(text.strip() and "\0" not in text for text in line.captions)
        assert len({line.path for line in listed or ()}) == len(listed or ())
        return lines

    fuzz(MANIFESTS, check, rounds, figure)


# Pickles

NAMES = [b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
         b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n", b"cposix\nsystem\n",
         b"c__builtin__\neval\n", b"cnumpy\nload\n", b"\x8c\x05numpy\x8c\x05dtype\x93",
         b"\x8c\x02os\x8c\x06system\x93", b"(ios\nsystem\n"]
FLOATS = b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(K\x03V<\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tVb\ntR"
SCALAR = b"cnumpy.core.multiarray\nscalar\n(" + FLOATS + b"C\x04\0\0\x80?tR"
# A long text at place 5, and what a few more bytes make of it again: bytes and scalars.
LONG = b"U\xc8" + 200 * b"x" + b"q\x05"
S200 = b"cnumpy\ndtype\n(VS200\nI00\nI01\ntR(K\x03V|\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
AGAIN = [LONG, LONG + b"0" + b"c_codecs\nencode\n(h\x05Vlatin1\ntR" * 5,
         LONG + b"0(" + b"cnumpy.core.multiarray\nscalar\n(" + S200 + b"h\x05tR" * 9 + b"l"]
WHOLE = [ARRAY + b"(K\x01(K\x02t" + FLOATS + b"I00\nU\x08" + b"\0\0\x80?" * 2 + b"tb",
         b"]", b"}", b"(", b")", b"N", b"K\x01", b"K\xff", b"J\xff\xff\xff\xff", b"Va\n", b"U\x01b",
         b"X\x02\0\0\0\xc3\xa4", b"C\x01\xff", b"G?\xf0\0\0\0\0\0\0", b"\x88", b"I01\n", b"L7L\n",
         b"F1e400\n", b"\x8a\x02\xff\x7f", b"\x8e\x02\0\0\0\0\0\0\0ab", SCALAR, *AGAIN]
STEPS = [b"t", b"l", b"d", b"a", b"e", b"s", b"u", b"R", b"b", b"0", b"1", b"2", b"q\x00", b"h\x00",
         b"q\x01", b"h\x01", b"p2\n", b"g2\n", b"\x94", b"r\xff\xff\xff\xff", b"\x85", b"\x86",
         b"\x87", b"\x95" + bytes(8), b"\x80\x04", b"\x81", b"o", b"Q", b"Pid\n", b"\x82\x01",
         b"\x8f", b"\x97", b"T\xff\xff\xff\x7f", b"\x8d" + b"\xff" * 8, b"."]
OPCODES = st.lists(st.sampled_from(WHOLE * 2 + STEPS + NAMES + [ARRAY, FLOATS]), max_size=24).map(
    lambda parts: b"".join(parts) + b".")
VALUES = [["a", "b"], [np.int64(200), "name"], [np.arange(6, dtype=np.float32).reshape(2, 3)]]
WRITTEN = st.sampled_from([dumps(value, protocol) for value in VALUES for protocol in (0, 2)]
                          + [pickle.dumps(value, protocol) for value in VALUES
                             for protocol in range(5)])


@st.composite
def spliced(draw, sources):
    """A good file with a few bytes changed, cut out or put in from another one."""
    data = bytearray(draw(sources))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["set", "cut", "insert", "end"]))
        if kind == "set" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:place + draw(st.integers(1, 9))]
        elif kind == "insert":
            other = draw(sources)
            first = draw(st.integers(0, len(other)))
            data[place:place] = other[first:first + draw(st.integers(1, 40))]
        elif kind == "end":
            del data[place:]
    return bytes(data)


def parts(value):
    """Everything in a value, once each, however it is nested."""
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]


DATA = (str, bytes, int, float, type(None), np.generic, list, tuple, dict, np.ndarray,
        restricted_pickle.Name)  # a name that was only mentioned, not called


def content(part):
    """The bytes, or letters, that a value holds itself."""
    if isinstance(part, np.ndarray):
        return part.nbytes if part.base is None else 0
    if isinstance(part, np.generic):
        return part.nbytes
    return len(part) if isinstance(part, (str, bytes)) else 0


@ROUNDS
def test_pickles(figure, rounds):
    def check(data):
        found = value_or_line(restricted_pickle.load, io.BytesIO(data))
        streamed = value_or_line(lambda: list(restricted_pickle.iterate(io.BytesIO(data))))
        for value in (found, streamed):
            everything = list(parts(value))
            assert all(isinstance(part, DATA) for part in everything)
            # nothing in the file makes more memory than a few times its bytes
            assert sum(map(content, everything)) <= 8 * len(data)
        return found

    fuzz(OPCODES | spliced(WRITTEN) | WRITTEN, check, rounds, figure)


# PyTorch's files

NUMBERS = {"x": np.arange(1, 13, dtype=np.float32), "y": np.arange(13, 17, dtype=np.float32)}
SMALL = st.integers(-2, 14) | st.sampled_from([2**31, 2**40, 2**63, -2**63, 2**70])
KINDS = st.sampled_from(["FloatStorage"] * 5 + ["LongStorage", "HalfStorage", "BFloat16Storage",
                                                "ByteStorage", "UntypedStorage"])


@st.composite
def state_dicts(draw, legacy):
    """The pickle of a state dict whose tensors may point anywhere."""
    items = []
    for name in draw(st.lists(st.sampled_from(["x", "y", "z.weight", "", "\n"]), max_size=3)):
        count = draw(st.sampled_from([12, 12, 12, 4]) | SMALL)
        shape, offset = draw(st.sampled_from([(12,), (3, 4), (4, 3), ()]) | st.lists(
            SMALL, max_size=3).map(tuple)), draw(st.just(0) | SMALL)
        steps = [int(np.prod(shape[i + 1:], dtype=object)) for i in range(len(shape))]
        steps = draw(st.just(steps) | st.lists(SMALL, max_size=3))
        made = tensor(draw(st.sampled_from([0, 0, 0, 1, 2])), draw(KINDS), count, shape, steps,
                      legacy, offset, version=draw(st.sampled_from(["_v2", "_v2", ""])))
        items.append((name, draw(st.just(made) | st.sampled_from(
            [made, made, plain(3), plain([1]), storage(0, "FloatStorage", 12, legacy),
             b"cos\nsystem\n", b"cposix\nsystem\n" + plain(("touch ran",)) + b"R"]))))
    return state_dict(items, python2=draw(st.booleans()))


def zipped(state, names):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(names[0] + "/data.pkl", state)
        for i, array in enumerate(NUMBERS.values()):
            archive.writestr(f"{names[i % len(names)]}/data/{i}", array.tobytes())
    return data.getvalue()


@st.composite
def torch_files(draw, path):
    if draw(st.booleans()):
        data = zipped(draw(state_dicts(False)), draw(st.sampled_from(
            [["netG"], ["netG"], ["netG", "other"], [".."], ["a/b"], [""]])))
    else:
        write_legacy(path, NUMBERS, draw(state_dicts(True)), draw(st.none() | st.dictionaries(
            st.integers(0, 1), SMALL.filter(lambda n: -2**63 <= n < 2**63), max_size=1)))
        data = path.read_bytes()
    return draw(st.just(data) | spliced(st.just(data)))


@ROUNDS
def test_pytorch_files(tmp_path, figure, rounds, no_torch):
    path = tmp_path / "x.pth"

    def check(data):
        path.write_bytes(data)
        found = value_or_line(pytorch_file.read, str(path))
        for name, array in (found or {}).items():
            assert isinstance(name, str) and array.dtype == np.float32
        # a tensor may repeat its numbers, but all together are no larger than the file
        assert sum(array.size for array in (found or {}).values()) <= len(data)
        return found or None

    fuzz(torch_files(tmp_path / "written.pth"), check, rounds, figure)
    assert not (tmp_path / "ran").exists() and not os.path.exists("ran")


@pytest.mark.parametrize("legacy", [False, True])
def test_numbers_of_a_tensor_are_those_of_its_storage(tmp_path, legacy, no_torch):
    """Whatever offset, sizes and strides say: never a number from beside it."""
    path, accepted = tmp_path / "x.pth", [0]

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(st.lists(st.integers(0, 4), max_size=3), st.lists(st.integers(0, 5), max_size=3),
           st.integers(0, 12))
    def check(shape, steps, offset):
        state = state_dict([("x", tensor(0, "FloatStorage", 12, shape, steps, legacy, offset))])
        if legacy:
            write_legacy(path, {"x": NUMBERS["x"]}, state)
        else:
            path.write_bytes(zipped(state, ["netG"]))
        found = value_or_line(pytorch_file.read, str(path))
        if found:
            accepted[0] += 1
            flat = [offset + sum(i * step for i, step in zip(place, steps))
                    for place in np.ndindex(*shape)]  # plain counting
            assert found["x"].shape == tuple(shape)
            assert found["x"].ravel().tolist() == [NUMBERS["x"][i] for i in flat]

    check()
    assert accepted[0] > 5


# Tars

def record(name, value):
    """A line of a pax header, which begins with its own length."""
    line = b" " + name + b"=" + value + b"\n"
    return b"%d%s" % (len(line) + len(b"%d" % (len(line) + 2)), line)


NAMES_IN_TARS = st.sampled_from(["0.png", "0.txt", "0.json", "1.png", "1.txt", "d/2.png",
                                 "../3.png", "/4.png", "._0.png", "0.png/", "5.x\x1b", "."])
SIZES = st.sampled_from([0, 1, 3, 512, 600]) | st.sampled_from(
    [-1, -512, -2**60, 2**20, 2**33, 2**62, 2**70, 2**86])
KINDS_IN_TARS = st.sampled_from(list("000000000012257LLKxxxSVMZ\0"))
RECORDS = st.sampled_from([
    b"", b"x" * 600, b"a caption\n", b'{"caption": "a"}', b"0.png", b"9" * 5000 + b" a=b\n",
    record(b"path", b"0.txt"), record(b"path", b"y" * 5000), record(b"size", b"-5"),
    record(b"size", b"%d" % 2**70), record(b"hdrcharset", b"BINARY") + record(b"path", b"\xff"),
    record(b"GNU.sparse.size", b"99999"), record(b"GNU.sparse.map", b"1,2,x"),
    record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")])


def header(name, size, kind):
    """512 bytes with a right checksum; a size that does not fit, or is negative, in base 256."""
    field = b"%011o\0" % size if 0 <= size < 8**11 else (
        (size % 2**95 | 2**95).to_bytes(12, "big") if size > 0 else size.to_bytes(
            12, "big", signed=True))
    made = bytearray(name.encode()[:100].ljust(100, b"\0") + b"0000644\0" * 3 + field + b"0" * 11
                     + b"\0" + b" " * 8 + kind.encode() + bytes(100) + b"ustar\x0000"
                     + bytes(247))
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@st.composite
def tars(draw):
    """Members of names, kinds and sizes of which any may be a lie."""
    blocks = []
    for _ in range(draw(st.integers(0, 5))):
        data = draw(RECORDS | st.just(encoded("PNG")))
        size = draw(st.just(len(data)) | st.just(len(data)) | SIZES)
        blocks += [header(draw(NAMES_IN_TARS), size, draw(KINDS_IN_TARS)), data,
                   bytes(-len(data) % 512)]
    return b"".join(blocks) + bytes(draw(st.sampled_from([0, 512, 1024, 10240])))


def whole_tar(kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        long = "y" * 80 + "/" + "z" * 80  # needs a header of its own
        for name, data in ((f"{long}.png", encoded("PNG")), (f"{long}.txt", b"a bird"),
                           ("2.jpg", encoded("JPEG")), ("2.json", b'{"caption": "a", "class": 3}')):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


@ROUNDS
def test_tars(tmp_path, figure, rounds):
    path = str(tmp_path / "x.tar")

    def check(data):
        with open(path, "wb") as file:
            file.write(data)
        samples = value_or_line(lambda: list(webdataset.iter_tar(path, True, pictures=True)))
        for sample in samples or ():
            assert 0 <= sample.start < sample.end <= len(data)
            assert len(sample.key) <= 4096
            assert sample.problem or sample.picture in data[sample.start:sample.end]
            assert sample.problem or sample == webdataset.read_sample(
                path, sample.start, sample.end)
        return samples

    wholes = [whole_tar(kind) for kind in (
        tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    (tmp_path / "x.tar").write_bytes(wholes[0])
    assert len(list(webdataset.iter_tar(path))) == 2  # what is imported at first use is now
    wholes = st.sampled_from(wholes)
    fuzz(tars() | spliced(wholes) | wholes, check, rounds, figure)


# Pictures

def encoded(kind, mode="RGB", **options):
    noise = np.random.default_rng(0).integers(0, 256, (12, 10, 4)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise, "RGBA").convert(mode).save(file, kind, **options)
    return file.getvalue()


PICTURES = [encoded("JPEG"), encoded("JPEG", "L", progressive=True), encoded("JPEG", "CMYK"),
            encoded("PNG"), encoded("PNG", "P"), encoded("PNG", "RGBA"), encoded("PNG", "1"),
            encoded("WEBP"), encoded("WEBP", "RGBA", lossless=True),
            encoded("PNG", save_all=True, append_images=[Image.new("RGB", (10, 12))]),
            encoded("WEBP", save_all=True, append_images=[Image.new("RGB", (10, 12))])]


@st.composite
def pictures(draw):
    """A picture whose header, where sizes, modes and lengths stand, is changed."""
    data = bytearray(draw(st.sampled_from(PICTURES)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, min(len(data), 64) - 1) | st.integers(0, len(data) - 1))
        new = draw(st.binary(min_size=1, max_size=1) | st.sampled_from(
            [b"\0", b"\xff", b"\x7f\xff\xff\xff", struct.pack(">I", 2**31), b"\0\0\0\0"]))
        data[place:place + len(new)] = new
    return bytes(data[:draw(st.just(len(data)) | st.integers(0, len(data)))])


@ROUNDS
def test_pictures(figure, rounds):
    for data in PICTURES:  # Pillow imports its decoders when they are first needed
        picture_files.read_rgb(data)

    def check(data):
        size = value_or_line(picture_files.read_size, data, 10**6)
        image = value_or_line(picture_files.read_rgb, data, 10**6)
        if image is not None:
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            assert sorted(image.shape[:2]) == sorted(size)  # EXIF may turn it
        assert size is None or 0 < size[0] * size[1] <= 10**6
        return image

    fuzz(pictures() | st.sampled_from(PICTURES), check, rounds, figure)
