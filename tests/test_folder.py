"""A user's own folder: hostile manifests, damaged pictures, order."""

import json
import logging
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from stackgan_tf.datasets import folder

GOOD = {"file": "images/0.png", "captions": ["a grey square"]}


def config_of(path, size=8, max_unreadable=10):
    return types.SimpleNamespace(data_dir=str(path), load_size=size, max_unreadable=max_unreadable)


def line_of(i, **more):
    return {"file": f"images/{i}.png", "captions": [f"grey {i}", "square"][: 1 + i % 2], **more}


def write(path, lines, pictures=6):
    """A folder whose picture i is grey of value i; str and bytes lines go in as they are."""
    (path / "images").mkdir(exist_ok=True)
    for i in range(pictures):
        Image.new("RGB", (10, 12), (i, i, i)).save(path / f"images/{i}.png")
    raw = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    (path / "captions.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    return config_of(path)


def names(config, split="train"):
    return [example["file_name"] for example in folder.examples(config, split)]


def refusal(config, split="train"):
    with pytest.raises(ValueError) as caught:
        folder.load(config, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


# What comes out


def test_load_gives_the_documented_elements(tmp_path):
    lines = [line_of(i, **{"class": name}) for i, name in enumerate(["wren", "finch", 10])]
    lines[1]["captions"] = ["größer 🐦", "zwei"]
    dataset = folder.load(write(tmp_path, lines), "train")
    assert dataset.element_spec["image"] == tf.TensorSpec((8, 8, 3), tf.uint8)
    elements = list(dataset.as_numpy_iterator())
    assert [e["label"] for e in elements] == [2, 1, 0]  # sorted: "10", "finch", "wren"
    assert [e["file_name"] for e in elements] == [line["file"].encode() for line in lines]
    assert [len(e["captions"]) for e in elements] == [1, 2, 1]
    assert elements[1]["captions"][0].decode() == "größer 🐦"
    assert [e["image"].max() for e in elements] == [0, 1, 2]
    assert len(list(dataset)) == 3  # a second pass gives the same


def test_no_class_no_label(tmp_path):
    config = write(tmp_path, [line_of(0)])
    assert "label" not in next(folder.examples(config, "train"))
    assert "label" not in folder.load(config, "train").element_spec


def test_order_is_the_manifests(tmp_path):
    order = np.random.default_rng(0).permutation(100)
    config = write(tmp_path, [line_of(int(i)) for i in order], pictures=100)
    expected = [f"images/{i}.png" for i in order]
    assert names(config) == expected == names(config)


def test_without_split_both_are_the_whole_folder(tmp_path):
    config = write(tmp_path, [line_of(0), line_of(1)])
    assert names(config, "train") == names(config, "test") == ["images/0.png", "images/1.png"]
    assert not folder.has_test(config)


def test_splits_share_the_class_indices(tmp_path):
    config = write(tmp_path, [line_of(0, split="train", **{"class": "b"}),
                              line_of(1, split="test", **{"class": "c"}),
                              line_of(2, split="train", **{"class": "a"})])  # fmt: skip
    assert folder.has_test(config)
    assert names(config, "train") == ["images/0.png", "images/2.png"]
    assert [e["label"] for e in folder.examples(config, "test")] == [2]


def test_blank_lines_byte_order_mark_and_carriage_returns(tmp_path):
    first = b"\xef\xbb\xbf" + json.dumps(line_of(0)).encode() + b"\r"
    assert len(names(write(tmp_path, [first, "", "  \r", line_of(1), ""]))) == 2


@pytest.mark.parametrize("caption", [
    "👩\u200d🌾", "\u200fציפור אדומה", "\ufeffa bird\u200b", "鳥", "é", "..."])
def test_signs_that_are_not_seen_stay_in_a_caption_that_is(tmp_path, caption):
    config = write(tmp_path, [{**GOOD, "captions": [caption]}])
    assert list(next(folder.examples(config, "train"))["captions"]) == [caption]


def test_link_within_the_folder_is_followed(tmp_path):
    config = write(tmp_path, [{"file": "link.png", "captions": ["x"]}])
    (tmp_path / "link.png").symlink_to(tmp_path / "images/3.png")
    assert names(config) == ["link.png"]


# Hostile manifests. Each is the second of two lines; blank lines count.

HOSTILE = {
    "no json": ("{nope", ["not JSON", "images/a.jpg"]),
    "nested": ("[" * 100_000, ["not usable JSON"]),
    "huge number": ('{"file": ' + "9" * 5000 + "}", ["not usable JSON"]),
    "list": ("[1, 2]", ["[1, 2]", "not an object"]),
    "no file": ({"captions": ["x"]}, ['"file" is missing', "captions", "images/a.jpg"]),
    "file no text": ({**GOOD, "file": 7}, ['"file" is 7']),
    "file empty": ({**GOOD, "file": " "}, ['"file" is " "']),
    "no captions": ({"file": "images/1.png", "caption": "x"}, ['"captions" is missing', "caption"]),
    "captions text": ({**GOOD, "captions": "a bird"}, ['"captions": ["a bird"]']),
    "captions empty": ({**GOOD, "captions": []}, ['"captions" is []', "a list of texts"]),
    "captions object": ({**GOOD, "captions": {"a": 1}}, ['{"a": 1}']),
    "caption number": ({**GOOD, "captions": ["x", 3]}, ["holds 3"]),
    "caption empty": ({**GOOD, "captions": ["x", ""]}, ['holds ""', "take it out"]),
    "caption blank": ({**GOOD, "captions": [" \t"]}, ['holds " \\t"']),
    "caption of zero width": ({**GOOD, "captions": ["\u200b\ufeff"]}, ['"captions" holds', "out"]),
    "caption surrogate": (b'{"file": "images/1.png", "captions": ["a\\ud800"]}', ["no text"]),
    "caption nul": ({**GOOD, "captions": ["a\0b"]}, ["no text"]),
    "missing picture": ({**GOOD, "file": "images/77.png"}, ["images/77.png", "is not in"]),
    "absolute": ({**GOOD, "file": "/etc/passwd"}, ["/etc/passwd", "absolute", "relative"]),
    "dots": ({**GOOD, "file": "../x.png"}, ["'../x.png'", "leaves the folder", "inside it"]),
    "hidden dots": ({**GOOD, "file": "images/../../x.png"}, ["leaves the folder"]),
    "folder": ({**GOOD, "file": "images"}, ["'images'", "not a file"]),
    "long name": ({**GOOD, "file": "x" * 5000}, ["cannot be opened"]),
    "nul name": ({**GOOD, "file": "a\0.png"}, ["no text"]),
    "twice": (GOOD, ["images/0.png", "line 1", "merge the captions"]),
    "twice, spelled anew": ({**GOOD, "file": "images/../images/0.png"}, ["line 1"]),
    "bad split": ({**line_of(1), "split": "val"}, ['"split" is "val"', '"train" or "test"']),
    "bad class": ({**line_of(1), "class": 1.5}, ['"class" is 1.5', "whole number"]),
    "class true": ({**line_of(1), "class": True}, ['"class" is true']),
    "some classes": ({**line_of(1), "class": "wren"}, ['"class"', "line 1 has none", "every line"]),
    "some splits": ({**line_of(1), "split": "test"}, ['"split"', "line 1 has none"]),
    "latin-1": (b'{"file": "images/1.png", "captions": ["gr\xfcn"]}', ["UTF-8"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_line_is_refused_with_number_value_and_remedy(tmp_path, name):
    line, parts = HOSTILE[name]
    message = refusal(write(tmp_path, [GOOD, "", line]))
    for part in ("captions.jsonl line 3: ", *parts):
        assert part in message
    assert len(message) < 400


def test_line_lacking_a_class_is_named(tmp_path):
    lines = [line_of(0, **{"class": "a"}), line_of(1, **{"class": "b"}), line_of(2)]
    message = refusal(write(tmp_path, lines))
    assert 'line 3: has no "class", but line 1 has one' in message


def test_links_out_of_the_folder_and_in_circles(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out.png"
    inside.mkdir()
    Image.new("RGB", (4, 4)).save(outside)
    (inside / "link.png").symlink_to(outside)
    (inside / "circle.png").symlink_to(inside / "circle.png")
    config = write(inside, [{"file": "link.png", "captions": ["x"]}])
    assert "outside of" in refusal(config) and "line 1" in refusal(config)
    config = write(inside, [{"file": "circle.png", "captions": ["x"]}])
    assert "line 1" in refusal(config) and "circle.png" in refusal(config)


def test_folder_or_manifest_missing(tmp_path):
    assert "data_dir is empty" in refusal(config_of(""))
    assert "does not exist" in refusal(config_of(tmp_path / "absent"))
    message = refusal(config_of(tmp_path))
    assert "captions.jsonl is missing" in message and '"file": "images/a.jpg"' in message
    (tmp_path / "file").write_text("x")
    assert "is not a folder" in refusal(config_of(tmp_path / "file"))
    assert "is empty" in refusal(write(tmp_path, ["", " "]))


def test_split_without_lines(tmp_path):
    config = write(tmp_path, [line_of(0, split="train")])
    message = refusal(config, "test")
    assert 'no line has "split": "test"' in message and "whole folder" in message
    assert "'val'" in refusal(config, "val")


def test_bad_load_size(tmp_path):
    write(tmp_path, [line_of(0)])
    assert "load_size=0" in refusal(config_of(tmp_path, size=0))


def test_the_manifest_is_checked_before_any_picture(tmp_path):
    config = write(tmp_path, [line_of(0), "{nope"])
    (tmp_path / "images/0.png").write_bytes(b"")
    assert "line 2" in refusal(config)


# Damaged pictures


def damage(path: Path, i: int, header: bool):
    """Damage in the header shows in load(); behind it only when the picture is decoded."""
    file = path / f"images/{i}.png"
    noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, format="JPEG")
    data = file.read_bytes()
    file.write_bytes(b"" if header else data[: len(data) // 2])


@pytest.mark.parametrize("header", [True, False])
def test_damaged_pictures_are_skipped_counted_and_named_once(tmp_path, caplog, header):
    write(tmp_path, [line_of(i) for i in range(6)])
    damage(tmp_path, 1, header)
    damage(tmp_path, 4, header)
    with caplog.at_level(logging.WARNING):
        dataset = folder.load(config_of(tmp_path, max_unreadable=2), "train")
        for _ in range(2):
            kept = [
                name.decode()[7]
                for name in dataset.map(lambda e: e["file_name"]).as_numpy_iterator()
            ]
            assert kept == ["0", "2", "3", "5"]
    warnings = [r.getMessage() for r in caplog.records if r.name == folder.__name__]
    assert len(warnings) == 2
    assert "images/1.png" in warnings[0] and ("empty" if header else "truncated") in warnings[0]
    assert "images/4.png" in warnings[1]


def test_too_many_damaged_headers_are_refused_at_load(tmp_path):
    write(tmp_path, [line_of(i) for i in range(6)])
    for i in range(5):
        damage(tmp_path, i, header=True)
    message = refusal(config_of(tmp_path, max_unreadable=1))
    for part in ("5 of 6 pictures", "max_unreadable=1", "images/0.png (the file is empty", "; ..."):
        assert part in message


def test_too_many_damaged_pictures_while_iterating(tmp_path):
    write(tmp_path, [line_of(i) for i in range(6)])
    damage(tmp_path, 1, header=False)
    config = config_of(tmp_path, max_unreadable=0)
    with pytest.raises(ValueError, match="^1 of 6 pictures.*images/1.png .damaged.*Repair"):
        list(folder.examples(config, "train"))
    with pytest.raises(tf.errors.OpError) as caught:
        list(folder.load(config, "train"))
    plain = folder.plain_error(caught.value)
    assert str(plain).startswith("1 of 6 pictures") and str(plain).endswith("captions.jsonl.")
    assert "\n" not in str(plain)


@pytest.mark.parametrize("header", [True, False])
def test_all_damaged_is_an_error_below_the_limit_too(tmp_path, header):
    config = write(tmp_path, [line_of(0), line_of(1)])
    damage(tmp_path, 0, header)
    damage(tmp_path, 1, header)
    with pytest.raises(ValueError, match="2 of 2 pictures"):
        list(folder.examples(config, "train"))


def test_plain_error_leaves_other_errors_alone():
    assert folder.plain_error(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None


def test_stopping_early_leaves_no_threads_behind(tmp_path):
    config = write(tmp_path, [line_of(i) for i in range(6)])
    before = threading.active_count()
    iterator = folder.examples(config, "train")
    next(iterator)
    iterator.close()
    assert threading.active_count() == before
