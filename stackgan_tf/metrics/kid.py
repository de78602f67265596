"""Kernel Inception Distance: the squared maximum mean discrepancy of two sets of features.

Binkowski et al. 2018 (arXiv:1801.01401): kernel ((x . y) / D + 1)^3, unbiased estimate. Unlike the
FID its expected value does not depend on the number of pictures, so sets of a few hundred can be
compared; of two equal distributions it is 0 on average, and then below 0 half of the time. All
pairs are taken, where most tools average over 100 random subsets of 1,000, which has the same
expectation and more noise.
"""

import numpy as np

from stackgan_tf import bootstrap, feature_sets

ROWS = 1024  # of the kernel matrix in memory at a time


def compute(real: np.ndarray, fake: np.ndarray, replicates: int = bootstrap.REPLICATES,
            seed: int = 0) -> dict[str, float]:
    """Args:
        real, fake: features, float (N, D) and (M, D), N and M at least 2.
        replicates: resamples of `fake`; `real` stays as it is.

    Returns:
        `kid` with its interval, which is too wide where `kid` is near 0: half as much again of
        equal distributions.
    """
    feature_sets.check(real, fake, rows=2)
    real, fake = np.asarray(real, np.float32), np.asarray(fake, np.float32)
    real_term = _pairs(real, np.ones((1, len(real))))[0]
    drawn = np.concatenate([np.ones((1, len(fake)), int),  # the set itself, then its resamples
                            bootstrap.counts(len(fake), replicates, seed)])
    values = real_term + _pairs(fake, drawn) - 2.0 * drawn @ _means(real, fake) / len(fake)
    # of a handful of pictures, a resample may have one of them only, and no pair
    return bootstrap.interval("kid", values[0], len(fake), values[1:][np.isfinite(values[1:])])


def _kernel(x, y):
    product = x @ y.T
    product /= x.shape[1]
    product += 1.0
    return product * product * product  # NumPy's power is many times slower


def _pairs(features, counts):
    """Mean kernel of two different rows, for each line of counts int (B, N): float64 (B,), NaN
    where there are no two.

    A row that a resample has twice is no pair with itself: that would be its own likeness.
    """
    weights = np.ascontiguousarray(counts.T, np.float32)  # (N, B)
    total, own = np.zeros(len(counts)), []
    for first in range(0, len(features), ROWS):
        kernel = _kernel(features[first:first + ROWS], features)
        own.append(np.diagonal(kernel, first).astype(np.float64))
        total += np.einsum("nb,nb->b", weights[first:first + ROWS], kernel @ weights,
                           dtype=np.float64)
    squares = np.square(counts.astype(np.float64))
    pairs = len(features) ** 2 - squares.sum(1)
    return (total - squares @ np.concatenate(own)) / np.where(pairs > 0, pairs, np.nan)


def _means(real, fake):
    """Of each fake row the mean kernel with all real ones: float64 (M,)."""
    return np.concatenate([_kernel(fake[first:first + ROWS], real).mean(1, np.float64)
                           for first in range(0, len(fake), ROWS)])
