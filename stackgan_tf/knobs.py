"""Knobs: what can be turned when a trained run draws, without training it again."""

import dataclasses
import numbers

HELP = {
    "truncation": "the noise z is multiplied by it, so that pictures of a caption vary less below "
                  "1",
    "epsilon_scale": "the conditioning augmentation's epsilon is multiplied by it, so that "
                     "pictures of a caption vary less below 1; 0 takes its mean",
    "text_strength": "a caption's embedding is moved so many times as far from the mean of the "
                     "training captions'; below 1 pictures show less of the caption, at 0 nothing; "
                     "above 1 they exaggerate it",
}
NAMES = tuple(HELP)
MOST = 10.0  # of each; far beyond what shows anything, and nothing overflows yet


@dataclasses.dataclass(frozen=True)
class Knobs:
    """All at 1, a run draws as it was trained, bit for bit.

    Attributes:
        truncation: factor of the noise z.
        epsilon_scale: factor of the conditioning augmentation's epsilon.
        text_strength: s in `strengthen`.
    """

    truncation: float = 1.0
    epsilon_scale: float = 1.0
    text_strength: float = 1.0

    def turned(self) -> dict[str, float]:
        """Those that are not at 1."""
        return {name: getattr(self, name) for name in NAMES if getattr(self, name) != 1}

    def scale(self, latents: dict) -> dict:
        """Latents {"noise", "epsilon"}, float32 arrays or tensors (N, dim), times their factors."""
        factors = {"noise": float(self.truncation), "epsilon": float(self.epsilon_scale)}
        return {name: value * factors[name] if factors[name] != 1 else value
                for name, value in latents.items()}

    def strengthen(self, embeddings, mean):
        """mean + s (e - mean): what a caption has of its own, s times as strong.

        Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) goes in the same way from
        the unconditional prediction to the conditional one and beyond. Here it need not help: a
        run on drawn_flowers shows its captions best at 1 (experiments/curves.py measures it).

        Args:
            embeddings, mean: float32 (N, dim) and (dim,), arrays or tensors.
        """
        if self.text_strength == 1:  # the sum would round
            return embeddings
        return mean + float(self.text_strength) * (embeddings - mean)


def is_value(value) -> bool:
    """Whether a knob can be turned to `value`: a number from 0 to MOST."""
    return isinstance(value, numbers.Real) and 0 <= value <= MOST
