"""Adversarial losses, each a formula with its address. Logits in, scalar out."""

import tensorflow as tf


def non_saturating_discriminator_loss(real_logits, fake_logits):
    """-log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))). Goodfellow et al. 2014, eq. 1.

    Each argument is float (B,); the two lengths may differ, each is averaged by itself.
    """
    # softplus(-x) = -log(sigmoid(x)), stable for large |x|
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(
        tf.nn.softplus(fake_logits))


def non_saturating_generator_loss(fake_logits):
    """-log sigmoid(D(G(z))), averaged. Goodfellow et al. 2014, Sec. 3."""
    return tf.reduce_mean(tf.nn.softplus(-fake_logits))


def least_squares_discriminator_loss(real_logits, fake_logits):
    """((D(x) - 1)^2 + D(G(z))^2) / 2. LSGAN, Mao et al. 2017, eq. 9 (a=0, b=c=1)."""
    return 0.5 * (tf.reduce_mean(tf.square(real_logits - 1.0))
                  + tf.reduce_mean(tf.square(fake_logits)))


def least_squares_generator_loss(fake_logits):
    """(D(G(z)) - 1)^2 / 2. LSGAN, Mao et al. 2017, eq. 9."""
    return 0.5 * tf.reduce_mean(tf.square(fake_logits - 1.0))


def wasserstein_discriminator_loss(real_logits, fake_logits):
    """D(G(z)) - D(x). Arjovsky et al. 2017, eq. 2; needs a penalty or clipping beside it."""
    return tf.reduce_mean(fake_logits) - tf.reduce_mean(real_logits)


def wasserstein_generator_loss(fake_logits):
    """-D(G(z)). Arjovsky et al. 2017."""
    return -tf.reduce_mean(fake_logits)


def hinge_discriminator_loss(real_logits, fake_logits):
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))). Geometric GAN, Lim & Ye 2017."""
    return tf.reduce_mean(tf.nn.relu(1.0 - real_logits)) + tf.reduce_mean(
        tf.nn.relu(1.0 + fake_logits))


# name: (discriminator loss, generator loss); the name is the value of --loss
LOSSES = {
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_generator_loss),
    "least_squares": (least_squares_discriminator_loss, least_squares_generator_loss),
    "wasserstein": (wasserstein_discriminator_loss, wasserstein_generator_loss),
    "hinge": (hinge_discriminator_loss, wasserstein_generator_loss),
}


def r1_penalty(gradient):
    """|dD(x)/dx|^2 / 2, averaged over the real images. R1, Mescheder et al. 2018, eq. 9.

    Args:
        gradient: float (B, H, W, C), of the logits by the real images.

    It has a meaning only for a discriminator that judges each image by itself: no batch norm.
    """
    return 0.5 * tf.reduce_mean(tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32)), [1, 2, 3]))


def matching_aware_penalty(image_gradient, text_gradient=None):
    """(|dD(x, e)/dx|^2 + |dD(x, e)/de|^2)^3, averaged over the real pairs. MA-GP: DF-GAN, Tao et
    al. 2022 (arXiv:2008.05865), eq. 4 with p = 6; its factor k is the caller's.

    Args:
        image_gradient: float (B, H, W, C), of the logits by the real images.
        text_gradient: float (B, embedding_dim), by their captions' embeddings; None without text.

    As for R1, the discriminator must judge each image by itself. The cube of the square and not
    the sixth power of the norm: a root has no gradient at 0.
    """
    squared = tf.reduce_sum(tf.square(tf.cast(image_gradient, tf.float32)), [1, 2, 3])
    if text_gradient is not None:
        squared += tf.reduce_sum(tf.square(tf.cast(text_gradient, tf.float32)), 1)
    return tf.reduce_mean(squared**3)


def kl_divergence(mean, log_sigma):
    """KL(N(mean, sigma^2) || N(0, 1)), averaged over the batch *and* the dimensions.

    Args:
        mean, log_sigma: float (B, condition_dim).

    StackGAN Sec. 3.2, eq. 2; the averaging over dimensions is the released code's.
    """
    return tf.reduce_mean(-log_sigma + 0.5 * (tf.exp(2.0 * log_sigma) + tf.square(mean) - 1.0))


AGAIN_EVERY = 4  # mode seeking draws each so-manieth caption again: cheaper, on average the same


def mode_seeking_loss(images, again_images):
    """1 / mean |G(z1, e) - G(z2, e)|, averaged over the captions: two pictures of one shall differ.

    MSGAN, Mao et al. 2019 (arXiv:1903.05628), eq. 3: as in the released code, the inverse is to
    fall, but that of each caption's mean, so that those whose pictures are nearest count most;
    theirs is of the batch's. Without |z1 - z2|, always about the same in so many dimensions.

    Args:
        images, again_images: float (B, H, W, 3) in [-1, 1], of the same captions and other latents.
    """
    distance = tf.reduce_mean(tf.abs(images - again_images), [1, 2, 3])
    return tf.reduce_mean(1.0 / (distance + 1e-2))  # theirs: 1e-5, a gradient without bound


SHARPNESS = 20.0  # of cosines; AttnGAN's gamma_3 is 10


def matching_loss(images, captions, own):
    """-log softmax_j(20 cos(v_i, t_j)) of a picture's own caption among all of the batch; averaged.

    The DAMSM loss of AttnGAN, Xu et al. 2018 (arXiv:1711.10485), Sec. 3.2, of whole sentences, and
    in the direction from the picture to its caption alone: that asks nothing of other pictures.
    Theirs leaves out captions of the same class, here another picture's caption is a wrong one.

    Args:
        images: float (B, D), the generator's pictures in the space of captions and pictures.
        captions: float (N, D), those of the whole batch, which may be on several devices.
        own: int (B,), the row of each picture's.
    """
    images, captions = tf.math.l2_normalize(images, -1), tf.math.l2_normalize(captions, -1)
    logits = SHARPNESS * tf.matmul(images, captions, transpose_b=True)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(own, logits))


SKETCH_SIDE = 32  # what of the sketch Stage-II shall keep: layout and shapes, not the pixels


def sketch_distance(images, sketch):
    """Mean squared difference of two sets of images, each as means over SKETCH_SIDE^2 squares.

    Args:
        images: float (B, H, H, 3), the generator's.
        sketch: float (B, h, h, 3), Stage-I's of the same captions and latents; powers of two.

    As the color-consistency of StackGAN-v2 (arXiv:1710.10916, Sec. 3.3, eq. 9), which keeps an
    image's mean color and covariance only.
    """
    side = min(SKETCH_SIDE, sketch.shape[1], images.shape[1])
    return tf.reduce_mean(tf.square(means(images, side) - means(sketch, side)))


def means(images, side):
    """float (B, H, H, 3) -> float32 (B, side, side, 3), the mean of each square."""
    step = images.shape[1] // side
    images = tf.reshape(tf.cast(images, tf.float32), [-1, side, step, side, step, 3])
    return tf.reduce_mean(images, [2, 4])
