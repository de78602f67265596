"""generate.Generator: a picture is a function of its caption and seed alone."""

import types

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf.generate import Generator


def drawing(bad):
    """A stage of which in batches of n pictures row bad[n] and those behind it are rounded in
    another way."""
    def draw(noise):
        images = np.reshape(noise, [-1, 1, 1, 3]) * np.ones([1, 2, 2, 1], np.float32)
        images[bad.get(len(images), len(images)):] *= np.float32(1 + 1e-6)
        return {"images": tf.constant(images)}

    draw.structured_input_signature = (), {"noise": tf.TensorSpec([None, 3], tf.float32)}
    return draw


@pytest.mark.parametrize("bad, size", [
    ([{}], 8), ([{8: 6}], 4), ([{8: 7, 4: 1}], 1), ([{}, {8: 1}], 4), ([{4: 2}], 8)])
def test_no_row_of_a_batch_is_rounded_in_another_way(bad, size):
    """AVX2's kernels, for one, take the last two rows of eight otherwise than the first six."""
    generator = Generator.__new__(Generator)
    generator.functions = dict(enumerate(map(drawing, bad), 1))
    generator.saved = types.SimpleNamespace(inputs={"noise": tf.TensorSpec([None, 3], tf.float32)})
    assert generator.batch_size == size


def test_every_place_in_a_batch_draws_the_same(runs):
    generator = Generator(runs, "both")
    for stage in (1, 2):
        alone = generator.generate(["a red flower"], [7], stage)
        many = generator.generate(["a red flower"] * 17, [7] * 17, stage)
        assert (many == alone).all()
        inputs = {name: np.repeat(rows, 9, 0) for name, rows in generator.latents([7]).items()}
        made = generator._call({n: rows[:generator.batch_size] for n, rows in inputs.items()},
                               generator.embed(["a red flower"] * generator.batch_size), stage)
        assert (made == made[:1]).all()
