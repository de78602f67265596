"""Says in a line when a training has gone wrong in a way that its losses do not show."""

import collections

import numpy as np

REPORTS = 8  # so many in a row are no chance: good runs were seen with three
LOST = 0.1  # of the variety that there was

# (share of real pictures taken for real, of generated ones taken for generated): what it means
_PINNED = {
    (1.0, 1.0): "it tells all of them apart and the generator learns little from it; a smaller "
                "--discriminator_width, or more --r1_weight, in a new --run may help",
    (0.0, 0.0): "it is wrong about all of them; a lower --learning_rate in a new --run may help",
    (1.0, 0.0): "it takes everything for real and teaches nothing; a larger --discriminator_width "
                "or --discriminator_learning_rate in a new --run may help",
    (0.0, 1.0): "it takes everything for generated; a lower --discriminator_learning_rate in a new "
                "--run may help",
}


class Watchdog:
    """Looks at what the reports have anyway; each trouble is said once, until it is over.

    Attributes:
        variety: the largest that the samples had so far, to be kept with the checkpoint.
    """

    def __init__(self, variety: float = 0.0):
        self.variety = variety
        self._accuracies = collections.deque(maxlen=REPORTS)
        self._said = {}

    def accuracy(self, real: float, fake: float) -> str | None:
        """A line if the discriminator has been all right or all wrong for REPORTS reports."""
        self._accuracies.append((real, fake))
        pinned = len(self._accuracies) == REPORTS and len(set(self._accuracies)) == 1
        if not pinned or (real, fake) not in _PINNED:
            return self._once("accuracy", None)
        return self._once("accuracy", f"the discriminator's accuracy has been {real:.0f} on real "
                          f"and {fake:.0f} on generated pictures in {REPORTS} reports in a row: "
                          f"{_PINNED[real, fake]}.")

    def samples(self, pictures: np.ndarray) -> tuple[float, str | None]:
        """Variety of uint8 (N, H, W, 3), and a line if nearly all that there was is lost.

        Variety is the standard deviation of a pixel from picture to picture, in shares of 255.
        """
        variety = float(pictures.std(0, dtype=np.float64).mean() / 255)
        self.variety = max(self.variety, variety)
        if variety >= LOST * self.variety:
            return variety, self._once("samples", None)
        return variety, self._once("samples", "the samples have become nearly the same picture "
                                   f"(variety {variety:.4f}, was {self.variety:.4f}): the generator"
                                   " has collapsed; go on from an older checkpoint, or start a new "
                                   "--run with a lower --learning_rate.")

    def _once(self, what, line):
        news = line if not self._said.get(what) else None
        self._said[what] = line
        return news
