"""How a text encoder learns: captions and pictures in one space, where a caption finds its picture.

Reed, Akata, Schiele, Lee, "Learning Deep Representations of Fine-Grained Visual Descriptions",
CVPR 2016 (arXiv:1605.05395); the contrastive loss is of later work.
"""

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import blocks


class ImageEncoder(keras.Model):
    """The picture's side of the joint embedding: trains the text encoder, then judges pictures.

    Reed et al. take fixed GoogLeNet features; a small network that learns along needs no download.

    Call arguments:
        images: float (B, S, S, 3) in [-1, 1], S the same at every call, at least 16.

    Returns:
        float (B, embedding_dim).
    """

    def __init__(self, embedding_dim, width=24, name="image_encoder"):
        super().__init__(name=name)
        shape = [(5, width), (4, 2 * width), (4, 4 * width), (4, 4 * width)]
        self.convs = [keras.layers.Conv2D(filters, kernel, 2, padding="same", use_bias=False,
                                          name=f"conv_{i}")
                      for i, (kernel, filters) in enumerate(shape)]
        self.norms = [blocks.BatchNorm(name=f"norm_{i}") for i in range(len(shape))]
        # Not a global pool: shapes are told by what lies where, colors are not.
        self.flatten = keras.layers.Flatten(name="flatten")
        self.hidden = keras.layers.Dense(256, activation="relu", name="hidden")
        self.project = keras.layers.Dense(embedding_dim, name="project")

    def call(self, images, training=False):
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = tf.nn.relu(norm(conv(x), training=training))
        return self.project(self.hidden(self.flatten(x)))  # flat: (B, S/16 * S/16 * 4 width)


def structured_loss(text, image, labels=None):
    """Mean of max(0, 1 + v_i.t_j - v_i.t_i) + max(0, 1 + v_j.t_i - v_i.t_i) over mismatches i, j.

    Symmetric deep structured joint embedding, Reed et al. 2016 (CVPR), eq. 2-5, in the form of
    their released code: within a batch, every caption of another class is a mismatch.

    Args:
        text, image: float (B, D); row i of both belongs together.
        labels: int (B,), or None: every other row is a mismatch.
    """
    scores = tf.matmul(image, text, transpose_b=True)  # (picture, caption)
    own = tf.linalg.diag_part(scores)
    labels = tf.range(tf.shape(text)[0]) if labels is None else labels
    mismatch = tf.cast(labels[:, None] != labels[None, :], scores.dtype)
    hinges = tf.nn.relu(1.0 + scores - own[:, None]) + tf.nn.relu(1.0 + scores - own[None, :])
    # a batch may happen to be of one class: no pair, no loss
    return tf.reduce_sum(hinges * mismatch) / tf.maximum(tf.reduce_sum(mismatch), 1.0)


def contrastive_loss(text, image, labels=None, temperature=0.1, class_share=0.3):
    """-sum_j q_ij log softmax_j(cos(v_i, t_j) / temperature), and with v, t swapped; their mean.

    q_ij is 1 for row i's own caption: InfoNCE as in CLIP (Radford et al. 2021, fig. 3), with
    SimCLR's fixed temperature. With labels, `class_share` of q_i goes in equal parts to all rows
    of i's class, as in Khosla et al. 2020 (arXiv:2004.11362), eq. 2: the own caption teaches what
    differs within a class (background, center), the class what the pictures show less plainly.

    Arguments as in `structured_loss`.
    """
    text, image = tf.math.l2_normalize(text, -1), tf.math.l2_normalize(image, -1)
    logits = tf.matmul(image, text, transpose_b=True) / temperature
    labels = tf.range(tf.shape(text)[0]) if labels is None else labels
    same = tf.cast(labels[:, None] == labels[None, :], logits.dtype)
    target = class_share * same / tf.reduce_sum(same, 1, keepdims=True)
    target = tf.linalg.set_diag(target, tf.linalg.diag_part(target) + 1.0 - class_share)
    losses = [tf.nn.softmax_cross_entropy_with_logits(target, x)
              for x in (logits, tf.transpose(logits))]
    return tf.reduce_mean(losses)


# name: loss(text, image, labels); the name is the value of --text_encoder_loss
TEXT_LOSSES = {"structured": structured_loss, "contrastive": contrastive_loss}


def retrieval(text, image, labels, cosine):
    """Shares of the captions whose best-scoring picture is their own, and of their own class.

    Args:
        text, image: float (B, D); labels: int (B,).
        cosine: score by the angle, as the contrastive loss does, else by the product.
    """
    if cosine:
        image = tf.math.l2_normalize(image, -1)
    best = tf.argmax(tf.matmul(text, image, transpose_b=True), 1, tf.int32)
    own = tf.range(tf.shape(text)[0])
    return {"retrieval_own": tf.reduce_mean(tf.cast(best == own, tf.float32)),
            "retrieval_class": tf.reduce_mean(
                tf.cast(tf.gather(labels, best) == labels, tf.float32))}


def joint_functions(image_encoder, mean, matrix, cosine):
    """(images -> {"embeddings"}, embeddings -> {"embeddings"}): both into the space of training,
    where the product of a picture's and a caption's vector, float (B, D), is their score.

    Args:
        image_encoder: images float (B, 64, 64, 3) in [-1, 1] -> float (B, D).
        mean, matrix: what whitening.serving_function moved and multiplied the captions' embeddings
            by; it is undone here. The whitening's floor keeps that from blowing up rounding; what
            it has left out is the mean's.
        cosine: the score is that of the angle.
    """
    mean, back = np.float32(mean), np.float32(np.linalg.pinv(np.float64(matrix), 1e-5))
    scale = (lambda x: tf.math.l2_normalize(x, -1)) if cosine else tf.identity
    return (lambda images: {"embeddings": scale(image_encoder(images))},
            lambda embeddings: {"embeddings": scale(tf.matmul(embeddings, back) + mean)})
