"""Precision and recall, density and coverage: are pictures real, and are all kinds there?

Precision: share of generated pictures inside a real one's ball, that is, as near to it as its
k-th nearest other real one. Recall: the same with the sets exchanged. Kynkaanniemi et al. 2019
(arXiv:1904.06991), eq. 1-2, k = 3.

Density: in how many real balls a generated picture lies, over k, which an outlier with a large ball
raises less. Coverage: share of real balls that hold a generated picture. Naeem et al. 2020
(arXiv:2002.09797), Sec. 3, k = 5; there a picture lies in a ball only below its radius.

The number of pictures changes all four: take as many of both, always the same.
"""

import numpy as np

from stackgan_tf import bootstrap, feature_sets

ROWS = 1024  # of a matrix of distances in memory at a time


def compute(real: np.ndarray, fake: np.ndarray, k: int = 3, density_k: int = 5, seed: int = 0
            ) -> dict[str, float]:
    """Args:
        real, fake: features, float (N, D) and (M, D), more than k and density_k rows each.

    Returns:
        `precision`, `recall`, `density`, `coverage`, each with its interval: over the pictures
        judged (for recall and coverage the real ones), the balls staying as they are.
    """
    feature_sets.check(real, fake, rows=max(k, density_k) + 1)
    real, fake = (np.asarray(x, np.float64) for x in (real, fake))
    real_radius, real_radius_density = _radii(real, (k, density_k))
    fake_radius, = _radii(fake, (k,))
    precise, dense = [], []
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for first in range(0, len(fake), ROWS):
        distance = _squared_distances(fake[first:first + ROWS], real)  # (rows, N)
        inside = distance < real_radius_density
        precise.append((distance <= real_radius).any(1))
        dense.append(inside.sum(1) / density_k)
        covered |= inside.any(0)
        recalled |= (distance <= fake_radius[first:first + ROWS, None]).any(0)
    return {**bootstrap.share("precision", np.concatenate(precise)),
            **bootstrap.share("recall", recalled),
            **bootstrap.mean("density", np.concatenate(dense), seed, 0.0),
            **bootstrap.share("coverage", covered)}


def _radii(features, ks):
    """Squared distance of each row to its k-th nearest other one, for each k: [float (N,)]."""
    found = []
    for first in range(0, len(features), ROWS):
        distance = _squared_distances(features[first:first + ROWS], features)
        rows = np.arange(len(distance))
        distance[rows, first + rows] = -1.0  # itself is the 0-th
        found.append(np.partition(distance, ks, axis=1)[:, list(ks)])
    return np.concatenate(found).T


def _squared_distances(x, y):
    """float (N, D), (M, D) -> (N, M)"""
    # in this order (y, x) comes to the same as (x, y): what is on a ball's edge must not slip in
    return np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2.0 * x @ y.T, 0.0)
