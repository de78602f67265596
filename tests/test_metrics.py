"""Each metric against what can be worked out by hand, by loops, or by a closed form."""

import numpy as np
import pytest

from stackgan_tf import bootstrap
from stackgan_tf.metrics import (
    diversity,
    frechet_distance,
    inception_score,
    kid,
    precision_recall,
    r_precision,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --------------------------------------------------------------------------- intervals


def test_resamples_have_as_many_rows():
    counts = bootstrap.counts(50, 300, seed=1)
    assert counts.shape == (300, 50) and (counts.sum(1) == 50).all() and counts.min() == 0
    # each count is binomial: 50 draws of probability 1/50, so variance 0.98
    assert counts.var() == pytest.approx(0.98, abs=0.05)


def test_interval_of_a_mean_is_the_textbook_one():
    values = normal(4000)
    made = bootstrap.mean("x", values)
    reach = 1.96 * values.std() / np.sqrt(4000)
    assert made["x"] == pytest.approx(values.mean())
    assert made["x/high"] - made["x"] == pytest.approx(reach, rel=0.2)
    assert made["x"] - made["x/low"] == pytest.approx(reach, rel=0.2)


def test_interval_of_a_share_is_wilsons():
    """statsmodels, proportion_confint(method="wilson"), of 10 of 10 and of 9 of 10."""
    for hits, low, high in ((10, 0.722467, 1.0), (9, 0.595850, 0.982124), (0, 0.0, 0.277533)):
        made = bootstrap.share("x", [1] * hits + [0] * (10 - hits))
        assert made["x"] == hits / 10
        assert (made["x/low"], made["x/high"]) == pytest.approx((low, high), abs=2e-5)
    for rows in range(1, 3000):  # not 1.0000000000000002
        assert bootstrap.share("x", np.ones(rows))["x/high"] <= 1
        assert bootstrap.share("x", np.zeros(rows))["x/low"] >= 0


def test_where_all_resamples_are_the_same_the_interval_is_not_known():
    for value in (0.0, 0.3):
        made = bootstrap.mean("x", np.full(120, value), low=0.0)
        assert made["x"] == pytest.approx(value) and made["x/low"] is made["x/high"] is None
    same = np.tile(normal(1, 4), (40, 1))  # a generator that always draws one picture
    for metric, name in ((kid, "kid"), (frechet_distance, "frechet_distance")):
        made = metric.compute(normal(50, 4, seed=1), same)
        assert np.isfinite(made[name]) and made[f"{name}/low"] is made[f"{name}/high"] is None


@pytest.mark.parametrize("metric, name", [(kid, "kid"), (frechet_distance, "frechet_distance")])
def test_interval_is_as_wide_as_the_values_scatter(metric, name):
    real = normal(300, 4, seed=99)
    made = [metric.compute(real, 1.2 * normal(200, 4, seed=seed) + 0.3, replicates=30)
            for seed in range(60)]
    scatter = 1.96 * np.std([one[name] for one in made])
    reach = np.mean([one[f"{name}/high"] - one[f"{name}/low"] for one in made]) / 2
    assert 0.6 < reach / scatter < 1.5


# --------------------------------------------------------------------------- Frechet distance


def test_distance_of_gaussians_of_independent_numbers():
    mean1, mean2 = np.array([1.0, 2.0, 3.0]), np.array([0.0, 4.0, 3.0])
    variance1, variance2 = np.array([1.0, 4.0, 9.0]), np.array([9.0, 4.0, 0.25])
    value = frechet_distance.of_gaussians(mean1, np.diag(variance1), mean2, np.diag(variance2))
    # 1 + 4 + 0, and (1 - 3)^2 + (2 - 2)^2 + (3 - 0.5)^2
    assert value == pytest.approx(5 + 4 + 0 + 6.25)


def test_distance_of_gaussians_whose_axes_differ():
    covariance1 = np.array([[2.0, 1.0], [1.0, 2.0]])
    covariance2 = np.array([[3.0, -1.0], [-1.0, 1.0]])
    product = covariance1 @ covariance2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))  # of a 2x2 matrix
    zero = np.zeros(2)
    value = frechet_distance.of_gaussians(zero, covariance1, zero, covariance2)
    assert value == pytest.approx(4 + 4 - 2 * root)


