"""Random tensors as pure functions of a seed: nothing random is state, so a resume is exact."""

import math

import tensorflow as tf


def normal(seed, shape):
    """Standard normal float32 numbers that depend on `seed` and `shape` alone.

    Args:
        seed: int32 (2,), for instance (run seed, step).
        shape: static or dynamic shape.

    Box-Muller on raw Philox bits: `tf.random.stateless_normal` gives other numbers under XLA
    than outside it, the bits are the same in both.
    """
    bits = _bits(seed, tf.concat([[2], shape], 0))
    # +1 keeps the logarithm's argument above 0
    radius = tf.sqrt(-2.0 * tf.math.log((bits[0] + 1.0) * 2.0**-24))
    return radius * tf.cos(2.0 * math.pi * 2.0**-24 * bits[1])


def uniform(seed, shape):
    """float32 numbers in [0, 1), multiples of 2^-24, that depend on `seed` and `shape` alone."""
    return _bits(seed, shape) * 2.0**-24


def _bits(seed, shape):
    """Whole float32 numbers of 24 random bits, the most that float32 holds exactly."""
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=tf.uint32,
                                       alg="philox")
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32)


def draw(dims: dict[str, int], seed, batch_size):
    """{name: float32 (batch_size, dim)}, every tensor from its own part of the seed.

    Args:
        dims: {name: dim}; the order of the names matters.
        seed: int32 (2,).
    """
    seeds = tf.random.experimental.stateless_split(seed, len(dims), alg="philox")
    return {name: normal(seeds[i], [batch_size, dim]) for i, (name, dim) in enumerate(dims.items())}


def draw_each(dims: dict[str, int], seeds):
    """{name: float32 (N, dim)}, row i a function of seeds[i] alone: one number, one picture.

    Args:
        dims: as in `draw`.
        seeds: int64 (N,), any; the upper and the lower 32 bits are the two numbers of `draw`.
    """
    pairs = tf.reverse(tf.bitcast(tf.cast(seeds, tf.int64), tf.int32), [-1])  # low half is first
    rows = {name: tf.TensorSpec([1, dim], tf.float32) for name, dim in dims.items()}
    drawn = tf.map_fn(lambda pair: draw(dims, pair, 1), pairs, fn_output_signature=rows)
    return {name: drawn[name][:, 0] for name in dims}
