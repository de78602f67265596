"""What an evaluation is made of, tiny and known by heart: a run, its data, what reads both."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import (
    build,
    checkpoint,
    evaluation,
    features,
    flower_drawing,
    images,
    readings,
)
from stackgan_tf.attribute_classifier import ATTRIBUTES


class Copyist(keras.Model):
    """A fake stage: the caption's embedding is a picture number, the picture is what comes out."""

    def __init__(self, pictures):
        super().__init__()
        self.table = self.add_weight(name="table", shape=pictures.shape, trainable=False)
        self.table.assign(pictures)

    def call(self, inputs):
        return tf.gather(self.table, tf.cast(inputs["embeddings"][:, 0], tf.int32))


class FakeJudge:
    """Reads the attributes from the first pixels, where the test has written them."""

    accuracy = {name: 1.0 for name in (*ATTRIBUTES, "mean")}
    key = "fake"

    def read(self, pictures):
        assert pictures.shape[1:] == (64, 64, 3) and pictures.dtype == np.uint8
        return pictures[:, 0, :5, 0].astype(int) // 20


class FakeNetwork:
    """The same pixels as features and as logits; counts what it has read, and can be stopped."""

    name, key, weights, resize, is_inception = "fake", "fake-1", "0123", "clean", False

    def __init__(self, stop_after=None):
        self.seen, self.stop_after = 0, stop_after

    def read(self, pictures):
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(pictures)
        values = pictures[:, 0, :5, 0].astype(np.float32) / 50
        return {"features": values, "logits": values}


class FakeSpace:
    """For what is refused before anything is read."""

    def __init__(self, path, remedy):
        pass

    @staticmethod
    def missing(part):
        return ""


def write_run(root, pictures, captions, size, config):
    """A run whose text encoder knows each caption by heart."""
    part = root / "run" / ("stage1" if size == 64 else "stage2")
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(
        tf.constant(captions), tf.range(len(captions), dtype=tf.int64)), -1)
    checkpoint.export(str(root / "run/text_encoder/saved_model"), [table], {"serve": (
        lambda c: {"embeddings": tf.cast(table.lookup(c), tf.float32)[:, None] + tf.zeros([1, 2])},
        [tf.TensorSpec([None], tf.string, "captions")])})
    model = Copyist(pictures)
    model({"embeddings": np.zeros((1, 2), np.float32)})
    spec = {"noise": tf.TensorSpec([None, 3], tf.float32, "noise"),
            "embeddings": tf.TensorSpec([None, 2], tf.float32, "embeddings")}
    checkpoint.export(str(part / "saved_model"), [model],
                      {"serve": (lambda x: {"images": model(x)}, [spec])}, step=1000)
    (part / "config.json").write_text(json.dumps(config))
    return part


class FakeExamples:
    """12 pictures, ten captions each."""

    embeddings = labels = None

    def __init__(self, count=12, size=64):
        rng = np.random.default_rng(0)
        self.captions = [[f"caption {i} {j}" for j in range(10)] for i in range(count)]
        self.extra = {f"attributes/{name}": rng.integers(len(values), size=count)
                      for name, values in flower_drawing.ATTRIBUTES.items()}
        self.extra["mentions"] = rng.random((count, 10, 5)) < 0.6
        self.images = images.to_uint8(self.pictures(size)[::10])

    def pictures(self, size):
        """float (10 N, size, size, 3): the attributes of each caption's picture in its corner."""
        values = np.stack([self.extra[f"attributes/{name}"] for name in ATTRIBUTES], 1)
        made = np.zeros((len(values), size, size, 3), np.float32)
        block = size // 64
        for i in range(5):
            made[:, :block, i * block:(i + 1) * block] = values[:, i, None, None, None] * 20 + 2
        return np.repeat(made / 127.5 - 1.0, 10, axis=0)


CONFIG = {"dataset": "drawn_flowers", "data_dir": "", "field_of_an_older_version": 1}


@pytest.fixture
def obeying(tmp_path, monkeypatch):
    """obeying(stop_after=None, **options) -> (records, the network): of a run that draws the very
    picture of each caption, in chunks of 10."""
    examples = FakeExamples()
    monkeypatch.setattr(build, "load_examples", lambda *_: examples)
    monkeypatch.setattr(readings, "CHUNK", 10)
    captions = [c for row in examples.captions for c in row]
    write_run(tmp_path, examples.pictures(64), captions, 64, CONFIG)

    def run(stop_after=None, **options):
        network = FakeNetwork(stop_after)
        with monkeypatch.context() as patch:
            patch.setattr(features, "small_network", lambda resize: network)
            return evaluation.evaluate(str(tmp_path), "run", judge=FakeJudge(), **options), network
    return run