def test_distance_to_a_moved_and_scaled_copy():
    real = normal(500, 3) * [1, 2, 3] + [4, 5, 6]
    made = frechet_distance.compute(real, 1.5 * real + [1, 0, 0])
    mean, covariance = real.mean(0), np.cov(real, rowvar=False)
    expected = np.square(0.5 * mean + [1, 0, 0]).sum() + 0.25 * np.trace(covariance)
    assert made["frechet_distance"] == pytest.approx(expected)
    assert made["frechet_distance/low"] < expected < made["frechet_distance/high"]


def test_distance_to_itself_is_0_even_of_fewer_rows_than_numbers():
    few = normal(10, 40)
    made = frechet_distance.compute(few, few[::-1])
    assert made["frechet_distance"] == pytest.approx(0, abs=1e-4)


# --------------------------------------------------------------------------- KID


def kernel(x, y):
    return (float(np.dot(x, y)) / len(x) + 1) ** 3


def kid_by_loops(real, fake):
    within = [np.mean([kernel(one[i], one[j]) for i in range(len(one)) for j in range(len(one))
                       if i != j]) for one in (real, fake)]
    return sum(within) - 2 * np.mean([[kernel(x, y) for y in fake] for x in real])


@pytest.mark.parametrize("rows", [1024, 3])  # in one piece and in several
def test_kid_by_loops(rows, monkeypatch):
    monkeypatch.setattr(kid, "ROWS", rows)
    real, fake = normal(7, 5), normal(8, 5, seed=1) + 0.5
    assert kid.compute(real, fake)["kid"] == pytest.approx(kid_by_loops(real, fake), rel=1e-4)


@pytest.mark.parametrize("rows", [1024, 3])
def test_pairs_of_a_resample_by_loops(rows, monkeypatch):
    monkeypatch.setattr(kid, "ROWS", rows)
    fake, counts = normal(8, 5), np.array([2, 0, 1, 1, 3, 0, 0, 1])
    drawn = np.repeat(np.arange(8), counts)  # a row that is there twice is no pair with itself
    pairs = [kernel(fake[i], fake[j]) for i in drawn for j in drawn if i != j]
    made = kid._pairs(np.float32(fake), counts[None])
    assert made[0] == pytest.approx(np.mean(pairs), rel=1e-5)


