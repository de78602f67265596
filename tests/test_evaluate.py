"""evaluate.py, its metric and its classifier: on numbers worked out by hand and tiny data."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import attribute_classifier, checkpoint, evaluate, flower_drawing
from stackgan_tf.attribute_classifier import ATTRIBUTES
from stackgan_tf.config import UserError
from stackgan_tf.metrics import attribute_accuracy


def test_metric_counts_only_what_a_caption_names():
    result = attribute_accuracy.compute(
        predicted=[[0, 1, 2], [0, 1, 2], [1, 1, 2], [1, 0, 2]],
        true=[[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]],
        mentions=[[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], names=("a", "b", "c"))
    # a: named in rows 0-2, right in 0 and 2. b: named in 0, 2 and 3, right in 0 and 3.
    # chance of a: half the pictures show 0, half 1, so 1/2 whatever is named;
    # of b: 1 (shown by 3/4) is named once, 0 (shown by 1/4) twice: (3/4 + 2 * 1/4) / 3 = 5/12.
    assert result == pytest.approx({
        "accuracy/a": 2 / 3, "chance/a": 1 / 2, "count/a": 3, "accuracy/b": 2 / 3,
        "chance/b": 5 / 12, "count/b": 3, "accuracy/mean": 2 / 3, "chance/mean": 11 / 24})


def test_metric_of_shuffled_pictures_falls_to_chance():
    rng = np.random.default_rng(0)
    true = rng.choice(5, (20_000, 2), p=[0.4, 0.3, 0.1, 0.1, 0.1])
    mentions = rng.random(true.shape) < 0.5
    perfect = attribute_accuracy.compute(true, true, mentions, ("a", "b"))
    shuffled = attribute_accuracy.compute(rng.permutation(true), true, mentions, ("a", "b"))
    assert perfect["accuracy/a"] == perfect["accuracy/mean"] == 1.0
    for name in "ab":  # 0.4^2 + 0.3^2 + 3 * 0.1^2 = 0.28
        assert shuffled[f"chance/{name}"] == pytest.approx(0.28, abs=0.01)
        assert shuffled[f"accuracy/{name}"] == pytest.approx(0.28, abs=0.02)


def test_metric_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="do not fit together"):
        attribute_accuracy.compute(np.zeros((3, 2)), np.zeros((3, 2)), np.zeros((3, 1)), ("a", "b"))


def test_pairs_are_spread_repeatable_and_distinct():
    pictures, places = evaluate.choose_pairs([2, 3, 2], 5, seed=1)
    assert sorted(pictures[:3]) == [0, 1, 2] and len(set(zip(pictures, places))) == 5
    again = evaluate.choose_pairs([2, 3, 2], 5, seed=1)
    assert (again[0] == pictures).all() and (again[1] == places).all()
    assert len(evaluate.choose_pairs([2, 3, 2], 1000, seed=1)[0]) == 7


def test_shrinking_takes_the_mean_of_each_block():
    picture = np.zeros((1, 256, 256, 3), np.uint8)
    picture[0, :4, :4] = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10  # mean 75
    small = evaluate.shrink(picture)
    assert small.shape == (1, 64, 64, 3)
    assert (small[0, 0, 0] == 75).all() and small[0].sum() == 3 * 75


def test_views_undo_no_mirror_or_turn():
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    model = attribute_classifier.AttributeClassifier(width=4)
    plain = attribute_classifier.views(model, pictures)
    turned = attribute_classifier.views(model, np.rot90(pictures, axes=(1, 2)))
    for name in ATTRIBUTES:
        np.testing.assert_allclose(plain[name], turned[name], atol=1e-5)


def test_turns_are_crops_by_quarters():
    pictures = tf.constant(np.random.default_rng(0).uniform(-1, 1, (30, 66, 66, 3)), tf.float32)
    turned = attribute_classifier._turn(pictures, [0, 1], [0, 2]).numpy()
    seen = set()
    for picture, result in zip(pictures.numpy(), turned):
        found = [(k, m, y, x) for k in range(4) for m in (1, -1) for y in range(3)
                 for x in range(3) if np.isclose(
                     result, np.rot90(picture[y:y + 64, x:x + 64], k)[:, ::m], atol=1e-4).all()]
        assert len(found) == 1
        seen.add(found[0])
    assert len({k for k, *_ in seen}) == 4 and len({m for _, m, *_ in seen}) == 2
    assert {y for *_, y, _ in seen} == {x for *_, x in seen} == {0, 1, 2}


def test_classifier_learns_a_few_drawings():
    pictures, values = attribute_classifier.draw(flower_drawing.CLASS_NAMES[::5], 2, 76)
    model = attribute_classifier.train(pictures, values, steps=60)
    logits = attribute_classifier.views(
        model, pictures[:, 6:70, 6:70].astype(np.float32) / 127.5 - 1.0)
    right = [np.mean(np.argmax(logits[name], -1) == values[:, i])
             for i, name in enumerate(ATTRIBUTES)]
    assert right[0] > 0.8 and right[4] > 0.8 and np.mean(right) > 0.6


# --------------------------------------------------------------------------- the whole of it


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

    def read(self, pictures):
        assert pictures.shape[1:] == (64, 64, 3) and pictures.dtype == np.uint8
        return pictures[:, 0, :5, 0].astype(int) // 20


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
    def __init__(self, count):
        rng = np.random.default_rng(0)
        self.captions = [[f"caption {i} {j}" for j in range(10)] for i in range(count)]
        self.extra = {f"attributes/{name}": rng.integers(len(values), size=count)
                      for name, values in flower_drawing.ATTRIBUTES.items()}
        self.extra["mentions"] = rng.random((count, 10, 5)) < 0.6

    def pictures(self, size):
        """float (10 N, size, size, 3): the attributes of each caption's picture in its corner."""
        values = np.stack([self.extra[f"attributes/{name}"] for name in ATTRIBUTES], 1)
        made = np.zeros((len(values), size, size, 3), np.float32)
        block = size // 64
        for i in range(5):
            made[:, :block, i * block:(i + 1) * block] = values[:, i, None, None, None] * 20 + 2
        return np.repeat(made / 127.5 - 1.0, 10, axis=0)


