"""What the train step makes of a batch before the networks see it."""

import numpy as np
import tensorflow as tf

from stackgan_tf.train_step import to_floats


def test_bytes_become_floats_and_what_is_marked_is_mirrored():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 8, 3)).astype(np.uint8)
    flips = np.array([True, False, True])
    batch = tf.function(to_floats)({"real_images": tf.constant(images), "flips": flips, "x": 7})
    expected = np.stack([images[0, :, ::-1], images[1], images[2, :, ::-1]]) / 127.5 - 1.0
    np.testing.assert_allclose(batch["real_images"], expected, atol=1e-6)
    assert batch["x"] == 7


def test_floats_are_left_as_they_are():
    images = tf.random.uniform([2, 4, 4, 3], -1, 1)
    np.testing.assert_array_equal(to_floats({"real_images": images})["real_images"], images)
