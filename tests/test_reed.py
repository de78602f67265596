"""Data as Reed et al. and StackGAN gave it out: read, refused, trained on."""

import gc
import logging
import os
import pickle
import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from PIL import Image
from python2_pickle import dumps

from stackgan_tf import (
    build,
    evaluation,
    prepare,
    sample,
    shown_texts,
    train,
    train_text_encoder,
    what_to_draw,
)
from stackgan_tf.config import UserError, resolve
from stackgan_tf.datasets import reed

DIM = 6
CLASSES = [np.int64(c) for c in (1, 1, 128, 128, 200, 200, 127, 127)]
NAMES = [f"{c:03d}.Bird/Bird_{i:04d}_{c}" for i, c in enumerate(CLASSES)]


def embeddings_of(count):
    """Ten a picture; the first number of each is the picture's."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(count, 10, DIM)).astype(np.float32)
    rows[:, :, 0] = np.arange(count)[:, None]
    return list(rows)


def pictures_of(count, size):
    return [np.full((size, size, 3), 20 * i, np.uint8) for i in range(count)]


def write_pickle(path, value, protocol=2):
    path.write_bytes(dumps(value, protocol))


def write_split(folder, protocol=2, names=NAMES, classes=CLASSES, pickled=()):
    folder.mkdir(parents=True)
    write_pickle(folder / "filenames.pickle", names, protocol)
    write_pickle(folder / "char-CNN-RNN-embeddings.pickle", embeddings_of(len(names)), protocol)
    if classes:
        write_pickle(folder / "class_info.pickle", classes, protocol)
    for size in pickled:
        write_pickle(folder / f"{size}images.pickle", pictures_of(len(names), size), protocol)


def write_pictures(folder, names=NAMES, extension=".png", mode="RGB"):
    for i, name in enumerate(names):
        path = folder / (name + extension)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 50, 3), 20 * i, np.uint8)).convert(mode).save(path)


def write_boxes(folder, boxes, names=NAMES):
    (folder / "images.txt").write_text("".join(f"{i} {n}.jpg\n" for i, n in enumerate(names, 1)))
    (folder / "bounding_boxes.txt").write_text("".join(
        f"{i} {' '.join(map(str, box))}\n" for i, box in enumerate(boxes, 1)))


def write_captions(folder, names=NAMES, captions=10):
    for i, name in enumerate(names):
        path = folder / (name + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(b"bird %d, caption %d \n" % (i, k) for k in range(captions)))


@pytest.fixture
def make(tiny, tmp_path):
    """make(stage, **changes) -> Config with data_dir = tmp_path."""
    def config(stage=1, **changes):
        return tiny(stage, **{"dataset": "reed", "data_dir": str(tmp_path), **changes})
    return config


def read(config, split="train"):
    return list(reed.examples(config, split))


def refusal(config, split="train"):
    with pytest.raises(ValueError) as caught:
        read(config, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What comes out

@pytest.mark.parametrize("protocol", [0, 2])
def test_official_birds(tmp_path, make, capsys, protocol):
    write_split(tmp_path / "train", protocol)
    write_pictures(tmp_path / "CUB_200_2011/images")
    write_captions(tmp_path / "text_c10")
    rows = read(make())
    assert [row["file_name"] for row in rows] == NAMES
    assert [row["label"] for row in rows] == [1, 1, 128, 128, 200, 200, 127, 127]
    assert [row["image"][0, 0, 0] for row in rows] == [20 * i for i in range(8)]
    assert {row["image"].shape for row in rows} == {(40, 50, 3)}
    for row, expected in zip(rows, embeddings_of(8)):
        assert row["embeddings"].dtype == np.float32
        np.testing.assert_array_equal(row["embeddings"], expected)
    assert rows[3]["captions"] == [f"bird 3, caption {k}" for k in range(10)]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and all(part in said[0] for part in (
        "8 pictures", "CUB_200_2011/images, whole", "embeddings of 6", "text_c10"))


def test_birds_are_cropped_as_the_released_code_does(tmp_path, make, capsys):
    write_split(tmp_path / "train")
    folder = tmp_path / "CUB_200_2011"
    for i, name in enumerate(NAMES):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[0:40, 0:50].astype(np.uint8)
        Image.fromarray(np.stack([x, y, x], 2)).save(folder / "images" / (name + ".png"))
    write_boxes(folder, [(10.0, 5.0, 8.0, 4.0), (30, 20, 20, 21)] + [(1, 1, 9, 9)] * 6)
    rows = read(make())
    # radius int(8 * .75) = 6 around (14, 7); int(21 * .75) = 15 around (40, 30), cut at the edges
    np.testing.assert_array_equal(rows[0]["image"][0, :, 0], range(8, 20))
    np.testing.assert_array_equal(rows[0]["image"][:, 0, 1], range(1, 13))
    np.testing.assert_array_equal(rows[1]["image"][0, :, 0], range(25, 50))
    np.testing.assert_array_equal(rows[1]["image"][:, 0, 1], range(15, 40))
    assert "cropped to their boxes" in capsys.readouterr().out


@pytest.mark.parametrize("extension", [".jpeg", ".webp", ".JPEG", ".PNG", ".WEBP"])
def test_pictures_of_any_extension(tmp_path, make, extension):
    write_split(tmp_path / "train")
    write_pictures(tmp_path / "images", extension=extension)
    assert [row["file_name"] for row in read(make())] == NAMES


def test_names_from_windows(tmp_path, make):
    write_split(tmp_path / "train", names=[name.replace("/", "\\") for name in NAMES])
    write_pictures(tmp_path / "CUB_200_2011/images")
    write_boxes(tmp_path / "CUB_200_2011", [(20, 10, 8, 4)] * 8)
    rows = read(make())
    assert [row["file_name"] for row in rows] == NAMES
    assert rows[7]["image"].shape[:2] == (12, 12)


def test_names_with_extension_have_boxes_and_those_without_box_are_counted(
        tmp_path, make, capsys):
    write_split(tmp_path / "train", names=[name + ".png" for name in NAMES])
    write_pictures(tmp_path / "CUB_200_2011/images")
    write_boxes(tmp_path / "CUB_200_2011", [(20, 10, 8, 4)] * 6, NAMES[:6])
    shapes = [row["image"].shape[:2] for row in read(make())]
    assert shapes == [(12, 12)] * 6 + [(40, 50)] * 2  # radius int(8 * .75) = 6
    assert "cropped to their boxes, but 2 have none" in capsys.readouterr().out


def test_boxes_of_names_that_are_no_utf8(tmp_path, make):
    write_split(tmp_path / "train")
    write_pictures(tmp_path / "CUB_200_2011/images")
    folder = tmp_path / "CUB_200_2011"
    write_boxes(folder, [(20, 10, 8, 4)] * 9, [*NAMES, "latin"])
    path = folder / "images.txt"
    path.write_bytes(path.read_bytes().replace(b"latin", b"r\xe9tif"))
    assert {row["image"].shape[:2] for row in read(make())} == {(12, 12)}


def test_names_of_python_2_outside_of_ascii(tmp_path, make):
    """Its pickles hold bytes, here of UTF-8, and file systems may spell them otherwise."""
    names = [f"jardín/é{i}" for i in range(2)]
    write_split(tmp_path / "train", names=names, classes=())
    write_pickle(tmp_path / "train/filenames.pickle", [
        name.encode().decode("latin1") for name in names])  # what reading it as Latin-1 gives
    write_pictures(tmp_path / "images", [unicodedata.normalize("NFD", name) for name in names])
    assert [row["file_name"] for row in read(make())] == names


@pytest.mark.parametrize("image_dir", ["", "pictures", "pictures/jpg"])
def test_flowers_and_the_ports_folders(tmp_path, make, image_dir):
    """Pictures in jpg/, below the data or --image_dir; captions in class_%05d/."""
    names = [f"jpg/image_{i:05d}" for i in range(6734, 6742)]
    write_split(tmp_path / "flowers/train", names=names)
    write_pictures(tmp_path / ("pictures" if image_dir else "flowers"), names, ".jpg")
    write_captions(tmp_path / "flowers/text_c10", [
        f"class_{c:05d}/{name[4:]}" for c, name in zip(CLASSES, names)])
    (tmp_path / "flowers/text_c10/class_00001/image_06734.t7").write_bytes(b"torch")
    (tmp_path / "flowers/text_c10/class_00001.h5").write_bytes(b"torch")
    config = make(data_dir=str(tmp_path / "flowers"),
                  image_dir=image_dir and str(tmp_path / image_dir))
    rows = read(config)
    assert [row["file_name"] for row in rows] == names
    assert rows[7]["captions"][9] == "bird 7, caption 9"


def test_coco_has_no_classes(tmp_path, make):
    names = [f"COCO_train2014_{i:012d}" for i in range(4)]
    write_split(tmp_path / "train", names=names, classes=None)
    write_pictures(tmp_path / "images", names, ".jpg", "L")
    write_captions(tmp_path / "text", names, 5)
    rows = read(make())
    assert "label" not in rows[0] and rows[0]["image"].shape == (40, 50, 3)
    assert len(rows[2]["captions"]) == 5 and rows[2]["embeddings"].shape == (10, DIM)


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickled_pictures(tmp_path, make, protocol, capsys):
    write_split(tmp_path / "train", protocol, pickled=(76, 304))
    for stage, size, wanted in ((1, 64, 76), (2, 256, 304)):
        rows = read(make(stage, image_size=size))
        assert [row["image"].shape for row in rows] == [(wanted, wanted, 3)] * 8
        assert [row["image"][7, 7, 1] for row in rows] == [20 * i for i in range(8)]
        assert f"{wanted}images.pickle" in capsys.readouterr().out
    (tmp_path / "train/76images.pickle").unlink()
    assert read(make(image_size=64))[0]["image"].shape == (304, 304, 3)


def test_small_pickled_pictures_serve_stage_1_alone(tmp_path, make):
    write_split(tmp_path / "train", pickled=(76,))
    message = refusal(make(2, image_size=256))
    assert "76images.pickle is too small for --image_size=256" in message
    assert "304images.pickle" in message and "--image_dir" in message
    write_pictures(tmp_path / "images")  # with the pictures it works
    assert read(make(2, image_size=256))[0]["image"].shape == (40, 50, 3)


def test_own_text_encoder_or_no_text(tmp_path, make):
    write_split(tmp_path / "train", pickled=(76,))
    assert reed.embedding_dim(make()) == DIM
    assert reed.embedding_dim(make(embedding_dim=0)) == 0
    assert "embeddings" not in read(make(embedding_dim=0))[0]
    own = make(precomputed_embeddings=False)
    assert reed.embedding_dim(own) == 0
    assert "text_c10/ or text/" in refusal(own) and "--captions_dir" in refusal(own)
    write_captions(tmp_path / "elsewhere")
    rows = read(make(precomputed_embeddings=False, captions_dir=str(tmp_path / "elsewhere")))
    assert "embeddings" not in rows[0] and len(rows[0]["captions"]) == 10


def test_captions_of_another_encoding(tmp_path, make):
    write_split(tmp_path / "train", pickled=(76,))
    write_captions(tmp_path / "text_c10")
    (tmp_path / "text_c10" / (NAMES[0] + ".txt")).write_bytes(
        "\ufeffgrößer\n\n  \n\u200b\n".encode() + b"a bird\xff\xfewith wings \r\n")
    assert read(make())[0]["captions"] == ["größer", "a bird with wings"]


def test_examples_hold_the_embeddings_of_each_picture(tmp_path, make):
    write_split(tmp_path / "train", pickled=(76,))
    examples = build.load_examples(make(), "train")
    assert examples.embeddings.shape == (80, DIM) and examples.embeddings.dtype == np.float32
    assert examples.offsets.tolist() == list(range(0, 81, 10))
    np.testing.assert_array_equal(examples.embeddings[35], embeddings_of(8)[3][5])
    assert examples.labels.tolist() == [int(c) for c in CLASSES]


# Refused, in one line

@pytest.mark.parametrize("file, value, words", [
    ("class_info.pickle", CLASSES[:7], ["class_info.pickle holds 7", "8 names"]),
    ("char-CNN-RNN-embeddings.pickle", embeddings_of(9), ["holds 9 entries", "8 names"]),
    ("76images.pickle", pictures_of(7, 76), ["76images.pickle holds 7 entries", "8 names"]),
    ("76images.pickle", pictures_of(9, 76), ["76images.pickle holds more", "8 names"]),
    ("76images.pickle", [np.zeros((76, 76), np.float32)] * 8, ["entry 0 is float32 (76, 76)"]),
    ("76images.pickle", [np.zeros((0, 76, 3), np.uint8)] * 8, ["entry 0 is uint8 (0, 76, 3)"]),
    ("char-CNN-RNN-embeddings.pickle", [np.full((10, DIM), np.nan)] * 8, ["entry 0", "finite"]),
    ("char-CNN-RNN-embeddings.pickle", [np.ones((2, 3, 4), np.float32)] * 8, ["(2, 3, 4)"]),
    ("char-CNN-RNN-embeddings.pickle", embeddings_of(7) + [np.ones((10, 7), np.float32)],
     ["entry 7 has 7 numbers", "entry 0 has 6"]),
    ("class_info.pickle", ["robin"] * 8, ["entry 0 is 'robin'"]),
    ("class_info.pickle", [2**70] * 8, ["entry 0 is '1180591620717411303424'"]),
    ("filenames.pickle", [], ["holds no list"]),
    ("filenames.pickle", NAMES[:7] + [7], ["entry 7 is '7'"]),
    ("filenames.pickle", NAMES[:7] + [" "], ["entry 7 is ' '"]),
    ("filenames.pickle", NAMES[:7] + ["a\0b"], ["entry 7 is"]),
    ("filenames.pickle", NAMES[:7] + ["/etc/passwd"], ["entry 7 is '/etc/passwd'", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["a/../../b"], ["entry 7 is 'a/../../b'", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["..\\b"], ["entry 7 is", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["C:\\b"], ["entry 7 is", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["a\\..\\..\\b"], ["entry 7 is", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["\\b"], ["entry 7 is", "leads out"]),
    ("filenames.pickle", NAMES[:7] + ["x" * 1001], ["entry 7 is 'xxxx", "no file name"]),
    ("filenames.pickle", NAMES[:7] + [[7]], ["entry 7 is one list, no file name"]),
    ("class_info.pickle", [[7]] * 8, ["entry 0 is one list, not the number"]),
    ("char-CNN-RNN-embeddings.pickle", [[[5] * 3]] * 8, ["entry 0 is one list, not an array"]),
    ("76images.pickle", [[[0] * 76] * 76] * 8, ["entry 0 is one list, not an array"]),
])
def test_pickles_that_do_not_fit(tmp_path, make, file, value, words):
    write_split(tmp_path / "train", pickled=(76,))
    write_pickle(tmp_path / "train" / file, value)
    message = refusal(make())
    assert all(word in message for word in words), message


def test_names_that_are_no_utf8(tmp_path, make):
    """As Python 3 lists and pickles those of a folder that was unpacked in Latin-1."""
    write_split(tmp_path / "train", pickled=(76,))
    (tmp_path / "train/filenames.pickle").write_bytes(pickle.dumps([*NAMES[:7], "caf\udce9"]))
    assert "entry 7 is 'caf\\udce9', no file name" in refusal(make())


def test_both_splits_embeddings_are_of_one_size(tmp_path, make):
    """The networks read the training split's; the sample grids show the other's."""
    for split in ("train", "test"):
        write_split(tmp_path / split, pickled=(76,))
    write_pickle(tmp_path / "test/char-CNN-RNN-embeddings.pickle", [
        np.ones((10, DIM - 1), np.float32)] * 8)
    with pytest.raises(UserError, match="test/.*: entry 0 has 5 numbers .* those of train/ have 6"):
        build.load_examples(make(), "test")


@pytest.mark.parametrize("file", ["filenames.pickle", "class_info.pickle", "76images.pickle",
                                  "char-CNN-RNN-embeddings.pickle"])
def test_malicious_and_damaged_pickles(tmp_path, make, file):
    write_split(tmp_path / "train", pickled=(76,))
    path = tmp_path / "train" / file
    whole = path.read_bytes()
    path.write_bytes(b"(lp0\ncposix\nsystem\n(S'touch ran'\ntRa.")
    with pytest.raises(UserError, match=f"{file} asks for posix.system"):
        build.load_examples(make(), "train")
    path.write_bytes(whole[:-20])
    with pytest.raises(UserError, match=f"{file} is no pickle, or is damaged or cut off at byte"):
        build.load_examples(make(), "train")


@pytest.mark.parametrize("what", ["picture", "folder of pictures", "captions", "their folder"])
def test_links_that_lead_out_are_refused(tmp_path, make, what):
    outside, data = tmp_path / "outside", tmp_path / "data"
    write_split(data / "train")
    write_pictures(outside / "images"), write_captions(outside / "text")
    for name, one in {"images": ("picture", NAMES[7] + ".png"),
                      "text": ("captions", NAMES[7] + ".txt")}.items():
        kind, file = one
        if what in ("folder of pictures", "their folder") and (name == "text") == (
                what == "their folder"):
            (data / name).symlink_to(outside / name)
            continue
        shutil.copytree(outside / name, data / name)
        if kind == what:
            (data / name / file).unlink()
            (data / name / file).symlink_to(outside / name / file)
    captions = "captions" in what or what == "their folder"
    flag = "captions_dir" if captions else "image_dir"
    message = refusal(make(data_dir=str(data)))
    assert "is a link to" in message and f"outside of {data}" in message
    assert f"--{flag}" in message
    # the folder that is named may be a link, and links inside of it may lead anywhere in it
    (tmp_path / "named").symlink_to(outside)
    (outside / "text" / "again.txt").symlink_to(NAMES[0] + ".txt")
    rows = read(make(data_dir=str(data), image_dir=str(tmp_path / "named"),
                     captions_dir=str(tmp_path / "named/text")))
    assert len(rows) == 8 and all(len(row["captions"]) == 10 for row in rows)


def test_what_is_missing_is_said(tmp_path, make):
    assert "data_dir is empty" in refusal(make(data_dir=""))
    assert "holds no folder train/" in refusal(make())
    write_split(tmp_path / "train")
    assert "holds no folder test/" in refusal(make(), "test")
    message = refusal(make())
    assert NAMES[0] in message and "--image_dir" in message and "304images.pickle" in message
    message = refusal(make(image_dir=str(tmp_path / "nowhere")))
    assert "nowhere" in message
    (tmp_path / "train/char-CNN-RNN-embeddings.pickle").unlink()
    assert "--noprecomputed_embeddings" in refusal(make())
    with pytest.raises(ValueError, match="embeddings.pickle is missing"):
        reed.embedding_dim(make())
    with pytest.raises(ValueError, match="nowhere is not there"):
        read(make(captions_dir="nowhere", precomputed_embeddings=False))
    (tmp_path / "train/filenames.pickle").unlink()
    assert "filenames.pickle is missing" in refusal(make())


def test_missing_and_damaged_pictures_are_skipped_up_to_a_limit(tmp_path, make, caplog):
    write_split(tmp_path / "train")
    write_pictures(tmp_path / "images")
    (tmp_path / "images" / (NAMES[2] + ".png")).unlink()
    (tmp_path / "images" / (NAMES[5] + ".png")).write_bytes(b"no picture")
    with caplog.at_level(logging.WARNING):
        rows = read(make(max_unreadable=2))
    assert [row["file_name"] for row in rows] == [NAMES[i] for i in (0, 1, 3, 4, 6, 7)]
    assert [row["embeddings"][0, 0] for row in rows] == [0, 1, 3, 4, 6, 7]
    assert [row["label"] for row in rows] == [1, 1, 128, 200, 127, 127]
    assert NAMES[2] in caplog.text and NAMES[5] in caplog.text
    message = refusal(make(max_unreadable=1))
    assert "2 of 8 pictures" in message and "is not there" in message and NAMES[5] in message
    assert "max_unreadable=1" in message


@pytest.mark.parametrize("file, line, words", [
    ("bounding_boxes.txt", "1 2 3 4", "line 1 is '1 2 3 4'"),
    ("bounding_boxes.txt", "1 a b c d", "line 1 is '1 a b c d'"),
    ("images.txt", "77 x.jpg", "picture '77' has no line in bounding_boxes.txt"),
])
def test_boxes_that_do_not_fit(tmp_path, make, file, line, words):
    write_split(tmp_path / "train")
    write_pictures(tmp_path / "CUB_200_2011/images")
    write_boxes(tmp_path / "CUB_200_2011", [(1, 1, 9, 9)] * 8)
    (tmp_path / "CUB_200_2011" / file).write_text(line + "\n")
    assert words in refusal(make())


# Trained on

@pytest.fixture(scope="module")
def birds(tmp_path_factory):
    """Birds as Python 2 pickled them, with a test split that has captions."""
    path = tmp_path_factory.mktemp("birds")
    write_split(path / "train", 0, pickled=(76,))
    write_split(path / "test", 2, NAMES[:4], CLASSES[:4], pickled=(76,))
    write_captions(path / "text_c10", NAMES[:2])
    return path


@pytest.fixture
def run_train(monkeypatch):
    """run_train(stage, **flags): the command's main, in this process; returns its exit code."""
    def run(stage, **changes):
        values = {**TINY, "stage": stage, "image_size": {1: 16, 2: 32}[stage], "dataset": "reed",
                  **changes}
        values = {name: value for name, value in values.items() if value is not None}
        monkeypatch.setattr(train, "given_flags", lambda: values)
        code = train.main(None)
        gc.collect()  # gives the lock on the run back, as the end of the process would
        return code
    return run


