"""The Frechet distance of two sets of features, each taken for a Gaussian.

Heusel et al. 2017 (arXiv:1706.08500), eq. 6: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It is the
FID where the features are those of the 2015 Inception, and only there. Its value depends on the
number of pictures (the fewer, the higher), and below as many pictures as features have numbers the
covariances are singular: then compare by KID.
"""

import numpy as np

from stackgan_tf import bootstrap

REPLICATES = 20  # each costs a covariance and an eigenvalue problem; their deviation is +-16 % then


def compute(real: np.ndarray, fake: np.ndarray, replicates: int = REPLICATES, seed: int = 0
            ) -> dict[str, float]:
    """Args:
        real, fake: features, float (N, D) and (M, D), N and M at least 2.
        replicates: resamples of `fake`; `real` stays as it is.

    Returns:
        `frechet_distance` with its interval.
    """
    _check(real, fake)
    real_mean, real_covariance = statistics(real)
    root = _root(real_covariance)
    fake = np.asarray(fake, np.float64)

    def distance(mean, covariance):
        return _distance(real_mean, real_covariance, root, mean, covariance)

    value = distance(*statistics(fake))
    drawn = [distance(*_weighted_statistics(fake, row))
             for row in bootstrap.counts(len(fake), replicates, seed)]
    return bootstrap.interval("frechet_distance", value, drawn, low=0.0)


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float (N, D) -> mean float64 (D,), covariance float64 (D, D) with N - 1 below, as np.cov."""
    features = np.asarray(features, np.float64)
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def of_gaussians(mean1, covariance1, mean2, covariance2) -> float:
    """The distance of N(mean1, covariance1) and N(mean2, covariance2): (D,), (D, D) each."""
    return _distance(mean1, covariance1, _root(covariance1), mean2, covariance2)


def _distance(mean1, covariance1, root1, mean2, covariance2):
    # C1 C2 and the symmetric C1^(1/2) C2 C1^(1/2) have the same eigenvalues. Those that rounding
    # brings below 0 are 0: the square root of the product itself would be complex there.
    values = np.linalg.eigvalsh(root1 @ covariance2 @ root1)
    both = np.sqrt(np.maximum(values, 0.0)).sum()
    return float(np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2)
                 - 2.0 * both)


def _root(covariance):
    values, axes = np.linalg.eigh(covariance)
    return axes * np.sqrt(np.maximum(values, 0.0)) @ axes.T


def _weighted_statistics(features, counts):
    """`statistics` of the rows, each taken so many times."""
    rows = len(features)
    mean = counts @ features / rows
    centered = (features - mean) * np.sqrt(counts)[:, None]
    return mean, centered.T @ centered / (rows - 1)


def _check(real, fake):
    if np.ndim(real) != 2 or np.ndim(fake) != 2 or np.shape(real)[1] != np.shape(fake)[1] or (
            min(len(real), len(fake)) < 2):
        raise ValueError(f"features {np.shape(real)} and {np.shape(fake)} are no two sets of at "
                         "least 2 rows of the same length.")
