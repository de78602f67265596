"""Diversity within a caption: how far apart are two pictures of the same words?

The mean distance of the features of two pictures of one caption, over that of two real pictures of
any captions. 0: all pictures of a caption are the same, the noise does nothing. 1: they are as
different as the pictures of the data set from each other, the caption does nothing.
"""

import numpy as np

from stackgan_tf import bootstrap, feature_sets


def compute(fake: np.ndarray, real: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Args:
        fake: features, float (captions, pictures of each, D), two pictures at least.
        real: float (N, D), N at least 2.

    Returns:
        `diversity`, the quotient, with its interval over the captions; `diversity/within` and
        `diversity/among_real`, what it is the quotient of.
    """
    feature_sets.check_finite(fake, real)
    within = np.array([mean_distance(one) for one in np.asarray(fake, np.float64)])
    among = mean_distance(np.asarray(real, np.float64))
    if not among > 0:
        raise ValueError("all real pictures have the same features.")
    return {**bootstrap.mean("diversity", within / among, seed, 0.0),
            "diversity/within": float(within.mean()), "diversity/among_real": among}


def mean_distance(features: np.ndarray) -> float:
    """Mean Euclidean distance of two different rows of float (N, D)."""
    if len(features) < 2:
        raise ValueError(f"{len(features)} picture has no distance to another.")
    squares, rows = np.square(features).sum(1), len(features)
    distances = np.sqrt(np.maximum(squares[:, None] - 2.0 * features @ features.T + squares, 0.0))
    return float(distances[np.triu_indices(rows, 1)].mean())
