"""DiffAugment against a plain NumPy form, and its derivatives against those of a matrix."""

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import augment, latents

SIZE = 16


def numbers(count, seed=0):
    return latents.uniform([seed, 1], [count, augment.NUMBERS])


def shifted(picture, down, right):
    out = np.zeros_like(picture)
    for i in range(len(picture)):
        for j in range(len(picture)):
            if 0 <= i - down < len(picture) and 0 <= j - right < len(picture):
                out[i, j] = picture[i - down, j - right]
    return out


def with_hole(picture, row, column):
    """A square of half the side, its center at a corner of four pixels, is 0."""
    size, half = len(picture), len(picture) // 4
    out = picture.copy()
    out[max(0, row - half):min(size, row + half), max(0, column - half):column + half] = 0
    return out


def plain(images, drawn):
    """Translation and cutout of square pictures, as the paper describes them."""
    size = images.shape[1]
    reach = size // 8
    steps = np.floor(drawn[:, 3:5] * (2 * reach + 1)).astype(int) - reach
    centers = np.floor(drawn[:, 5:] * (size + 1)).astype(int)
    moved = [shifted(picture, *step) for picture, step in zip(images, steps, strict=True)]
    return np.stack([with_hole(picture, *center)
                     for picture, center in zip(moved, centers, strict=True)])


def test_translation_and_cutout_are_the_numpy_form():
    images = np.random.default_rng(0).uniform(0.1, 1, (200, SIZE, SIZE, 3)).astype(np.float32)
    drawn = numbers(200)
    found = augment.augment(tf.constant(images), drawn, ("cutout", "translation")).numpy()
    np.testing.assert_array_equal(found, plain(images, drawn.numpy()))
    # of the places that a center can have, those near an edge leave more of the picture
    holes = (found == 0).all(-1).mean((1, 2))
    assert holes.max() >= 0.25 and holes.min() < 0.1


def test_color_is_the_formula():
    images = np.random.default_rng(1).uniform(-1, 1, (5, SIZE, SIZE, 3)).astype(np.float32)
    drawn = numbers(5).numpy()
    expected = []
    for picture, (brightness, saturation, contrast) in zip(images, drawn[:, :3], strict=True):
        picture = picture + (brightness - 0.5)
        gray = picture.mean(2, keepdims=True)
        picture = gray + 2 * saturation * (picture - gray)
        expected.append(picture.mean() + (0.5 + contrast) * (picture - picture.mean()))
    found = augment.augment(tf.constant(images), tf.constant(drawn), ("color",))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_policy_has_numbers_of_its_own():
    images, drawn = tf.ones([3, SIZE, SIZE, 3]), numbers(3).numpy()
    for policy, columns in (("color", range(3)), ("translation", (3, 4)), ("cutout", (5, 6))):
        other = 1 - drawn
        other[:, columns] = drawn[:, columns]
        np.testing.assert_array_equal(*(augment.augment(images, tf.constant(n), (policy,))
                                        for n in (drawn, other)))


@pytest.mark.parametrize("jit", [False, True])
def test_first_and_second_derivatives_are_those_of_the_matrix(jit):
    """With T as a matrix, f = sum((T x)^3) / 3 has the gradient g = T'(T x)^2, and |g|^2 / 2 the
    gradient T' (2 T x * (T g))."""
    size, drawn = 8, numbers(1, seed=4)
    drawn = tf.constant([[0.0, 0, 0, 0.9, 0.1, 0.2, 0.6]])  # down by 1, left by 1, a hole
    basis = np.eye(size * size * 3, dtype=np.float32).reshape(-1, size, size, 3)
    matrix = plain(basis, np.repeat(drawn.numpy(), len(basis), 0)).reshape(len(basis), -1).T
    assert 0 < matrix.sum() < len(basis)  # something stays, something goes
    x = np.random.default_rng(2).normal(size=size * size * 3)
    slope = matrix.T @ (matrix @ x) ** 2
    expected = matrix.T @ (2 * (matrix @ x) * (matrix @ slope))

    def derivatives(images, drawn):
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as inner:
                inner.watch(images)
                seen = augment.augment(images, drawn, ("translation", "cutout"))
                value = tf.reduce_sum(seen**3) / 3
            first = inner.gradient(value, images)
            penalty = tf.reduce_sum(first**2) / 2
        return first, outer.gradient(penalty, images)

    images = tf.constant(x.reshape(1, size, size, 3), tf.float32)
    first, second = tf.function(derivatives, jit_compile=jit)(images, drawn)
    np.testing.assert_allclose(np.ravel(first), slope, atol=1e-4)
    np.testing.assert_allclose(np.ravel(second), expected, rtol=1e-4, atol=1e-4)


def test_numbers_are_uniform_and_the_same_under_xla():
    drawn = latents.uniform([3, 9], [5000, 2]).numpy()
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, 10, (0, 1))
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(900)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.07
    compiled = tf.function(latents.uniform, jit_compile=True)(tf.constant([3, 9]), [5000, 2])
    np.testing.assert_array_equal(compiled, drawn)


@pytest.mark.parametrize("count", [1, 3, 17, 31, 257])
def test_the_largest_number_is_not_rounded_up_to_the_count(count):
    ends = tf.constant([0.0, 1 - 2.0**-24])
    assert augment._whole(ends, count).numpy().tolist() == [0, count - 1]