CONFIG = {"dataset": "drawn_flowers", "data_dir": "", "field_of_an_older_version": 1}


@pytest.mark.parametrize("size", [64, 128])
def test_a_generator_that_obeys_scores_1_and_one_that_does_not_chance(tmp_path, monkeypatch, size):
    examples = FakeExamples(12)
    monkeypatch.setattr(evaluate.build, "load_examples", lambda config, split: examples)
    captions = [c for row in examples.captions for c in row]
    part = write_run(tmp_path, examples.pictures(size), captions, size, CONFIG)
    record = evaluate.evaluate(str(tmp_path), "run", count=100, judge=FakeJudge())
    assert record["accuracy/mean"] == 1.0 and record["count"] == 100 and record["step"] == 1000
    assert record["stage"] == (1 if size == 64 else 2)

    wrong = np.random.default_rng(0).permutation(examples.pictures(size))
    write_run(tmp_path / "wrong", wrong, captions, size, CONFIG)
    shuffled = evaluate.evaluate(str(tmp_path / "wrong"), "run", count=120, judge=FakeJudge())
    assert shuffled["accuracy/mean"] == pytest.approx(shuffled["chance/mean"], abs=0.1)

    evaluate.evaluate(str(tmp_path), "run", count=1000, judge=FakeJudge())  # 120 captions in all
    lines = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert [line["count"] for line in lines] == [100, 120] and lines[0] == record
    assert evaluate.table(record).splitlines()[1].split()[:3] == ["petal_color", "1.000", "1.000"]


def test_other_data_sets_are_refused(tmp_path):
    write_run(tmp_path, np.zeros((1, 64, 64, 3)), ["a"], 64, {"dataset": "folder"})
    with pytest.raises(UserError, match="--dataset=folder; this score reads the attributes"):
        evaluate.evaluate(str(tmp_path), "run", judge=FakeJudge())
    with pytest.raises(UserError, match="train it with: .* --stage=2 --run=run"):
        evaluate.evaluate(str(tmp_path), "run", stage=2, judge=FakeJudge())


def test_judge_is_trained_once_and_again_when_it_does_not_fit(tmp_path, monkeypatch):
    trained = []

    def train(images, targets, steps, show):
        trained.append((images.shape, targets.shape, steps))
        model = attribute_classifier.AttributeClassifier(width=4)
        model(np.zeros((1, 64, 64, 3), np.float32))
        return model

    def judge(steps):
        return evaluate.Judge(str(tmp_path), str(tmp_path / "data"), images_per_class=1,
                              steps=steps)

    monkeypatch.setattr(attribute_classifier, "train", train)
    first, again = judge(2), judge(2)
    assert trained == [((30, 76, 76, 3), (30, 5), 2)]
    assert first.accuracy == again.accuracy and set(first.accuracy) == {*ATTRIBUTES, "mean"}
    pictures = np.random.default_rng(0).integers(0, 256, (11, 64, 64, 3)).astype(np.uint8)
    assert (first.read(pictures) == again.read(pictures)).all()
    assert again.read(pictures).shape == (11, 5)
    (tmp_path / "attribute_classifier/margin-0.1875/classifier.json").write_text("{")
    judge(2)
    judge(3)
    assert [steps for *_, steps in trained] == [2, 2, 3]
