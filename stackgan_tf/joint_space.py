"""Pictures and captions in one space, by the encoders that a run's captions were learnt with.

R-precision reads pictures in it, and with --matching_weight the generator learns there.
"""

import numpy as np
import tensorflow as tf

from stackgan_tf.config import UserError
from stackgan_tf.images import shrink, to_float
from stackgan_tf.losses import means
from stackgan_tf.run_folder import Part
from stackgan_tf.saved_parts import OTHER, SavedPart
from stackgan_tf.upsampling import enlarge

BATCH_SIZE, IMAGE_SIZE = 100, 64
# What is finer the encoder does not need (R-precision of drawn_flowers' real pictures is 0.308 so,
# 0.303 as they are), and a generator would learn to please it with; docs/results.md.
LEARNT_AT = 32


class JointSpace:
    """The image encoder that train_text_encoder keeps beside a run's text encoder.

    Both have learnt from the train split alone. The product of a picture's and a caption's vector
    is their score.

    Args:
        path: its folder.
        remedy: what to do if it cannot be loaded; of a run's own, run_folder.Part.remedy.

    Raises UserError if it cannot be loaded.
    """

    def __init__(self, path: str, remedy: str = OTHER):
        self._saved = SavedPart(path, "image encoder", remedy)
        self._of_images = self._saved.function
        if "from_text" not in self._saved.loaded.signatures:
            raise UserError(f"image encoder {path} has no signature from_text, so it is none of "
                            f"ours; {remedy}.")
        self._of_text = self._saved.loaded.signatures["from_text"]
        self.key = Part.fingerprint_of(path)

    @staticmethod
    def missing(part: Part, what: str = "R-precision", out: str = "r_precision") -> str:
        """Why a run whose text encoder is `part` has none, and how it gets one, or leaves `out`
        what needs it; "" if it has."""
        if tf.io.gfile.exists(part.image_encoder):
            return ""
        begin = f"{what} needs {part.image_encoder}, and "
        if part.is_exported() and part.has_checkpoints():
            return (f"{begin}the version that trained this text encoder did not keep it. The last "
                    "checkpoint still has it: give python -m stackgan_tf.train_text_encoder once "
                    "more, with the flags of then, which exports it.")
        return f"{begin}only text encoders that are trained here have one; leave {out} out."

    def read(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (N, H, W, 3), of any size -> {"embeddings": float32 (N, D)}."""
        pictures = shrink(pictures, IMAGE_SIZE)
        made = [self._of_images(images=tf.constant(to_float(pictures[first:first + BATCH_SIZE])))
                for first in range(0, len(pictures), BATCH_SIZE)]
        return {"embeddings": np.concatenate([one["embeddings"] for one in made])}

    def of_images(self, images: tf.Tensor) -> tf.Tensor:
        """float (B, S, S, 3) in [-1, 1] -> float32 (B, D), with a gradient; S a power of two.

        As they are at LEARNT_AT.
        """
        images = means(images, min(LEARNT_AT, images.shape[1]))
        return self._of_images(images=enlarge(images, IMAGE_SIZE))["embeddings"]

    def of_embeddings(self, embeddings: tf.Tensor) -> tf.Tensor:
        """What the run's text encoder gives, float (B, dim) -> float32 (B, D)."""
        return self._of_text(embeddings=tf.cast(embeddings, tf.float32))["embeddings"]

    def of_captions(self, embeddings: np.ndarray) -> np.ndarray:
        """What the run's text encoder gives, float32 (N, dim) -> float32 (N, D)."""
        return self.of_embeddings(tf.constant(embeddings)).numpy()
