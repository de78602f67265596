"""State dicts of PyTorch are read as it reads them, with and without it; others are refused.

Files are written by hand after the formats' layout and, where PyTorch is installed, by PyTorch.
"""

import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytorch_writer import WRITERS, plain, state_dict, storage, tensor, write_legacy, write_zip

from stackgan_tf import pytorch_file

ARRAYS = {"a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8,
          "a.half": np.float16([0.5, -2, 3.25]), "a.double": np.float64([[1e-3], [7]]),
          "a.count": np.int64(90)}


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("changes", [
    {}, {"module": "torch.cuda"}, {"version": ""},  # PyTorch 0.1 to 0.3
    {"module": "torch.cuda", "version": "", "python2": True}], ids=str)
def test_both_formats_without_pytorch(form, changes, tmp_path, no_torch):
    found = pytorch_file.read(WRITERS[form](tmp_path / "x.pth", ARRAYS, **changes))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == np.float32 and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array.astype(np.float32))


@pytest.mark.parametrize("form", WRITERS)
def test_views_and_shared_storages(form, tmp_path, no_torch):
    numbers = {"x": np.arange(12, dtype=np.float32)}
    views = {"transposed": ((4, 3), (1, 4), 0), "column": ((3,), (4,), 2), "one": ((), (), 11)}
    state = state_dict([(name, tensor(0, "FloatStorage", 12, shape, steps, form == "legacy", at))
                        for name, (shape, steps, at) in views.items()])
    found = pytorch_file.read(WRITERS[form](tmp_path / "x.pth", numbers, state))
    np.testing.assert_array_equal(found["transposed"], np.arange(12.).reshape(3, 4).T)
    np.testing.assert_array_equal(found["column"], [2, 6, 10])
    assert found["one"] == 11


