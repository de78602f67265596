"""Losses against numbers computed elsewhere."""

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import losses

REAL = tf.constant([-5.0, 1.4, 12.5, 2.7])
FAKE = tf.constant([10.0, 4.4, -5.5, 3.6])


@pytest.mark.parametrize("name, discriminator, generator", [
    ("non_saturating", 5.833866, 1.385821),
    ("least_squares", 41.73375, 17.69625),
    ("wasserstein", 0.225, -3.125),
    ("hinge", 6.75, -3.125),
])
def test_values(name, discriminator, generator):
    d_loss, g_loss = losses.LOSSES[name]
    assert float(d_loss(REAL, FAKE)) == pytest.approx(discriminator, rel=1e-5)
    assert float(g_loss(FAKE)) == pytest.approx(generator, rel=1e-5)


def test_matching_aware_weights():
    """One real and two kinds of fakes joined: real + (fake + wrong) / 2, as the paper has it."""
    wrong = tf.constant([0.3, -1.0, 2.0, 0.5])
    joined = losses.non_saturating_discriminator_loss(REAL, tf.concat([FAKE, wrong], 0))

    def bce(logits, target):  # an independent form
        p = 1 / (1 + np.exp(-np.float64(logits)))
        return -np.mean(np.log(p) if target else np.log(1 - p))

    expected = bce(REAL, 1) + 0.5 * (bce(FAKE, 0) + bce(wrong, 0))
    assert float(joined) == pytest.approx(expected, rel=1e-5)


def test_losses_are_finite_far_out():
    for d_loss, g_loss in losses.LOSSES.values():
        far = tf.constant([-1e4, 1e4])
        assert np.isfinite(d_loss(far, far)) and np.isfinite(g_loss(far))


def test_r1_of_a_known_gradient():
    """D(x) = a.x has the gradient a everywhere: the penalty is |a|^2 / 2."""
    a = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    assert float(losses.r1_penalty(tf.repeat(a[None], 5, axis=0))) == pytest.approx(
        0.5 * np.sum(a**2), rel=1e-5)


def test_kl_is_the_closed_form():
    """KL(N(m, s^2) || N(0, 1)) = log(1/s) + (s^2 + m^2)/2 - 1/2, by numerical integration."""
    mean, log_sigma = 0.7, -0.4
    x = np.linspace(-12, 12, 200_001)
    sigma = np.exp(log_sigma)
    p = np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
    log_ratio = -log_sigma - 0.5 * ((x - mean) / sigma) ** 2 + 0.5 * x**2
    expected = np.sum(p * log_ratio) * (x[1] - x[0])
    value = losses.kl_divergence(tf.fill([3, 2], mean), tf.fill([3, 2], log_sigma))
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_mode_seeking_is_one_over_the_distance():
    """Of two captions, whose pictures are 0.5 and 1 apart: (1/0.5 + 1/1) / 2, but for the bound."""
    one = tf.random.uniform([2, 8, 8, 3], -0.5, 0.5, seed=0)
    signs = tf.sign(tf.random.uniform([2, 8, 8, 3], -1, 1, seed=1))
    other = one + signs * tf.constant([0.5, 1.0])[:, None, None, None]
    expected = (1 / 0.51 + 1 / 1.01) / 2
    assert float(losses.mode_seeking_loss(one, other)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.mode_seeking_loss(one, one)) == pytest.approx(100.0, rel=1e-4)


def test_the_sketch_leaves_details_free():
    """A shift of 0.5 counts 0.25; what averages out within an 8x8 square counts nothing."""
    sketch = tf.random.uniform([2, 64, 64, 3], -1, 1, seed=0)
    picture = tf.repeat(tf.repeat(sketch, 4, 1), 4, 2)  # 256x256
    stripes = tf.reshape(tf.tile([0.7, -0.7], [128]), [1, 256, 1, 1])
    assert float(losses.sketch_distance(picture, sketch)) == pytest.approx(0.0, abs=1e-10)
    assert float(losses.sketch_distance(picture + stripes, sketch)) == pytest.approx(0, abs=1e-10)
    assert float(losses.sketch_distance(picture + 0.5, sketch)) == pytest.approx(0.25, rel=1e-5)
