"""Confidence intervals: of shares Wilson's, else by the bootstrap, Efron 1979, Annals of
Statistics 7(1).

A resample draws as many rows as there are, with replacement; how often it has each row is all
that a statistic needs. The interval is the value plus and minus 1.96 standard deviations of the
resamples' values, not their percentiles: a resample has fewer different rows than the set, which
moves an Inception Score as a whole and widens it hardly at all.
"""

import numpy as np

REPLICATES = 200
FEWEST = 10  # rows: of fewer, resamples are far more alike than new sets would be


def counts(rows: int, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """How often each resample has each row: int (replicates, rows), each line adding up to rows."""
    generator = np.random.default_rng([seed, rows])
    drawn = (np.bincount(generator.integers(rows, size=rows), minlength=rows)
             for _ in range(replicates))
    return np.stack(list(drawn))


def interval(name: str, value: float, rows: int, replicates, low=-np.inf, high=np.inf
             ) -> dict[str, float | None]:
    """{name, name/low, name/high}: a value and its 95 % interval, cut off at `low` and `high`; None
    and None where resamples cannot tell: of fewer than FEWEST rows, or if all come to the same.

    Args:
        rows: how many were resampled.
        replicates: the values of the resamples, float (B,).
    """
    reach = 1.96 * float(np.std(replicates, ddof=1)) if rows >= FEWEST else 0.0
    if not reach > 1e-5 * abs(value):  # the rest is rounding
        return {name: float(value), f"{name}/low": None, f"{name}/high": None}
    return {name: float(value), f"{name}/low": max(low, float(value) - reach),
            f"{name}/high": min(high, float(value) + reach)}


def mean(name: str, values, seed: int = 0, low=-np.inf, high=np.inf) -> dict[str, float | None]:
    """`interval` of the mean of one number a row, float (N,)."""
    values = np.asarray(values, np.float64)
    drawn = counts(len(values), seed=seed) @ values / len(values)
    return interval(name, values.mean(), len(values), drawn, low, high)


def share(name: str, rows) -> dict[str, float]:
    """The same of the share of rows that are 1, each from 0 to 1, float (N,), without resamples:
    where all rows are 1 they are all alike, as if that were certain. Wilson 1927, Journal of the
    American Statistical Association 22(158)."""
    rows = np.asarray(rows, np.float64)
    value, z = rows.mean(), 1.96**2 / len(rows)
    middle, reach = value + z / 2, np.sqrt(z * value * (1.0 - value) + z**2 / 4)
    return {name: float(value), f"{name}/low": max(0.0, float((middle - reach) / (1.0 + z))),
            f"{name}/high": min(1.0, float((middle + reach) / (1.0 + z)))}
