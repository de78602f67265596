"""Data sets of TFDS: mocked, or written here; never downloaded."""

import shlex
import socket
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import command_here, tiny_flags

from stackgan_tf import build
from stackgan_tf.config import UserError
from stackgan_tf.datasets import tfds as data


@pytest.fixture
def make(tiny, tmp_path):
    """make(dataset, **changes) -> Config with an empty data_dir."""
    return lambda dataset, **changes: tiny(
        **{"dataset": dataset, "data_dir": str(tmp_path), **changes})


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def write(path, set_name, features, rows, **splits):
    """Prepares a data set of rows as a user's own; `splits` {name: number of rows}."""

    class Prepared(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager):
            return {split: enumerate(rows[:count]) for split, count in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Prepared(data_dir=str(path)).download_and_prepare()


def picture(i, channels=3, size=(20, 30)):
    return np.full((*size, channels), 10 * i, np.uint8)


# The three of the paper, mocked: random sizes, gibberish, boxes upside down

@pytest.mark.parametrize("prefix", ["", "tfds:"])
def test_mocked_flowers(make, prefix, capsys):
    with tfds.testing.mock_data(num_examples=30):
        examples = build.load_examples(make(f"{prefix}oxford_flowers102"), "train")
    assert len(examples) == 30 and examples.images.shape[1:] == (17, 17, 3)
    names = tfds.builder("oxford_flowers102").info.features["label"].names
    for label, captions in zip(examples.labels, examples.captions):
        assert len(set(captions)) == 5 and all(names[label] in caption for caption in captions)
    (line,) = capsys.readouterr().out.splitlines()
    assert "made from its label names" in line and "--captions_dir" in line


def test_mocked_birds_survive_their_invalid_boxes(make, monkeypatch):
    boxes, crop = [], data.images.crop_to_box
    monkeypatch.setattr(data.images, "crop_to_box",
                        lambda image, box: boxes.append(box) or crop(image, box))
    with tfds.testing.mock_data(num_examples=50):
        rows = list(data.examples(make("caltech_birds2011"), "test"))
    invalid = np.min(boxes, axis=1) <= 0
    assert len(boxes) == 50 and invalid.any() and not invalid.all()
    assert all(row["image"].size and row["image"].shape[2] == 3 for row in rows)
    assert all("label" in row and len(row["captions"]) == 5 for row in rows)


def test_mocked_coco_has_its_own_captions(make, capsys):
    with tfds.testing.mock_data(num_examples=10):
        rows = list(data.examples(make("coco_captions"), "train"))
    assert len(rows) == 10 and "label" not in rows[0]
    # the mock's texts are of the letters a to j and blanks, their number is random
    assert all(set(text) <= set("abcdefghij ") for row in rows for text in row["captions"])
    assert sum(len(row["captions"]) for row in rows) > 20
    assert "its feature 'captions'" in capsys.readouterr().out


# A set of the user's own

def test_boxes_names_and_splits(tmp_path, make):
    y, x = np.mgrid[0:40, 0:80].astype(np.uint8)
    features = {"image": tfds.features.Image(shape=(None, None, 3)),
                "bbox": tfds.features.BBoxFeature(),
                "label_name": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=3),
                "image/filename": tfds.features.Text()}
    rows = [{"image": np.stack([x, y, x], 2), "label": 2, "image/filename": "a/Robin_1.jpg",
             "bbox": tfds.features.BBox(ymin=.25, xmin=.25, ymax=.5, xmax=.5),
             "label_name": "003.American_Redstart"}] * 3
    write(tmp_path, "my_birds", features, rows, train=3, validation=1)
    config = make("tfds:my_birds")
    train, test = (list(data.examples(config, split)) for split in ("train", "test"))
    assert len(train) == 3 and len(test) == 1  # "validation" stands in for "test"
    # box 20 wide at (20..40, 10..20): radius 15 around (30, 15)
    np.testing.assert_array_equal(train[0]["image"][0, :, 0], range(15, 45))
    np.testing.assert_array_equal(train[0]["image"][:, 0, 1], range(0, 30))
    assert train[0]["captions"][0] == "a photo of an american redstart."
    assert train[0]["file_name"] == "a/Robin_1.jpg" and train[0]["label"] == 2
    (tmp_path / "text").mkdir()
    (tmp_path / "text/Robin_1.txt").write_text("a red bird\nit has wings\n")
    config = make("tfds:my_birds", captions_dir=str(tmp_path / "text"))
    assert next(data.examples(config, "train"))["captions"] == ["a red bird", "it has wings"]
    (tmp_path / "text/Robin_1.txt").rename(tmp_path / "text/Robin_2.txt")
    with pytest.raises(ValueError, match="has no captions of a/Robin_1.jpg"):
        next(data.examples(config, "train"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("feature, value", [
    (tfds.features.Text(), "a grey square"),
    (tfds.features.Sequence(tfds.features.Text()), ["a grey square", "", "dull"]),
    (tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
     [{"text": "a grey square", "id": 3}])])
def test_captions_and_colors_in_any_form(tmp_path, make, channels, feature, value):
    image = picture(5, channels)
    image[..., 3:] = 0  # transparent: white
    write(tmp_path, "grey", {"picture": tfds.features.Image(shape=(20, 30, channels)),
                             "caption": feature}, [{"picture": image, "caption": value}], train=1)
    (row,) = data.examples(make("tfds:grey"), "train")
    assert row["captions"] == (["a grey square", "dull"] if len(value) == 3 else ["a grey square"])
    assert row["image"].shape == (20, 30, 3) and "file_name" not in row
    assert (row["image"] == (255 if channels == 4 else 50)).all()


def test_refusals_of_a_prepared_set(tmp_path, make):
    image = tfds.features.Image(shape=(20, 30, 3))
    write(tmp_path, "bare", {"image": image}, [{"image": picture(1)}], other=1, train=1)
    with pytest.raises(UserError, match="no captions and no label names.*--embedding_dim=0"):
        build.load_examples(make("tfds:bare"), "train")
    assert len(build.load_examples(make("tfds:bare", embedding_dim=0), "train")) == 1
    with pytest.raises(UserError, match="no split test or validation or val, only other, train"):
        build.load_examples(make("tfds:bare", embedding_dim=0), "test")
    write(tmp_path, "words", {"text": tfds.features.Text()}, [{"text": "x"}], train=1)
    with pytest.raises(UserError, match="has no feature that is one picture, only text"):
        build.load_examples(make("tfds:words"), "train")
    write(tmp_path, "labels", {"image": image, "label": tfds.features.Text()},
          [{"image": picture(1), "label": "wren"}], train=1)
    with pytest.raises(UserError, match="tfds:labels: its feature 'label' is a text.*ClassLabel"):
        build.load_examples(make("tfds:labels", embedding_dim=0), "train")
    box = tfds.features.BBoxFeature(bbox_format="REL_XYXY")
    write(tmp_path, "boxes", {"image": image, "bbox": box}, [{
        "image": picture(1), "bbox": np.array([.5, 0, 1, .5], np.float32)}], train=1)
    with pytest.raises(UserError, match="tfds:boxes: the boxes of its .* are REL_XYXY; .*REL_YXYX"):
        build.load_examples(make("tfds:boxes", embedding_dim=0), "train")
    deep = tfds.features.Image(shape=(20, 30, 1), dtype=np.uint16)
    write(tmp_path, "deep", {"image": deep}, [{"image": picture(1, 1).astype(np.uint16)}], train=1)
    with pytest.raises(UserError, match="picture 0 is uint16"):
        build.load_examples(make("tfds:deep", embedding_dim=0), "train")


def test_pictures_without_names_have_none(tmp_path, make):
    image, caption = tfds.features.Image(shape=(20, 30, 3)), tfds.features.Text()
    rows = [{"image": picture(i), "caption": f"c{i}", "image_id": f"n{i}"} for i in range(2)]
    for name, more in (("bare", ()), ("named", ("image_id",))):
        features = {"image": image, "caption": caption, **dict.fromkeys(more, caption)}
        write(tmp_path, name, features, [{key: row[key] for key in features} for row in rows],
              train=2)
    bare, named = (build.load_examples(make(f"tfds:{name}"), "train") for name in ("bare", "named"))
    assert bare.keys is None and "file_name" not in bare.extra
    assert named.extra["file_name"].tolist() == ["n0", "n1"] and named.keys is not None


def test_an_empty_split(tmp_path, make):
    folder = tmp_path / "bare/1.0.0"
    folder.mkdir(parents=True)
    (folder / "bare-train.tfrecord-00000-of-00001").write_bytes(b"")
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), check_data=False,
        features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(20, 30, 3))}),
        split_infos=[tfds.core.SplitInfo(name="train", shard_lengths=[0], num_bytes=0)])
    with pytest.raises(UserError, match="--dataset=tfds:bare: its split train is empty"):
        build.load_examples(make("tfds:bare", embedding_dim=0), "train")


