"""WebDataset tars, read directly and prepared."""

import io
import json
import os
import tarfile
import types

import numpy as np
import pytest
from test_prepare import encoded, picture, read, settings

from stackgan_tf import prepare
from stackgan_tf.config import UserError
from stackgan_tf.datasets import webdataset


def tar(path, members):
    """Members: (name, bytes) or a TarInfo."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))


def sample(i, text=True, **fields):
    files = [(f"{i:05d}.png", encoded(picture(i)))]
    files += [(f"{i:05d}.txt", b"first %d\n\nsecond\n" % i)] if text else []
    return files + ([(f"{i:05d}.json", json.dumps(fields).encode())] if fields else [])


def config_of(path, max_unreadable=10):
    return types.SimpleNamespace(data_dir=str(path), max_unreadable=max_unreadable, embedding_dim=8)


def test_webdataset_read_directly_and_prepared(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    long = "x" * 150  # needs a header of its own
    tar(data / "train/0.tar", [*sample(0, **{"class": "b"}), *sample(
        1, False, caption="only", **{"class": 7}), (f"{long}.jpg", encoded(picture(5), "JPEG")),
        (f"{long}.cls", b"3"), (f"{long}.txt", b"long"), (f"{long}.json", b'{"class": "b"}')])
    tar(data / "test/0.tar", sample(2, False, captions=["u", "v"], **{"class": "a"}))
    direct = {e["file_name"]: e for e in webdataset.examples(config_of(data), "train")}
    assert list(direct) == ["train/0.tar/00000.png", "train/0.tar/00001.png",
                            f"train/0.tar/{long}.jpg"]
    one = direct["train/0.tar/00000.png"]
    np.testing.assert_array_equal(one["image"], picture(0))
    assert list(one["captions"]) == ["first 0", "second"] and one["label"] == 2  # 7, a, b
    assert list(direct["train/0.tar/00001.png"]["captions"]) == ["only"]
    (test,) = webdataset.load(config_of(data), "test").as_numpy_iterator()
    assert list(test["captions"]) == [b"u", b"v"] and test["label"] == 1
    assert prepare.prepare(settings(data, output, "webdataset")) == 0
    found = read(output)
    assert found.keys() == direct.keys() and read(output, "test").keys() == {"test/0.tar/00002.png"}
    for name, element in direct.items():
        assert found[name]["label"] == element["label"]
        assert [c.decode() for c in found[name]["captions"]] == list(element["captions"])
        side = min(element["image"].shape[:2])
        assert found[name]["image"].shape in ((side, side, 3), element["image"].shape)


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


BAD = {
    "dots": ([("../../up.png", encoded(picture(1))), ("../../up.txt", b"x")], "leaves the tar"),
    "absolute": ([("/etc/x.png", encoded(picture(1))), ("/etc/x.txt", b"x")], "leaves the tar"),
    "link": ([link("5.png", "/etc/passwd"), ("5.txt", b"x")], "is a link"),
    "no caption": ([("5.png", encoded(picture(1)))], "has no caption"),
    "no picture": ([("5.txt", b"x")], "has no picture"),
    "two pictures": ([("5.png", b"x"), ("5.jpg", b"y"), ("5.txt", b"x")], "two files"),
    "json list": ([("5.png", b"x"), ("5.json", b"[1]")], "json is no object"),
    "json damaged": ([("5.png", b"x"), ("5.json", b"{")], "text is damaged"),
    "deep json": ([("5.png", b"x"), ("5.json", b"[" * 100_000)], "text is damaged"),
    "caption number": ([("5.png", b"x"), ("5.json", b'{"captions": [1]}')], "no list of texts"),
    "caption of zero width": ([("5.png", b"x"), ("5.txt", b"\xe2\x80\x8b\n\xef\xbb\xbf\n")],
                              "has no caption"),
    "caption of zero width in json": (
        [("5.png", b"x"), ("5.json", b'{"captions": ["x", "\\u200b"]}')], "no list of texts"),
    "latin-1": ([("5.png", b"x"), ("5.txt", b"gr\xfcn")], "text is damaged"),
    "class list": ([("5.png", b"x"), ("5.txt", b"x"), ("5.json", b'{"class": []}')], "neither"),
    "class empty": ([("5.png", b"x"), ("5.txt", b"x"), ("5.json", b'{"class": " "}')], "neither"),
    "captions twice": ([("5.png", b"x"), ("5.json", b'{"caption": "x", "caption": "y"}')],
                       '"caption" stands twice in it; keep one'),
    "another split": ([("5.png", b"x"), ("5.txt", b"x"), ("5.json", b'{"split": "test"}')],
                      "its \"split\" is 'test', and the tar is of train"),
    "no picture inside": ([("5.png", b"nothing"), ("5.txt", b"x")], "not a JPEG"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_samples_are_skipped_and_named(tmp_path, name, caplog):
    members, words = BAD[name]
    tar(tmp_path / "a.tar", [*sample(0), *members, *sample(9)])
    with caplog.at_level("WARNING"):
        found = [e["file_name"][-9:] for e in webdataset.examples(config_of(tmp_path), "train")]
    assert found == ["00000.png", "00009.png"]
    assert len(caplog.records) == 1 and words in caplog.records[0].getMessage()
    with pytest.raises(ValueError, match=r"1 samples cannot be used \(max_unreadable=0\)"):
        list(webdataset.examples(config_of(tmp_path, 0), "train"))


@pytest.mark.parametrize("text", [
    ("5.txt", "\ufeffa red bird\r\n".encode()),
    ("5.json", '\ufeff{"caption": "a red bird"}'.encode()),
    ("5.json", b'{"captions": [], "caption": "a red bird"}'),
    ("5.json", b'{"captions": null, "caption": "a red bird"}'),
])
def test_byte_order_marks_and_empty_lists_hide_no_caption(tmp_path, text):
    tar(tmp_path / "a.tar", [("5.png", encoded(picture(5))), text])
    (found,) = webdataset.examples(config_of(tmp_path, 0), "train")
    assert list(found["captions"]) == ["a red bird"]


def test_a_split_that_is_the_tars_own_is_no_fault(tmp_path):
    for i, split in enumerate(("train", "test")):
        tar(tmp_path / f"{split}.tar", sample(i, split=split))
    for split in ("train", "test"):
        assert len(list(webdataset.examples(config_of(tmp_path, 0), split))) == 1


def test_what_a_macs_tar_adds_is_left_alone(tmp_path):
    members = [member for name, data in [*sample(0), *sample(9)]
               for member in (("./._" + name, b"\0\5\x16\7"), ("./" + name, data))]
    tar(tmp_path / "data/a.tar", members)
    found = list(webdataset.examples(config_of(tmp_path / "data", 0), "train"))
    assert [e["file_name"][-9:] for e in found] == ["00000.png", "00009.png"]
    assert list(found[1]["captions"]) == ["first 9", "second"]
    assert prepare.prepare(settings(tmp_path / "data", tmp_path / "out", "webdataset")) == 0
    assert len(read(tmp_path / "out")) == 2


def test_a_sample_that_comes_again_later_is_skipped(tmp_path, caplog):
    tar(tmp_path / "a.tar", [*sample(0), *sample(9), *sample(0)])
    found = [e["file_name"][-9:] for e in webdataset.examples(config_of(tmp_path), "train")]
    assert found == ["00000.png", "00009.png"] and "came before" in caplog.text


def test_a_tar_that_is_added_while_others_are_prepared_moves_none(tmp_path, monkeypatch):
    tar(tmp_path / "in/5.tar", [*sample(0), *sample(1)])
    make = prepare._make

    def make_later(*args):
        tar(tmp_path / "in/0.tar", [*sample(2), *sample(3)])
        return make(*args)

    monkeypatch.setattr(prepare, "_make", make_later)
    assert prepare.prepare(settings(tmp_path / "in", tmp_path / "out", "webdataset")) == 0
    assert {name[-9:] for name in read(tmp_path / "out")} == {"00000.png", "00001.png"}


def test_bad_samples_in_preparing(tmp_path):
    members = [member for name in ("dots", "link", "no picture inside") for member in BAD[name][0]]
    tar(tmp_path / "data/a.tar", [*sample(0), *members, *sample(9)])
    with pytest.raises(UserError, match=r"--max_unreadable=1\).*leaves the tar"):
        prepare.prepare(settings(tmp_path / "data", tmp_path / "out", "webdataset",
                                 max_unreadable=1))
    assert prepare.prepare(settings(tmp_path / "data", tmp_path / "out", "webdataset")) == 0
    assert {name[-9:] for name in read(tmp_path / "out")} == {"00000.png", "00009.png"}
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]  # nothing has left the tar


def test_damaged_tars_are_refused(tmp_path):
    tar(tmp_path / "a.tar", [*sample(0), *sample(1)])
    whole = (tmp_path / "a.tar").read_bytes()
    header = whole.index(b"00001.png")
    for data in (whole[:header + 700], whole[:header + 200],
                 whole[:header] + b"garbage" + whole[header + 7:], b"", b"nothing" * 200):
        (tmp_path / "a.tar").write_bytes(data)
        with pytest.raises(ValueError, match="a.tar cannot be read"):
            list(webdataset.examples(config_of(tmp_path), "train"))


def test_nothing_behind_zeros_is_lost(tmp_path):
    """tarfile reads to the first block of zeros; what cat and a half download leave is behind it"""
    for number in range(2):
        tar(tmp_path / f"{number}.tar", [*sample(2 * number), *sample(2 * number + 1)])
    one, other = ((tmp_path / f"{number}.tar").read_bytes() for number in range(2))
    (tmp_path / "1.tar").unlink()
    for data, words in ((one + other, "it ends at byte .* more stands behind"),
                        (one + bytes(2**21), "it ends at byte .* half a download")):
        (tmp_path / "0.tar").write_bytes(data)
        with pytest.raises(ValueError, match=f"0.tar cannot be read: {words}"):
            list(webdataset.examples(config_of(tmp_path), "train"))
    (tmp_path / "0.tar").write_bytes(one + bytes(2**19))  # padded to large blocks, as for tapes
    assert len(list(webdataset.examples(config_of(tmp_path), "train"))) == 2


@pytest.mark.parametrize("size", [
    (2**70).to_bytes(12, "big"), (2**40).to_bytes(12, "big"), (2**86).to_bytes(12, "big"),
    (-1024).to_bytes(12, "big", signed=True), (-2**80).to_bytes(12, "big", signed=True)])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_sizes_that_no_tar_has(tmp_path, size, kind):
    """In base 256, which may also say that a member goes on before it begins."""
    info = tarfile.TarInfo("1.png")
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = bytes([size[0] | 0x80]) + size[1:]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar(tmp_path / "a.tar", sample(0))
    data = (tmp_path / "a.tar").read_bytes()
    place = data.rindex(b"second") // 512 * 512 + 512
    (tmp_path / "a.tar").write_bytes(data[:place] + header + data[place:])
    with pytest.raises(ValueError, match="a.tar cannot be read: .*fetch it again"):
        list(webdataset.examples(config_of(tmp_path), "train"))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_any(tmp_path, form):
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as file:
        file.addfile(tarfile.TarInfo("x" * 5000 + ".png"))
    with pytest.raises(ValueError, match="a.tar cannot be read: a damaged header at byte 0"):
        list(webdataset.examples(config_of(tmp_path), "train"))


@pytest.mark.parametrize("held_out", ["val/0.tar", "validation/0.tar", "Val-000.tar",
                                      "Test/0.tar", "TEST_0.tar"])
def test_the_split_that_is_not_trained_on_has_several_names(tmp_path, held_out):
    tar(tmp_path / "train/0.tar", sample(0))
    tar(tmp_path / held_out, sample(1, split="val" if "al" in held_out else "test"))
    for split, i in (("train", 0), ("test", 1)):
        (found,) = webdataset.examples(config_of(tmp_path), split)
        assert found["file_name"].endswith(f"0000{i}.png")


def test_beside_a_test_split_validation_is_left_out(tmp_path):
    for name in ("a.tar", "val/0.tar", "test/0.tar", "valley-0.tar"):
        tar(tmp_path / name, sample(0))
    names = {split: [os.path.relpath(path, tmp_path) for path in paths]
             for split, paths in webdataset.find_tars(tmp_path).items()}
    assert names == {"train": ["a.tar", "valley-0.tar"], "test": ["test/0.tar"]}
    whole = webdataset.find_tars(tmp_path / "val")  # which is all that was named
    assert whole["train"] == whole["test"] == [str(tmp_path / "val/0.tar")]


def test_files_of_a_sample_that_are_not_side_by_side(tmp_path):
    """tar cf a.tar *.png *.txt"""
    members = [sample(i) for i in range(3)]
    tar(tmp_path / "a.tar", [pair[k] for k in (0, 1) for pair in members])
    with pytest.raises(ValueError, match="00000.png .it has no caption .*next to it in the tar"):
        list(webdataset.examples(config_of(tmp_path, 1), "train"))
    assert [one.problem.split(";")[0] for one in webdataset.iter_tar(str(tmp_path / "a.tar"))][
        3:] == ["its key came before in this tar"] * 3


def test_a_key_ends_at_the_first_dot(tmp_path):
    tar(tmp_path / "a.tar", [("a.1.png", encoded(picture(1))), ("a.1.txt", b"one")])
    with pytest.raises(ValueError, match="first dot of a name, and 'a.1.png' has another; rename"):
        list(webdataset.examples(config_of(tmp_path), "train"))


def test_a_tar_that_is_named_like_a_pattern(tmp_path):
    tar(tmp_path / "a[1].tar", sample(0))
    assert len(list(webdataset.examples(config_of(tmp_path / "a[1].tar"), "train"))) == 1


def test_all_samples_bad_is_an_error_below_the_limit_too(tmp_path):
    tar(tmp_path / "a.tar", [*sample(0, False), *sample(9, False)])
    with pytest.raises(ValueError, match="data_dir=.*no picture .*00000.png .it has no caption"):
        list(webdataset.examples(config_of(tmp_path), "train"))


def test_no_tar_no_plain_tar_or_mixed_classes(tmp_path):
    with pytest.raises(ValueError, match="holds no tar"):
        webdataset.find_tars(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="unzip it first"):
        webdataset.find_tars(tmp_path)
    tar(tmp_path / "b.tar", [*sample(0, **{"class": "a"}), *sample(1)])
    with pytest.raises(ValueError, match='"class" and the other has none'):
        webdataset.examples(config_of(tmp_path / "b.tar"), "train")
    assert webdataset.find_tars(tmp_path / "b*.tar")["test"] == [str(tmp_path / "b.tar")]
    assert not webdataset.has_test(types.SimpleNamespace(data_dir=tmp_path / "b*.tar"))
