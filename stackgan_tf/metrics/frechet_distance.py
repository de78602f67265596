"""The Frechet distance of two sets of features, each taken for a Gaussian.

Heusel et al. 2017 (arXiv:1706.08500), eq. 6: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). It is the
FID where the features are those of the 2015 Inception, and only there. Its value depends on the
number of pictures (the fewer, the higher), and with no more pictures than features the covariances
are singular: then compare by KID.
"""

import numpy as np

from stackgan_tf import bootstrap, feature_sets


def compute(real: np.ndarray, fake: np.ndarray, replicates: int = bootstrap.REPLICATES,
            seed: int = 0) -> dict[str, float]:
    """Args:
        real, fake: features, float (N, D) and (M, D), N and M at least 2.
        replicates: resamples of `fake`; `real` stays as it is.

    Returns:
        `frechet_distance` with its interval.
    """
    feature_sets.check(real, fake, rows=2)
    real_mean, real_covariance = statistics(real)
    mean, covariance = statistics(fake)
    root, values, axes = _spectrum(real_covariance, covariance)
    value = _distance(real_mean, real_covariance, mean, covariance, values)

    # A resample would cost an eigenvalue problem each, so its distance is taken to first order: the
    # mean of what each picture adds. The derivative of tr(S^(1/2)) is tr(S^(-1/2) dS) / 2.
    centered = np.asarray(fake, np.float64) - mean
    kept = values > 1e-12 * values.max(initial=0.0)  # of fewer pictures than features others are 0
    along = np.square(centered @ (root @ axes[:, kept])) / np.sqrt(values[kept])
    added = (np.square(centered).sum(1) - along.sum(1)) + 2.0 * centered @ (mean - real_mean)
    drawn = bootstrap.counts(len(added), replicates, seed) @ added / len(added)
    return bootstrap.interval("frechet_distance", max(0.0, value), len(added), drawn, low=0.0)


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float (N, D) -> mean float64 (D,), covariance float64 (D, D) with N - 1 below, as np.cov."""
    features = np.asarray(features, np.float64)
    return features.mean(0), np.atleast_2d(np.cov(features, rowvar=False))


def of_gaussians(mean1, covariance1, mean2, covariance2) -> float:
    """The distance of N(mean1, covariance1) and N(mean2, covariance2): (D,), (D, D) each."""
    values = _spectrum(covariance1, covariance2)[1]
    return _distance(mean1, covariance1, mean2, covariance2, values)


def _spectrum(covariance1, covariance2):
    """C1^(1/2), and eigenvalues and axes of C1^(1/2) C2 C1^(1/2).

    The eigenvalues are those of C1 C2, whose own square root need not be real by rounding.
    """
    values, axes = np.linalg.eigh(covariance1)
    root = axes * np.sqrt(np.maximum(values, 0.0)) @ axes.T
    values, axes = np.linalg.eigh(root @ covariance2 @ root)
    return root, np.maximum(values, 0.0), axes


def _distance(mean1, covariance1, mean2, covariance2, values):
    return float(np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2)
                 - 2.0 * np.sqrt(values).sum())