def test_an_unknown_label_makes_no_captions(tmp_path, make):
    features = {"image": tfds.features.Image(shape=(20, 30, 3)),
                "label": tfds.features.ClassLabel(names=["robin", "wren"])}
    rows = [{"image": picture(1), "label": label} for label in (0, -1)]
    write(tmp_path, "unknown", features, rows, train=2)
    with pytest.raises(UserError, match=r"picture 1 has the label -1.*captions_dir"):
        build.load_examples(make("tfds:unknown"), "train")
    assert len(build.load_examples(make("tfds:unknown", embedding_dim=0), "train")) == 2


# What is not there

@pytest.mark.parametrize("dataset, words", [
    ("oxford_flowers102", "is not prepared in"), ("tfds:caltech_birds2011", "is not prepared in"),
    ("tfds:coco_captions/2014", "is not prepared in"), ("tfds:mnist:3.0.1", "is not prepared in"),
    ("tfds:no_such_set", "is not known to TFDS .* and not prepared"),
    ("tfds:mnist:9.9.9", "cannot be loaded at version"),
    ("tfds:coco_captions/no", "BuilderConfig no"),
    ("tfds", "names no data set"), ("tfds:", "names no data set"),
    ("tfds:huggingface:mnist", "names no data set"), ("tfds:../x", "names no data set"),
    ("folder:x", "is unknown; choose one of .*coco_captions.*or tfds:NAME"),
])
def test_said_at_once_without_network(make, dataset, words):
    begin = time.monotonic()
    with pytest.raises(UserError, match=words) as caught:
        build.load_examples(make(dataset), "train")
    assert "\n" not in str(caught.value) and time.monotonic() - begin < 20


def test_the_command_to_download_is_the_one_to_type(make, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare",
                        lambda self: called.append((self.name, str(self.data_dir))))
    with pytest.raises(UserError) as caught:
        build.load_examples(make("tfds:mnist"), "train")
    line = str(caught.value).split("download it with: ")[1]
    assert shlex.split(line)[:2] == ["python", "-c"]
    exec(shlex.split(line)[2])
    assert called == [("mnist", str(tmp_path / "mnist/3.0.1"))]


def test_the_training_command_says_it_too(tmp_path):
    done = command_here("train", *tiny_flags(1, dataset="coco_captions", data_dir=tmp_path,
                                             checkpoint_dir=tmp_path), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tfds.builder('coco_captions', data_dir=" in done.stderr.splitlines()[-1]
