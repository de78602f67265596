"""Inception Score: do pictures look like one class each, and like many classes together?

Salimans et al. 2016 (arXiv:1606.03498), Sec. 4: exp(E_x KL(p(y|x) || p(y))), from 1 to the number
of classes. As in their code the pictures are split into ten parts in their order and the parts'
scores averaged. It is blind to what the real pictures are, and its value depends on the number of
pictures.
"""

import itertools

import numpy as np

from stackgan_tf import bootstrap, feature_sets


def compute(logits: np.ndarray, splits: int = 10, replicates: int = bootstrap.REPLICATES,
            seed: int = 0) -> dict[str, float]:
    """Args:
        logits: of a classifier, float (N, classes), N at least twice `splits`: the score of a
            split of one picture is always 1.

    Returns:
        `inception_score`, the mean over the splits, with its interval, and
        `inception_score/split_std`, their standard deviation, which papers print behind it.
    """
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or len(logits) < 2 * splits:
        raise ValueError(f"logits {logits.shape} are no (N, classes) of at least {2 * splits} "
                         "rows, two a split.")
    feature_sets.check_finite(logits)
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    inner = np.where(p > 0, p * log_p, 0.0).sum(1)  # minus the entropy of each row
    ends = [i * len(p) // splits for i in range(splits + 1)]
    scores = [_score(p[first:last].mean(0), inner[first:last].mean())
              for first, last in itertools.pairwise(ends)]
    shares = bootstrap.counts(len(p), replicates, seed) / len(p)
    drawn = [_score(mean, one) for mean, one in zip(shares @ p, shares @ inner)]
    return {**bootstrap.interval("inception_score", np.mean(scores), len(p), drawn, low=1.0),
            "inception_score/split_std": float(np.std(scores))}


def _score(mean, inner):
    """exp of the mean KL divergence, from the mean distribution and the mean of sum p log p."""
    return np.exp(inner - (mean * np.log(np.maximum(mean, 1e-300))).sum())
