"""Conditioning augmentation: StackGAN (arXiv:1612.03242), Sec. 3.2."""

import keras
import tensorflow as tf

from stackgan_tf import blocks


class ConditioningAugmentation(keras.layers.Layer):
    """Samples a condition c from N(mean(e), sigma(e)^2), e a caption's embedding.

    Sampling c, instead of projecting e, smooths the conditioning manifold, so that one caption
    gives many images.

    Args:
        condition_dim: size of c.
        relu: ReLU instead of leaky ReLU, as in the released PyTorch code. Its second half is the
            log-variance; with that half of the layer halved, what is here log_sigma is the same.
        log_sigma: what log_sigma is about at first. 0 (the paper): c's noise is as loud as the
            caption, which hides it for the first thousands of steps.

    Call arguments:
        embeddings: float (B, embedding_dim).
        epsilon: float (B, condition_dim), standard normal, other numbers in every row; zeros
            (or None, the ablation without augmentation) give the mean.

    Returns:
        condition, mean, log_sigma: each float32 (B, condition_dim).
    """

    def __init__(self, condition_dim, relu=False, log_sigma=0.0, name="conditioning_augmentation"):
        # float32 under every precision: exp(log_sigma) and the KL term need it
        super().__init__(name=name, dtype="float32")
        self.dense = blocks.text_dense(2 * condition_dim, name="dense", dtype="float32")
        # Leaky: plain ReLU keeps log_sigma >= 0, so sigma >= 1. For weights trained with it only.
        self.activation = tf.nn.relu if relu else blocks.leaky
        self.log_sigma = log_sigma

    def call(self, embeddings, epsilon=None):
        mean, log_sigma = tf.split(self.activation(self.dense(embeddings)), 2, axis=-1)
        log_sigma += self.log_sigma
        if epsilon is None:
            return mean, mean, log_sigma
        # Far from all captions of training log_sigma may be anything; exp of 89 is no number.
        sigma = tf.exp(tf.minimum(log_sigma, 8.0))
        return mean + sigma * epsilon, mean, log_sigma
