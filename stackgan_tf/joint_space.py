"""Pictures and captions in one space, by the encoders that a run's captions were learnt with."""

import numpy as np
import tensorflow as tf

from stackgan_tf.config import UserError
from stackgan_tf.images import shrink, to_float
from stackgan_tf.run_folder import Part
from stackgan_tf.saved_parts import SavedPart

BATCH_SIZE, IMAGE_SIZE = 100, 64


class JointSpace:
    """The image encoder that train_text_encoder keeps beside a run's text encoder.

    Both have learnt from the train split alone. The product of a picture's and a caption's vector
    is their score.

    Args:
        part: the run's text encoder.

    Raises UserError if there is none.
    """

    def __init__(self, part: Part):
        if reason := self.missing(part):
            raise UserError(reason)
        saved = SavedPart(part.image_encoder, "image encoder", part.remedy())
        self._of_images, self._of_text = saved.function, saved.loaded.signatures["from_text"]
        self.key = Part.fingerprint_of(part.image_encoder)

    @staticmethod
    def missing(part: Part) -> str:
        """Why a run has none, and how it gets one; "" if it has."""
        if tf.io.gfile.exists(part.image_encoder):
            return ""
        begin = f"R-precision needs {part.image_encoder}, and "
        if part.is_exported() and part.has_checkpoints():
            return (f"{begin}the version that trained this text encoder did not keep it. The last "
                    "checkpoint still has it: give python -m stackgan_tf.train_text_encoder once "
                    "more, with the flags of then, which exports it.")
        return f"{begin}only text encoders that are trained here have one; leave r_precision out."

    def read(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (N, H, W, 3), of any size -> {"embeddings": float32 (N, D)}."""
        pictures = shrink(pictures, IMAGE_SIZE)
        made = [self._of_images(images=tf.constant(to_float(pictures[first:first + BATCH_SIZE])))
                for first in range(0, len(pictures), BATCH_SIZE)]
        return {"embeddings": np.concatenate([one["embeddings"] for one in made])}

    def of_captions(self, embeddings: np.ndarray) -> np.ndarray:
        """What the run's text encoder gives, float32 (N, dim) -> float32 (N, D)."""
        return self._of_text(embeddings=tf.constant(embeddings))["embeddings"].numpy()
