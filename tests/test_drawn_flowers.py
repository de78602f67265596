import collections
import os
import time
import types

import numpy as np
import pytest
from caption_reader import named_attributes

from stackgan_tf import flower_drawing
from stackgan_tf.flower_drawing import ATTRIBUTES, make_flower

# The 70 symbols of Zhang, Zhao & LeCun 2015 (the char-CNN-RNN text encoder's), space included.
ALPHABET = set("abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} ")


@pytest.fixture(scope="module")
def flowers():
    return [make_flower(seed=7, index=index) for index in range(120)]


def test_seed_and_index_determine_a_flower(flowers):
    again = make_flower(seed=7, index=41)
    assert again.image.tobytes() == flowers[41].image.tobytes()
    assert again.captions == flowers[41].captions
    assert again.attributes == flowers[41].attributes
    assert len({flower.image.tobytes() for flower in flowers}) == 120
    assert make_flower(seed=8, index=41).image.tobytes() != again.image.tobytes()


def test_any_attributes_can_be_drawn():
    rng = np.random.default_rng(0)
    attributes = dict(zip(ATTRIBUTES, (3, 0, 8, 1, 3)))  # white on white, 12 rounded: not sampled
    image = flower_drawing.draw_image(attributes, rng)
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8


def test_sampled_values_are_in_range_and_all_occur(flowers):
    for name, values in ATTRIBUTES.items():
        assert {flower.attributes[name] for flower in flowers} == set(range(len(values)))


def test_center_and_background_never_have_the_petals_color(flowers):
    for flower in flowers:
        values = {name: ATTRIBUTES[name][i] for name, i in flower.attributes.items()}
        assert values["center_color"] != values["petal_color"]
        assert (values["petal_color"], values["background"]) != ("white", "paper")


@pytest.mark.parametrize("color", ATTRIBUTES["petal_color"])
def test_petals_have_their_color_and_no_other(color):
    names = ATTRIBUTES["petal_color"]
    own, background = names.index(color), "soil" if color == "white" else "paper"
    attributes = dict(zip(ATTRIBUTES, (own, 0, 2, 2, ATTRIBUTES["background"].index(background))))
    image = flower_drawing.draw_image(attributes, np.random.default_rng(own))
    y, x = np.mgrid[:256, :256]
    petals = image[np.abs(np.hypot(x - 128, y - 116.5) - 56) < 8].astype(float)
    base = np.array([flower_drawing.PETAL_COLORS[name] for name in names], float)
    shares = (np.linalg.norm(petals[:, None] - base, axis=-1) < 60).mean(axis=0)
    assert shares[own] > 0.4  # the rest is shadow and shine
    assert np.delete(shares, own).max() < 0.1
    assert shares[own] > 8 * np.delete(shares, own).max()


def _strongest_fold(image, center, radii):
    """Which n-fold symmetry a ring of the picture has: the peak of its angular spectrum."""
    angles = np.linspace(0, 2 * np.pi, 512, endpoint=False)
    spectrum = 0
    for radius in radii:
        x = np.rint(center[0] + radius * np.cos(angles)).astype(int)
        y = np.rint(center[1] + radius * np.sin(angles)).astype(int)
        signal = image[y, x].astype(float)
        spectrum = spectrum + np.abs(np.fft.rfft(signal - signal.mean(axis=0), axis=0)).sum(axis=1)
    return 3 + spectrum[3:16].argmax()


@pytest.mark.parametrize("count", [6, 7, 9, 12])
def test_slender_petals_can_be_counted_on_the_picture(count):
    class Middle:  # the middle of every range, so that the flower's place is known
        def __init__(self):
            self.rng = np.random.default_rng(count)

        def uniform(self, low=0.0, high=1.0, size=None):
            return np.full(size, (low + high) / 2) if size else (low + high) / 2

        def __getattr__(self, name):
            return getattr(self.rng, name)

    white_on_soil = dict(zip(ATTRIBUTES, (3, 2, count - 4, 3, 2)))
    image = flower_drawing.draw_image(white_on_soil, Middle())
    assert _strongest_fold(image, (128, 0.455 * 256), range(60, 76, 2)) == count


