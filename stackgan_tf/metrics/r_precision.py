"""R-precision: does a picture fit its own caption better than 99 others?

Xu et al. 2018 (AttnGAN, arXiv:1711.10485), Sec. 4, with R = 1. Theirs come from other classes; here
they come from any other picture, which is harder. Both encoders are the run's own, so its numbers
compare runs of the same encoders, and real pictures show what can be had.
"""

import numpy as np

from stackgan_tf import bootstrap

ROWS = 1024


def compute(pictures: np.ndarray, captions: np.ndarray, own: np.ndarray, others: np.ndarray
            ) -> dict[str, float]:
    """Args:
        pictures: float (N, D), in the space of both encoders; a product is a score.
        captions: float (M, D) likewise.
        own: int (N,), the row of each picture's caption.
        others: int (N, K), the rows of those it is compared with.

    Returns:
        `r_precision` with its interval. Where n captions share the best score, the own one among
        them, 1/n is counted: pictures that are all alike are right as often as by chance.
    """
    pictures, captions = np.asarray(pictures, np.float64), np.asarray(captions, np.float64)
    hits = []
    for first in range(0, len(pictures), ROWS):
        rows = slice(first, first + ROWS)
        choice = captions[np.concatenate([own[rows, None], others[rows]], 1)]  # (rows, 1 + K, D)
        scores = np.einsum("nd,nkd->nk", pictures[rows], choice)
        best = scores >= scores.max(1, keepdims=True)
        hits.append(best[:, 0] / best.sum(1))
    return bootstrap.share("r_precision", np.concatenate(hits))


def choose_others(pictures: np.ndarray, texts: list[str], count: int = 99, seed: int = 0
                  ) -> np.ndarray:
    """For each of N captions, `count` different ones of other pictures, none with the words of any
    of its own picture's.

    Args:
        pictures: int (N,), of which picture each caption is.
        texts: N captions.

    Returns:
        int (N, count), rows.

    Raises:
        ValueError: some caption has fewer such others.
    """
    names, once = _once(texts)
    own = {picture: names[pictures == picture] for picture in np.unique(pictures)}
    generator, chosen = np.random.default_rng(seed), []
    for picture in pictures:
        others = generator.permutation(once)
        others = others[~np.isin(names[others], own[picture])][:count]
        if len(others) < count:
            raise ValueError(f"a caption is compared with {count} others, and {len(others)} are "
                             "there")
        chosen.append(others)
    return np.stack(chosen)


def fewest_others(pictures: np.ndarray, texts: list[str]) -> int:
    """The highest `count` that `choose_others` can choose of these."""
    names, once = _once(texts)
    own = np.unique(np.stack([pictures, names]), axis=1)[0]  # each picture, once for each text
    return int(len(once) - np.bincount(own).max())


def _once(texts):
    """The number of each caption's words, int (N,), and a row that has them, of each number: the
    same words twice are one caption."""
    names = np.unique(np.asarray(texts), return_inverse=True)[1]
    return names, np.unique(names, return_index=True)[1]
