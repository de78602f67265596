"""char-CNN-RNN: captions to embeddings, learned so that a caption finds its picture.

Reed, Akata, Schiele, Lee, "Learning Deep Representations of Fine-Grained Visual Descriptions",
CVPR 2016 (arXiv:1605.05395). StackGAN takes its captions' embeddings from this network.
"""

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import blocks
from stackgan_tf.characters import ALPHABET, tokenize


class CharCnnRnn(keras.Model):
    """Convolutions over characters, then a recurrent layer averaged over its steps.

    Args:
        embedding_dim: size of the result; Reed et al.: 1024.
        width: channels; Reed et al.: 512.

    Call arguments:
        tokens: int (B, 201) of `tokenize`.

    Returns:
        float (B, embedding_dim).
    """

    def __init__(self, embedding_dim=1024, width=512, name="char_cnn_rnn"):
        super().__init__(name=name)
        self.conv_1, self.conv_2, self.conv_3 = (
            # Keras's small first weights: from larger ones (He et al. 2015) it learns sooner, but
            # (shape, color) pairs as a whole, and an unseen pair is then taken for a seen one.
            keras.layers.Conv1D(filters, 4, activation="relu", name=f"conv_{i}")
            for i, filters in enumerate((3 * width // 4, width, width), start=1))
        self.pool = keras.layers.MaxPool1D(3, name="pool")
        # Not cuDNN's GRU: a model exported on a GPU has to run on any server.
        self.rnn = keras.layers.GRU(width, return_sequences=True, unroll=True, use_cudnn=False,
                                    name="rnn")
        self.project = keras.layers.Dense(embedding_dim, name="project")

    def call(self, tokens):
        x = tf.one_hot(tokens - 1, len(ALPHABET))  # (B, 201, 70); token 0 is all zeros
        x = self.pool(self.conv_1(x))  # (B, 66, 3/4 width)
        x = self.pool(self.conv_2(x))  # (B, 21, width)
        x = self.conv_3(x)  # (B, 18, width)
        x = tf.reduce_mean(self.rnn(x), axis=1)
        return self.project(x)


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


def whitening(embeddings, images=None, floor=0.007, seen=0.03):
    """The mean and the matrix that bring embeddings to the form that the GAN's layers want.

    `(e - mean) @ matrix` has mean 0, variance 1 over all dimensions together, and principal
    components of nearly equal size: the encoder's loss fixes none of it, and what a caption says of
    a center's color is a tenth as large in its embedding as what it says of the background.

    Directions in which the captions do not differ at all (of few captions there are always some)
    are left out: enlarged like the others, they would be all that is seen of any new sentence.

    So are those that the pictures tell nothing of, which are the wording. Made as large as the
    others, they are three quarters of drawn_flowers' embeddings, and the generator learns later
    what is to be drawn. A direction of which the pictures' embeddings tell, linearly, the share
    r^2 of its variance (the canonical ones, Hotelling 1936), less what they would tell of it by
    chance, is multiplied by r^4 / (r^4 + seen^2). Where there are too few pictures to say, or they
    tell nothing, all directions stay.

    Args:
        embeddings: float (N, D), of training captions.
        images: float (N, D), of their pictures; None leaves the wording in.
        floor: components below this share of the largest are noise and stay smaller, and so does
            the r^2 of what lies in them: of a component s times the largest it is multiplied by
            (s / (s + floor))^2. Low: of drawn_flowers' held-out shapes, a linear probe reads 0.88
            with 0.03 and 0.95 with this.
        seen: r^2 of what is halved.

    Returns:
        mean float32 (D,), matrix float32 (D, D), and the length of the longest result, a float.
    """
    mean = embeddings.mean(0)
    centered = np.float64(embeddings - mean)
    axes, sizes = _components(centered)
    if sizes.max() < 1e-6:  # all captions are the same
        return mean, np.eye(len(mean), dtype=np.float32), np.inf
    gains = (sizes > 1e-5 * sizes.max()) / (sizes + floor * sizes.max())
    matrix = axes * gains @ axes.T  # ZCA but for the floor
    if images is not None:
        matrix = matrix @ _of_pictures(centered @ matrix, images, seen)
    matrix /= (centered @ matrix).std()
    longest = np.linalg.norm(centered @ matrix, axis=1).max()
    return mean, np.float32(matrix), float(longest)


def _components(centered):
    """Principal axes, the columns of a float (D, D), and the deviations along them, (D,)."""
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(centered, rowvar=False)))
    return axes, np.sqrt(np.maximum(variances, 0.0))


def _of_pictures(white, images, seen):
    """The symmetric matrix (D, D) that keeps what pictures tell of white captions; see above."""
    images = np.float64(images - images.mean(0))
    axes, sizes = _components(images)
    known = sizes > 1e-3 * sizes.max()
    # the largest share that as many numbers of noise would tell (Johnstone 2008, for many rows)
    chance = (np.sqrt(known.sum()) + np.sqrt(white.shape[1]))**2 / len(images)
    if not known.any() or chance > 0.5:
        return np.eye(white.shape[1])
    told = white.T @ (images @ axes[:, known] / sizes[known]) / len(images)
    shares, axes = np.linalg.eigh(told @ told.T)
    shares = np.maximum((shares - chance) / (1.0 - chance), 0.0)
    gains = shares**2 / (shares**2 + seen**2)
    if gains.max() < 0.01:  # the pictures tell nothing
        return np.eye(len(axes))
    return axes * np.where(gains < 0.01, 0.0, gains) @ axes.T


def serving_function(model, mean, matrix, longest=np.inf):
    """captions: string (B,) -> {"embeddings": float (B, D)}, moved by `mean` (D,) and multiplied
    by `matrix` (D, D), see `whitening`.

    None is longer than `longest`: what has little to do with the captions of training is kept
    where the generator has been, instead of ten times as far away, where it draws no picture.
    """
    mean, matrix, longest = np.float32(mean), np.float32(matrix), np.float32(longest)

    def embed(captions):
        # One more row, dropped again: oneDNN's fused convolution fails on an empty batch.
        tokens = tf.pad(tokenize(captions), [[0, 1], [0, 0]])
        embeddings = tf.matmul(model(tokens)[:-1] - mean, matrix)
        length = tf.norm(embeddings, axis=-1, keepdims=True)
        return {"embeddings": embeddings * tf.minimum(1.0, longest / length)}

    return embed


def joint_functions(image_encoder, mean, matrix, cosine):
    """(images -> {"embeddings"}, embeddings -> {"embeddings"}): both into the space of training,
    where the product of a picture's and a caption's vector, float (B, D), is their score.

    Args:
        image_encoder: images float (B, 64, 64, 3) in [-1, 1] -> float (B, D).
        mean, matrix: what `serving_function` moved and multiplied the captions' embeddings by; it
            is undone here. `whitening`'s floor keeps that from blowing up rounding; what it has
            left out is the mean's.
        cosine: the score is that of the angle.
    """
    mean, back = np.float32(mean), np.float32(np.linalg.pinv(np.float64(matrix), 1e-5))
    scale = (lambda x: tf.math.l2_normalize(x, -1)) if cosine else tf.identity
    return (lambda images: {"embeddings": scale(image_encoder(images))},
            lambda embeddings: {"embeddings": scale(tf.matmul(embeddings, back) + mean)})