def test_captions_say_what_mentions_say_and_it_is_true(flowers):
    names = list(ATTRIBUTES)
    for flower in flowers:
        assert flower.mentions.shape == (10, 5) and flower.mentions.dtype == bool
        assert len(flower.captions) == 10
        for caption, mentioned in zip(flower.captions, flower.mentions):
            expected = {name: flower.attributes[name] for name, m in zip(names, mentioned) if m}
            assert named_attributes(caption) == expected, caption


def test_captions_suit_the_text_encoder(flowers):
    captions = [caption for flower in flowers for caption in flower.captions]
    assert all(20 <= len(caption) <= 200 for caption in captions)
    assert set("".join(captions)) <= ALPHABET
    assert not any("  " in caption or caption != caption.strip() for caption in captions)
    assert len(set(captions)) > 0.9 * len(captions)


def test_every_attribute_is_named_often(flowers):
    rates = np.mean([flower.mentions for flower in flowers], axis=(0, 1))
    np.testing.assert_allclose(rates, [0.77, 0.58, 0.54, 0.60, 0.54], atol=0.05)


@pytest.mark.parametrize("caption, expected", [
    ("A Purple flower with 5 round petals and a yellow centre",
     dict(petal_color="purple", petal_shape="rounded", petal_count="5", center_color="yellow")),
    ("its center is brown and the petals are white, on a green background",
     dict(petal_color="white", center_color="brown", background="foliage")),
    ("red petals on a green stem under a blue sky",
     dict(petal_color="red", background="sky")),
    ("a dozen narrow petals around a golden disc",
     dict(petal_shape="strap", petal_count="12", center_color="yellow")),
    ("a bird", {}),
])
def test_free_text_is_read(caption, expected):
    found = named_attributes(caption)
    assert {name: ATTRIBUTES[name][i] for name, i in found.items()} == expected


def test_a_word_means_one_value():
    for name, words in flower_drawing.WORDS.items():
        meanings = collections.Counter(word for value in words.values() for word in value)
        assert set(words) == set(ATTRIBUTES[name])
        assert max(meanings.values()) == 1, name


def test_test_classes_are_new_pairs_of_known_parts():
    test = set(flower_drawing.TEST_CLASS_NAMES)
    train = set(flower_drawing.CLASS_NAMES) - test
    assert len(test) == 6 and len(train) == 24
    shapes = collections.Counter(name.split("_")[0] for name in test)
    assert set(shapes.values()) == {2} and len(shapes) == 3
    assert len({name.split("_")[1] for name in test}) == 6
    assert len({name.split("_")[0] for name in train}) == 3
    assert len({name.split("_")[1] for name in train}) == 10


def test_load_gives_back_what_was_drawn(tmp_path):
    from stackgan_tf.datasets import drawn_flowers  # imports TensorFlow

    config = types.SimpleNamespace(data_dir=str(tmp_path), images_per_class=2)
    splits = {split: list(drawn_flowers.load(config, split).as_numpy_iterator())
              for split in ("train", "test")}
    assert [len(splits["train"]), len(splits["test"])] == [48, 12]
    labels = {split: {int(example["label"]) for example in examples}
              for split, examples in splits.items()}
    assert len(labels["train"]) == 24 and len(labels["test"]) == 6
    assert not labels["train"] & labels["test"]

    for example in splits["train"][::16] + splits["test"][-1:]:
        class_name, file_name = example["file_name"].decode().split("/")
        flower = make_flower(seed=0, index=int(file_name.removesuffix(".jpg")))
        assert flower_drawing.CLASS_NAMES[example["label"]] == class_name
        assert [caption.decode() for caption in example["captions"]] == list(flower.captions)
        assert example["attributes"] == flower.attributes
        np.testing.assert_array_equal(example["mentions"], flower.mentions)
        error = np.abs(example["image"].astype(float) - flower.image)  # of JPEG at quality 95
        assert example["image"].shape == (256, 256, 3) and example["image"].dtype == np.uint8
        assert error.mean() < 3

    again = drawn_flowers.load(config, "train").as_numpy_iterator()  # from the cache
    assert [example["file_name"] for example in again] == [e["file_name"] for e in splits["train"]]


