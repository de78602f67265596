"""Two sets of features, of real and of generated pictures, as the metrics compare them."""

import numpy as np


def check(real, fake, rows: int) -> None:
    """ValueError unless these are finite, float (N, D) and (M, D), N and M at least `rows`."""
    if np.ndim(real) != 2 or np.ndim(fake) != 2 or np.shape(real)[1] != np.shape(fake)[1] or (
            min(len(real), len(fake)) < rows):
        raise ValueError(f"features {np.shape(real)} and {np.shape(fake)} are no two sets of at "
                         f"least {rows} rows of the same length.")
    check_finite(real, fake)


def check_finite(*sets) -> None:
    """ValueError if a number in one of the arrays is none: weights that overflow make such."""
    if not all(np.isfinite(one).all() for one in sets):
        raise ValueError("the features are not finite numbers.")