def test_kid_of_equal_distributions_is_0_on_average():
    values = [kid.compute(normal(40, 6, seed=2 * i), normal(60, 6, seed=2 * i + 1),
                          replicates=2)["kid"] for i in range(200)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_of_a_handful_of_pictures_the_interval_is_not_known():
    """Half of the resamples of two have one of them twice, and so no pair; the others differ in
    nothing, as if that were certain."""
    for rows in (2, 5):
        made = kid.compute(normal(9, 3), normal(rows, 3, seed=1))
        assert np.isfinite(made["kid"]) and made["kid/low"] is made["kid/high"] is None
    assert kid.compute(normal(9, 3), normal(12, 3, seed=1))["kid/low"] is not None


@pytest.mark.parametrize("metric, rows", [(kid, 2), (frechet_distance, 2), (precision_recall, 6)])
def test_features_that_do_not_fit_are_refused(metric, rows):
    for real, fake in ((normal(9, 3), normal(9, 4)), (normal(9, 3), normal(rows - 1, 3)),
                       (normal(rows - 1, 3), normal(9, 3)), (normal(9), normal(9))):
        with pytest.raises(ValueError, match=f"are no two sets of at least {rows} rows"):
            metric.compute(real, fake)
    metric.compute(normal(rows, 3), normal(9, 3, seed=1))
    for one in (np.nan, np.inf):
        bad = normal(9, 3)
        bad[4, 1] = one
        for real, fake in ((bad, normal(9, 3, seed=1)), (normal(9, 3, seed=1), bad)):
            with pytest.raises(ValueError, match="not finite"):
                metric.compute(real, fake)


# --------------------------------------------------------------------------- Inception Score


def test_score_of_uniform_predictions_is_1():
    made = inception_score.compute(np.full((100, 7), 3.0))
    assert made["inception_score"] == pytest.approx(1)
    assert made["inception_score/split_std"] == pytest.approx(0)


def test_score_of_sure_and_balanced_predictions_is_the_number_of_classes():
    made = inception_score.compute(1000.0 * np.eye(7)[np.arange(700) % 7])
    assert made["inception_score"] == pytest.approx(7)
    assert made["inception_score/low"] == pytest.approx(7, abs=0.2)  # resamples are not balanced


def test_score_of_two_predictions_by_hand():
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = [0.55, 0.45]
    divergence = np.mean([sum(q * np.log(q / m) for q, m in zip(row, mean)) for row in p])
    made = inception_score.compute(np.log(p), splits=1)
    assert made["inception_score"] == pytest.approx(np.exp(divergence))


def test_parts_are_cut_as_in_the_original_where_ten_does_not_divide():
    """openai/improved-gan: part i is preds[i * N // splits:(i + 1) * N // splits]."""
    p = np.random.default_rng(0).dirichlet(np.full(5, 0.3), 57)
    parts = [p[i * 57 // 10:(i + 1) * 57 // 10] for i in range(10)]
    scores = [np.exp(np.mean(np.sum(q * (np.log(q) - np.log(q.mean(0))), 1))) for q in parts]
    made = inception_score.compute(np.log(p))
    assert made["inception_score"] == pytest.approx(np.mean(scores))
    assert made["inception_score/split_std"] == pytest.approx(np.std(scores))


def test_score_splits_in_order():
    sure = 1000.0 * np.eye(4)[np.repeat(np.arange(4), 5)]  # each quarter is of one class
    assert inception_score.compute(sure, splits=4)["inception_score"] == pytest.approx(1)
    assert inception_score.compute(sure, splits=1)["inception_score"] == pytest.approx(4)
    with pytest.raises(ValueError, match="of at least 20 rows, two a split"):
        inception_score.compute(sure[:19])


# --------------------------------------------------------------------------- precision, recall


@pytest.mark.parametrize("rows", [1024, 3])
def test_precision_recall_density_coverage_by_hand(rows, monkeypatch):
    monkeypatch.setattr(precision_recall, "ROWS", rows)
    real = np.array([[0.0], [1], [3], [10]])  # radii to the nearest other: 1, 1, 2, 7
    fake = np.array([[0.5], [5], [20], [21]])  # 4.5, 4.5, 1, 1
    made = precision_recall.compute(real, fake, k=1, density_k=1)
    assert made["precision"] == 2 / 4  # 0.5 in the balls of 0 and 1, 5 on the edge of 3's
    assert made["density"] == (2 + 1) / 4  # 5 in the ball of 10; on an edge is not in it
    assert made["coverage"] == 3 / 4  # all but the ball of 3
    assert made["recall"] == 3 / 4  # 10 is 5 from 5
    assert 0 <= made["precision/low"] <= 0.5 <= made["precision/high"] <= 1


def test_a_set_is_all_of_itself_and_nothing_of_one_far_away():
    real = normal(60, 4)
    same = precision_recall.compute(real, real.copy())
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    assert same["density"] == pytest.approx(1)  # each in its own ball, and 4 others in that
    far = precision_recall.compute(real, real + 100)
    assert far["precision"] == far["recall"] == far["density"] == far["coverage"] == 0


def test_one_kind_of_picture_is_precise_and_recalls_little():
    real = np.concatenate([normal(50, 3), normal(50, 3, seed=1) + 100])
    made = precision_recall.compute(real, normal(100, 3, seed=2))
    assert made["precision"] > 0.8 and 0.3 < made["recall"] < 0.5 and made["coverage"] <= 0.5


# --------------------------------------------------------------------------- R-precision


def test_r_precision_by_hand():
    captions = np.array([[1.0, 0], [0, 1], [0.6, 0.8]])
    pictures = np.array([[1.0, 0.2], [1, 0], [0.5, 0.9]])
    own, others = np.array([0, 1, 2]), np.array([[1, 2], [0, 2], [0, 1]])
    # scores: 1, .2, .76: right. 0 of caption 1 against 1: wrong. 1.02 against .5, .9: right
    made = r_precision.compute(pictures, captions, own, others)
    assert made["r_precision"] == pytest.approx(2 / 3)


def test_r_precision_of_pictures_that_are_all_alike_is_chance():
    captions = normal(200, 8)
    others = r_precision.choose_others(np.arange(200), [f"c{i}" for i in range(200)], 99)
    zeros = r_precision.compute(np.zeros((200, 8)), captions, np.arange(200), others)
    assert zeros["r_precision"] == pytest.approx(0.01)
    same = r_precision.compute(np.tile(normal(1, 8, seed=1), (200, 1)), captions, np.arange(200),
                               others)
    assert same["r_precision"] < 0.06


def test_others_are_of_other_pictures_and_other_words():
    pictures = np.array([0, 0, 1, 2, 3, 4])
    texts = ["a", "b", "a", "c", "c", "d"]
    chosen = r_precision.choose_others(pictures, texts, 2, seed=3)
    assert chosen.shape == (6, 2)
    for row, others in enumerate(chosen):
        assert len({texts[i] for i in others}) == 2
        assert all(pictures[i] != pictures[row] and texts[i] != texts[row] for i in others)
    assert set(chosen[0]) == {3, 5}  # "b" is of the same picture, the other "a" the same words
    with pytest.raises(ValueError, match="compared with 3 others, and 2 are there"):
        r_precision.choose_others(pictures, texts, 3)
    assert r_precision.fewest_others(pictures, texts) == 2


def test_no_other_caption_of_the_picture_is_among_the_wrong_ones():
    # "a" stands for the first time under picture 0, and under 1 too, which is asked with "b"
    pictures, texts = np.array([0, 1, 1, 2]), ["a", "a", "b", "c"]
    assert r_precision.choose_others(pictures, texts, 1)[2].tolist() == [3]
    assert r_precision.fewest_others(pictures, texts) == 1


def test_of_the_fewest_others_a_choice_can_be_made_and_of_one_more_not():
    rng = np.random.default_rng(0)
    for _ in range(50):
        pictures = rng.integers(5, size=12)
        texts = [f"c{i}" for i in rng.integers(8, size=12)]  # the same words of several pictures
        fewest = r_precision.fewest_others(pictures, texts)
        assert r_precision.choose_others(pictures, texts, fewest).shape == (12, fewest)
        with pytest.raises(ValueError):
            r_precision.choose_others(pictures, texts, fewest + 1)


# --------------------------------------------------------------------------- diversity


def test_diversity_by_hand():
    fake = np.array([[[0.0, 0], [3, 4], [0, 0]], [[1, 1], [1, 1], [1, 1]]])
    real = np.array([[0.0, 0], [0, 10]])
    made = diversity.compute(fake, real)
    assert made["diversity/within"] == pytest.approx((10 / 3 + 0) / 2)  # 5, 0, 5; and 0 three times
    assert made["diversity/among_real"] == 10
    assert made["diversity"] == pytest.approx(1 / 6)


def test_pictures_that_ignore_the_caption_are_as_diverse_as_the_data():
    made = diversity.compute(normal(50, 6, 4), normal(300, 4, seed=1))
    assert made["diversity/low"] < 1 < made["diversity/high"]
    with pytest.raises(ValueError, match="no distance to another"):
        diversity.compute(normal(3, 1, 4), normal(9, 4))