def test_bfloat16(tmp_path, no_torch):
    """The upper half of a float32: 1.5 is 0x3FC00000, -2 is 0xC0000000."""
    bits = {"x": np.array([0x3FC0, 0xC000], "<u2")}
    state = state_dict([("x", tensor(0, "BFloat16Storage", 2, (2,), (1,), False))])
    assert pytorch_file.read(write_zip(tmp_path / "x.pth", bits, state))["x"].tolist() == [1.5, -2]


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("parameters", [True, False])
def test_files_of_pytorch_with_and_without_it(new, parameters, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = model.state_dict(keep_vars=parameters)
    state["half"] = torch.arange(5).half()
    state["brain"] = torch.tensor([1.5, -3e30], dtype=torch.bfloat16)
    state["view"] = torch.arange(20.).reshape(4, 5)[1:, ::2].T
    path = str(tmp_path / "x.pth")
    torch.save(state, path, _use_new_zipfile_serialization=new)
    with_torch = pytorch_file.read(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    without = pytorch_file.read(path)
    assert list(without) == list(with_torch) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(without[name], value.detach().float().numpy())
        np.testing.assert_array_equal(with_torch[name], without[name])


# Files that ask for more, or lie

ONE = {"x": np.arange(4, dtype=np.float32)}


def refusal(path):
    with pytest.raises(ValueError) as caught:
        pytorch_file.read(str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("evil, name", [
    (b"cos\nsystem\n" + plain(("touch ran",)) + b"R", "os.system"),
    (b"cposix\nsystem\n" + plain(("touch ran",)) + b"R", "posix.system"),
    (b"c__builtin__\neval\n" + plain(("open('ran', 'w')",)) + b"R", "__builtin__.eval"),
    (b"cmodel\nSTAGE1_G\n)\x81", "model.STAGE1_G"),  # torch.save(netG), a whole model
    (b"ctorch\nload\n" + plain(("x",)) + b"R", "torch.load"),
    (b"ctorch._utils\n_rebuild_tensor.__globals__\n",
     "torch._utils._rebuild_tensor.__globals__"),
])
def test_what_a_file_asks_for_is_named_and_not_run(form, evil, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = WRITERS[form](tmp_path / "x.pth", ONE, state_dict([("x", evil)]))
    message = refusal(path)
    assert f"asks for {name};" in message and "nothing of it was run" in message
    assert "torch.save(netG.state_dict(), PATH)" in message
    assert not (tmp_path / "ran").exists()


def test_other_objects_are_refused(tmp_path, no_torch):
    def read(code):
        return refusal(write_zip(tmp_path / "x.pth", ONE, b"\x80\x02" + code + b"."))

    assert "holds one list" in read(plain([1]))
    assert "'epoch', which is no tensor" in read(plain({"epoch": 3}))
    assert "'x', which is no tensor" in read(b"}" + plain("x") + storage(
        0, "FloatStorage", 4, False) + b"s")
    assert "neither a tensor nor a storage" in read(plain(("module", "x")) + b"Q")
    assert "neither a tensor nor a storage" in read(plain("id") + b"Q")
    assert "unknown kind" in read(plain(("storage", "FloatStorage", "0", "cpu", 4)) + b"Q")
    assert "part of another" in read(b"(" + plain("storage") + b"ctorch\nFloatStorage\n"
                                     + plain("0") + plain("cpu") + plain(4) + plain(("1", 0, 2))
                                     + b"tQ")
    assert "of other arguments" in read(b"ctorch\nFloatStorage\n" + plain((9,)) + b"R")
    assert "other keys than names" in read(b"ccollections\nOrderedDict\n(" + plain([[1, 2]])
                                           + b"tR")
    assert "two storages named" in read(b"}(" + b"".join(
        plain(name) + tensor(0, kind, 4, (4,), (1,), False)
        for name, kind in (("x", "FloatStorage"), ("y", "LongStorage"))) + b"u")


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("pytorch", [True, False])
@pytest.mark.parametrize("shape, steps, at, words", [
    ((5,), (1,), 0, "beyond the 4 numbers"),
    ((4,), (1,), 1, "beyond the 4 numbers"),
    ((2, 2), (4, 1), 0, "beyond the 4 numbers"),
    ((2,), (1,), 2**39, "beyond the 4 numbers"),
    ((10**6, 10**6), (0, 0), 0, "beyond the 4 numbers"),  # one number, repeated
    ((4,), (-1,), 3, "negative sizes or strides"),
    ((-4,), (1,), 0, "negative sizes or strides"),
    ((4,), (1,), -1, "negative sizes or strides"),
    ((4,), (1, 1), 0, "without sizes"),
    ((2**70,), (1,), 0, "without sizes"),
], ids=str)
def test_tensors_stay_inside_their_storage(form, pytorch, shape, steps, at, words, tmp_path,
                                           monkeypatch):
    if not pytorch:
        monkeypatch.setitem(sys.modules, "torch", None)
    state = state_dict([("x", tensor(0, "FloatStorage", 4, shape, steps, form == "legacy", at))])
    assert words in refusal(WRITERS[form](tmp_path / "x.pth", ONE, state))


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("pytorch", [True, False])
def test_storages_are_as_large_as_they_say(form, pytorch, tmp_path, monkeypatch):
    if not pytorch:
        monkeypatch.setitem(sys.modules, "torch", None)

    def read(count):
        return refusal(WRITERS[form](tmp_path / "x.pth", ONE, state_dict(
            [("x", tensor(0, "FloatStorage", count, (2,), (1,), form == "legacy"))])))

    for count in (10**12, 2**80, -4):
        assert "more than the" in read(count)
    for count in (3, 5):
        assert "the storage '0' should have" in read(count) or "cut off in its storage" in read(
            count)


@pytest.mark.parametrize("pytorch", [True, False])
def test_legacy_lies(pytorch, tmp_path, monkeypatch):
    if not pytorch:
        monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "x.pth"
    assert "should have 4 numbers and has 9" in refusal(write_legacy(path, ONE, counts={0: 9}))
    good = (write_legacy(path, ONE), path.read_bytes())[1]
    for end in range(0, len(good), 7):
        path.write_bytes(good[:end])
        refusal(path)
    assert "big-endian" in refusal(write_legacy(path, ONE, little_endian=False))
    path.write_bytes(good.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2)))
    assert "another PyTorch format than 1001" in refusal(path)
    path.write_bytes(good.replace(pickle.dumps(["0"], 2), pickle.dumps(["1"], 2)))
    assert "list of its storages" in refusal(path)
    path.write_bytes(good.replace(pickle.dumps(["0"], 2), pickle.dumps([], 2)))
    assert "list of its storages" in refusal(path)  # PyTorch gives what is in the memory
    for other in (b"hello", pickle.dumps([1]), b"\xff\xd8\xff\xe0"):
        path.write_bytes(other)
        assert "is no PyTorch file" in refusal(path)


@pytest.mark.parametrize("pytorch", [True, False])
def test_zips_that_unpack_to_more(pytorch, tmp_path, monkeypatch):
    """A million zeros in a kilobyte are not unpacked, whoever reads."""
    if not pytorch:
        monkeypatch.setitem(sys.modules, "torch", None)
    zeros = {"x": np.zeros(10**6, np.float32)}
    path = write_zip(tmp_path / "x.pth", zeros, compress=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(path)
    # many entries that claim the same bytes: the directory names one file again and again
    data = open(write_zip(tmp_path / "y.pth", {"x": np.zeros(10**5, np.float32)}), "rb").read()
    directory, end = data[data.index(b"PK\x01\x02"):data.index(b"PK\x05\x06")], data[-22:]
    fields = list(struct.unpack("<4s4H2LH", end))
    fields[3] = fields[4] = fields[4] * 9
    fields[5] *= 9
    (tmp_path / "y.pth").write_bytes(data[:data.index(b"PK\x01\x02")] + directory * 9
                                     + struct.pack("<4s4H2LH", *fields))
    assert "claims to hold more than" in refusal(tmp_path / "y.pth")


def test_damaged_zips(tmp_path, no_torch):
    path = tmp_path / "x.pth"
    assert "lacks the storage 'netG/data/0'" in refusal(write_zip(path, ONE, leave_out=[0]))
    outside = state_dict([("x", tensor("../../x", "FloatStorage", 4, (4,), (1,), False))])
    assert "lacks the storage 'netG/data/../../x'" in refusal(write_zip(path, ONE, outside))
    good = (write_zip(path, ONE), path.read_bytes())[1]
    for end in range(4, len(good), 11):
        path.write_bytes(good[:end])
        assert "damaged or cut off" in refusal(path)
    place = good.index(ONE["x"].tobytes())
    path.write_bytes(good[:place] + b"\1" + good[place + 1:])  # the checksum sees it
    assert "damaged or cut off" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert "no data.pkl" in refusal(path)


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_changed_or_cut_off_is_a_line_or_other_numbers(tmp_path, no_torch, data):
    path = tmp_path / "x.pth"
    damaged = bytearray(_written(path, data.draw(st.sampled_from(sorted(WRITERS)))))
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[:data.draw(st.integers(len(damaged) // 2, len(damaged)))])
    try:
        found = pytorch_file.read(str(path))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert all(array.dtype == np.float32 for array in found.values())


def _written(path, form, kept={}):
    if form not in kept:
        WRITERS[form](path, ARRAYS)
        kept[form] = path.read_bytes()
    return kept[form]