def variables(checkpoints, run, stage):
    reader = tf.train.load_checkpoint(
        os.path.join(checkpoints, run, f"stage{stage}", "ckpt", "step-00000002", "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if "CHECKPOINTABLE" not in name and "save_counter" not in name}


def test_sample_grids_say_what_they_show(birds, make):
    """The four test pictures in turn, a caption further each time; names where it has none."""
    texts, _ = shown_texts.read(make(data_dir=str(birds), embedding_dim=DIM), 6)
    assert texts.captions == ["bird 0, caption 0", "bird 1, caption 1", NAMES[2], NAMES[3],
                      "bird 0, caption 4", "bird 1, caption 5"]
    expected = embeddings_of(4)
    np.testing.assert_array_equal(texts.embeddings, [expected[i % 4][i] for i in range(6)])


def test_a_damaged_test_split_is_not_taken_for_none(make, tmp_path, capsys):
    """`prepare` would lose it; samples of training captions do."""
    data = tmp_path / "birds"
    write_split(data / "train", pickled=(76,))
    write_split(data / "test", 2, NAMES[:4], CLASSES[:4], pickled=(76,))
    (data / "test/char-CNN-RNN-embeddings.pickle").write_bytes(b"cut off")
    config = make(data_dir=str(data), embedding_dim=DIM)
    shown, _ = shown_texts.read(config, 2)
    assert shown.captions == [NAMES[0], NAMES[5]]
    said = capsys.readouterr().out
    assert "warning: the samples show captions of training, for those of the split test" in said
    settings = prepare.Settings(config, str(tmp_path / "prepared"), 40, 0, 2, 1, "", ())
    with pytest.raises(UserError, match="test/char-CNN-RNN-embeddings.pickle"):
        prepare.prepare(settings)
    assert not os.path.exists(settings.output)  # or the remedy's flags would be other settings


def test_both_stages_train_on_the_pickled_embeddings(birds, run_train, tmp_path, capsys):
    """No text encoder anywhere; two steps are one and one; vectors are drawn from."""
    checkpoints = str(tmp_path)
    flags = {"data_dir": str(birds), "checkpoint_dir": checkpoints, "embedding_dim": None,
             "captions_per_embedding": 4, "train_steps": 2, "checkpoint_steps": 1}
    assert run_train(1, run="straight", **flags) == 0
    shutil.copytree(tmp_path / "straight", tmp_path / "halves")
    shutil.rmtree(tmp_path / "halves/stage1/ckpt/step-00000002")
    assert run_train(1, run="halves", **flags) == 0
    assert "going on from the checkpoint of step 1" in capsys.readouterr().out
    straight, halves = (variables(checkpoints, run, 1) for run in ("straight", "halves"))
    assert len(straight) > 50
    for name, value in straight.items():
        np.testing.assert_array_equal(value, halves[name], name)
    assert run_train(2, run="straight", **{**flags, "train_steps": 1}) == 0
    assert not (tmp_path / "straight/text_encoder").exists()

    with pytest.raises(UserError, match="no text encoder, so a sentence cannot be drawn.*npy"):
        sample.sample(checkpoints, "straight", ["a red bird"])
    with pytest.raises(UserError, match="no text encoder"):
        sample.sample(checkpoints, "straight")
    np.save(tmp_path / "three.npy", embeddings_of(3)[2][:3])
    paths = sample.sample(checkpoints, "straight", count=2, output=str(tmp_path / "npy"),
                          embeddings=str(tmp_path / "three.npy"))
    assert len(paths) == 1 + 3 * 2 * 2
    first = [np.asarray(Image.open(path)) for path in paths[1:3]]
    assert first[0].shape == (16, 16, 3) and (first[0] != first[1]).any()
    paths = sample.sample(checkpoints, "straight", count=1, output=str(tmp_path / "pickle"),
                          embeddings=str(birds / "test/char-CNN-RNN-embeddings.pickle"), rows=3)
    assert len(paths) == 1 + 3 * 2
    assert "3 of the 4 vectors" in capsys.readouterr().out
    with pytest.raises(UserError, match="--dataset=reed; this score"):
        evaluation.evaluate(checkpoints, "straight", metrics=["attribute_accuracy"])
    with pytest.raises(UserError, match="draws from the embeddings of its data; R-precision needs"):
        evaluation.evaluate(checkpoints, "straight", metrics=["r_precision"])


def test_prepared_once_and_trained_on_from_memory_and_streamed(
        run_train, tmp_path, no_pictures):
    """The pickles are read once; the prepared copy brings the embeddings along."""
    data, output = tmp_path / "data", str(tmp_path / "prepared")
    write_split(data / "train")
    write_split(data / "test", 2, NAMES[:4], CLASSES[:4])
    write_pictures(data / "images")
    config = resolve({"dataset": "reed", "data_dir": str(data), "image_size": 256,
                      "crop_margin": 0.1875})
    assert prepare.prepare(prepare.Settings(config, output, 40, 0, 2, 1, "", ())) == 0
    shutil.rmtree(data)
    flags = {"dataset": "prepared", "data_dir": output, "checkpoint_dir": str(tmp_path),
             "embedding_dim": None, "train_steps": 2, "checkpoint_steps": 2}
    for run, memory_gb in (("memory", 4.0), ("streamed", 0.0)):
        assert run_train(1, run=run, memory_gb=memory_gb, **flags) == 0
        assert not (tmp_path / run / "text_encoder").exists()
    values = [variables(str(tmp_path), run, 1) for run in ("memory", "streamed")]
    assert any((values[0][name] != values[1][name]).any() for name in values[0])  # another order
    config = resolve({"dataset": "prepared", "data_dir": output, "embedding_dim": DIM,
                      "memory_gb": 0.0, "batch_size": 4, "image_size": 16})
    seen = [batch["embeddings"][:, 0] for batch in build.load_batches(config).dataset(0, 2)]
    assert sorted(np.concatenate(seen)) == list(range(8))


@pytest.mark.parametrize("content, words", [
    (np.zeros((2, 7), np.float32), r"\(2, 7\); the run reads finite floats of shape \(n, 6\)"),
    (np.zeros((2, 6), np.int64), "int64"), (np.full((2, 6), np.inf), "finite"),
    (np.full((2, 6), 1e300), "finite"),
    (np.zeros((0, 6)), r"\(0, 6\)"), (np.array([{}]), "no vectors"), (b"", "no vectors"),
    (None, "cannot be read"),
])
def test_files_that_hold_no_vectors(tmp_path, content, words):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match=words):
        what_to_draw.read_embeddings(str(path), 6, 8)


def test_settings_that_contradict_the_data(birds, run_train, make, encoder, tmp_path):
    flags = {"data_dir": str(birds), "checkpoint_dir": str(tmp_path / "runs")}
    with pytest.raises(UserError, match="--embedding_dim=8 does not fit .* have 6 numbers"):
        run_train(1, **flags)
    with pytest.raises(UserError, match="--text_encoder=.* has no use .*noprecomputed_embeddings"):
        run_train(1, embedding_dim=None, text_encoder=encoder, **flags)
    with pytest.raises(UserError, match="no text encoder to train.*--noprecomputed_embeddings"):
        train_text_encoder.train(make(data_dir=str(birds)))
    assert not (tmp_path / "runs").exists()
