"""A space of pictures and captions that nobody had to train, for --matching_weight."""

import numpy as np
import tensorflow as tf

from stackgan_tf.losses import means

DIM = 6


class Space:
    """What joint_space.JointSpace is to training: 4x4 colors and 8 numbers, each by a matrix."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.pictures, self.captions = (
            rng.normal(size=(size, DIM)).astype(np.float32) for size in (48, 8))

    def of_images(self, images):
        return tf.matmul(tf.reshape(means(images, 4), [-1, 48]), self.pictures)

    def of_embeddings(self, embeddings):
        return tf.matmul(embeddings, self.captions)
