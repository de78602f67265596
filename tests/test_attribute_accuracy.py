"""Attribute accuracy: the metric by hand, its classifier, and the judge that keeps one."""

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import attribute_classifier, attribute_judge, flower_drawing, run_folder
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


def test_classifier_learns_a_few_drawings(monkeypatch):
    monkeypatch.setattr(attribute_classifier, "BATCH_SIZE", 32)
    pictures, values = attribute_classifier.draw(flower_drawing.CLASS_NAMES[::5], 2, 76)
    model = attribute_classifier.train(pictures, values, steps=60)
    logits = attribute_classifier.views(
        model, pictures[:, 6:70, 6:70].astype(np.float32) / 127.5 - 1.0)
    right = [np.mean(np.argmax(logits[name], -1) == values[:, i])
             for i, name in enumerate(ATTRIBUTES)]
    assert right[0] > 0.8 and right[4] > 0.8 and np.mean(right) > 0.6


def test_judge_is_trained_once_and_again_when_it_does_not_fit(tmp_path, monkeypatch):
    trained = []

    def train(images, targets, steps, show):
        trained.append((images.shape, targets.shape, steps))
        model = attribute_classifier.AttributeClassifier(width=4)
        model(np.zeros((1, 64, 64, 3), np.float32))
        return model

    def judge(steps):
        return attribute_judge.Judge(str(tmp_path), str(tmp_path / "data"), images_per_class=1,
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
    model = tmp_path / "attribute_classifier/margin-0.1875/saved_model"
    (model / "variables/variables.index").write_bytes(b"")
    judge(3)
    assert [steps for *_, steps in trained] == [2, 2, 3, 3]
    with run_folder.lock(str(model.parent / "lock"), "taken"):
        judge(3)  # which is there already
        with pytest.raises(UserError, match="another process is training .*margin-0.1875"):
            judge(4)
