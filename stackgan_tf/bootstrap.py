"""Confidence intervals by the bootstrap: Efron 1979, Annals of Statistics 7(1).

A resample draws as many rows as there are, with replacement; how often it has each row is all
that a statistic needs. The interval is the value plus and minus 1.96 standard deviations of the
resamples' values, not their percentiles: a resample has fewer different rows than the set, which
moves an Inception Score as a whole and widens it hardly at all.
"""

import numpy as np

REPLICATES = 200


def counts(rows: int, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """How often each resample has each row: int (replicates, rows), each line adding up to rows."""
    generator = np.random.default_rng([seed, rows])
    drawn = (np.bincount(generator.integers(rows, size=rows), minlength=rows)
             for _ in range(replicates))
    return np.stack(list(drawn))


def interval(name: str, value: float, replicates, low=-np.inf, high=np.inf, rows: int = 0
             ) -> dict[str, float]:
    """{name, name/low, name/high}: a value and its 95 % interval, cut off at `low` and `high`.

    Args:
        replicates: the values of the resamples, float (B,).
        rows: of a share, from 0 to 1, how many rows it is of. Where all are 0, or all 1, no
            resample differs, which says nothing of how sure that is: the interval is then that of
            Wilson 1927, Journal of the American Statistical Association 22(158).
    """
    reach = 1.96 * float(np.std(replicates, ddof=1))
    if rows and value in (0, 1):
        reach = 1.96**2 / (rows + 1.96**2)
    return {name: float(value), f"{name}/low": max(low, float(value) - reach),
            f"{name}/high": min(high, float(value) + reach)}


def mean(name: str, values, seed: int = 0, low=-np.inf, high=np.inf) -> dict[str, float]:
    """`interval` of the mean of one number a row, float (N,); from 0 to 1 it is a share."""
    values = np.asarray(values, np.float64)
    return interval(name, values.mean(), counts(len(values), seed=seed) @ values / len(values),
                    low, high, len(values) if (low, high) == (0, 1) else 0)