def test_interrupted_drawing_is_not_taken_for_data(tmp_path, monkeypatch):
    from stackgan_tf.datasets import drawn_flowers

    config = types.SimpleNamespace(data_dir=str(tmp_path), images_per_class=1)
    draw = drawn_flowers._example

    def interrupted(index):
        if index == 20:
            raise KeyboardInterrupt
        return draw(index)

    monkeypatch.setattr(drawn_flowers, "_example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drawn_flowers.load(config, "train")
    monkeypatch.setattr(drawn_flowers, "_example", draw)
    (place,) = tmp_path.glob("drawn_flowers/*")
    for name, age in (("old", 4000), ("new", 0)):  # killed, and perhaps still at it
        left = place / f"incomplete.{name}_1.1.0"
        left.mkdir()
        (left / "shard").write_bytes(b"x")
        for path in (left / "shard", left):
            os.utime(path, (time.time() - age,) * 2)
    assert sum(1 for _ in drawn_flowers.load(config, "train")) == 24
    assert [path.name for path in place.glob("incomplete*")] == ["incomplete.new_1.1.0"]


def test_a_full_disk_while_they_are_drawn_is_one_line(tmp_path, monkeypatch):
    from stackgan_tf import build
    from stackgan_tf.config import UserError, resolve
    from stackgan_tf.datasets import drawn_flowers

    def full(*_):  # as TFDS passes on what TensorFlow says
        raise RuntimeError("ResourceExhaustedError: No space left on device\nMore\nlines")

    monkeypatch.setattr(drawn_flowers.DrawnFlowers, "download_and_prepare", full)
    config = resolve({"data_dir": str(tmp_path), "images_per_class": 1})
    with pytest.raises(UserError, match="No space left on device; give a --data_dir with room"):
        build.load_examples(config, "train")


@pytest.mark.parametrize("content", [b"", b"[]", b"\0\0\0", b'{"splits": 5}'])
def test_damaged_metadata_says_what_to_remove(tmp_path, content):
    from stackgan_tf import build
    from stackgan_tf.config import UserError, resolve

    config = resolve({"data_dir": str(tmp_path), "images_per_class": 1})
    build.load_examples(config, "train")
    (info,) = tmp_path.glob("drawn_flowers/*/*/dataset_info.json")
    info.write_bytes(content)
    with pytest.raises(UserError, match="drawn_flowers are damaged .*; remove that folder, and "):
        build.load_examples(config, "train")


@pytest.mark.parametrize("files, found, dataset", [
    (["captions.jsonl", "a.png"], "captions.jsonl", "folder"), (["a.JPG"], "a.JPG", "folder"),
    (["downloads/x.png", "in/a.webp"], "in/a.webp", "folder"), (["0.tar"], "0.tar", "webdataset"),
    (["prepared.json"], "prepared.json", "prepared"),
    (["train/filenames.pickle"], "train/filenames.pickle", "reed")])
def test_nothing_is_drawn_into_data_of_the_users(tmp_path, files, found, dataset):
    from stackgan_tf.datasets import drawn_flowers

    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    config = types.SimpleNamespace(data_dir=str(tmp_path), images_per_class=1)
    with pytest.raises(ValueError, match=f"holds {found}, and .*; add --dataset={dataset}"):
        drawn_flowers.load(config, "train")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_home_no_folder_is_named_after_it(tmp_path, monkeypatch):
    from stackgan_tf import disk

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ValueError, match="no home folder to keep data sets in; give --data_dir"):
        disk.tfds_folder("")
    assert disk.tfds_folder("here") == "here"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert disk.tfds_folder("") is None


def test_a_cache_of_other_data_sets_is_no_data_of_the_users(tmp_path):
    from stackgan_tf.datasets import drawn_flowers

    for file in ("downloads/mnist/a.gz", "mnist/3.0.1/mnist-train.tfrecord", "downloads/a.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).write_bytes(b"")
    config = types.SimpleNamespace(data_dir=str(tmp_path), images_per_class=1)
    assert sum(1 for _ in drawn_flowers.load(config, "test")) == 6
    (tmp_path / "a.png").write_bytes(b"")  # they are drawn already: nothing is written
    assert sum(1 for _ in drawn_flowers.load(config, "test")) == 6
