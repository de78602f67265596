"""The blocks of both stages' discriminators: trunk and head. All maps are (B, H, W, C)."""

import keras
import tensorflow as tf

from stackgan_tf.blocks import ConvNorm, SpectralConv, leaky, normal_init, replicate, text_dense


class DiscriminatorTrunk(keras.layers.Layer):
    """Halves an image down to 4x4 and, where it got wider than 8 Df, narrows it to that.

    64x64: Df, 2Df, 4Df, 8Df (Stage-I). 256x256: Df ... 32Df, then 3x3 to 16Df and 8Df
    (Stage-II). The first convolution has no batch norm.

    Args:
        norm: of ConvNorm.
        minibatch_std: size of the groups of `append_spread`; 0 leaves its map out.
    """

    def __init__(self, image_size, width, norm="batch", minibatch_std=0, name=None):
        super().__init__(name=name)
        self.minibatch_std = minibatch_std
        halvings = image_size.bit_length() - 3
        first = None if norm == "batch" else norm
        self.down = [ConvNorm(width * 2**i, 4, 2, leaky, norm if i else first, name=f"down_{i}")
                     for i in range(halvings)]
        self.narrow = [ConvNorm(width * 2**i, 3, 1, leaky, norm, name=f"narrow_{i}")
                       for i in range(halvings - 2, 2, -1)]

    def call(self, images, training=False):
        x = images
        for layer in self.down + self.narrow:
            x = layer(x, training=training)
        return append_spread(x, self.minibatch_std) if self.minibatch_std else x


def append_spread(x, group):
    """Appends a map that says how different the pictures of a group are: (B, H, W, C) ->
    (B, H, W, C + 1).

    Minibatch standard deviation, Karras et al. 2018 (arXiv:1710.10196), Sec. 3, over groups as in
    StyleGAN: the standard deviation of each number over the group, averaged over all numbers.
    Groups are of neighbors, so that they are the same however many devices the batch is cut for;
    StyleGAN's are of each so-manieth picture. A batch has no order, so either is as good.

    Args:
        group: pictures of a group; B must be a multiple, or smaller.
    """
    count = tf.minimum(group, tf.shape(x)[0])
    groups = tf.reshape(tf.cast(x, tf.float32), [-1, count, *x.shape[1:]])
    # 1e-8: a root has no gradient at 0
    spread = tf.sqrt(tf.math.reduce_variance(groups, 1) + 1e-8)
    spread = tf.tile(tf.reduce_mean(spread, [1, 2, 3])[:, None], [1, count])
    spread = tf.broadcast_to(tf.reshape(spread, [-1, 1, 1, 1]), tf.shape(x[..., :1]))
    return tf.concat([x, tf.cast(spread, x.dtype)], -1)


class MatchingHead(keras.layers.Layer):
    """One logit from a 4x4 map, with the caption or (text_dim 0) without.

    The caption goes through this head's own layer, which learns with the discriminator:
    feeding the generator's detached mean instead costs most of the text alignment.

    Args:
        text_dim: what the caption becomes beside the map.
        projection: the caption is not put beside the map; what its layer gives is multiplied with
            the map's mean over all places, and the product added to the logit (Miyato & Koyama
            2018, arXiv:1802.05637, eq. 3). Divided by the root of the channels, as in StyleGAN2,
            it begins near 1 at all sizes.
    """

    def __init__(self, width, text_dim, norm="batch", projection=False, name=None):
        super().__init__(name=name)
        self.text = self.joint = None
        self.projection = projection
        if text_dim:
            self.text = text_dense(8 * width if projection else text_dim, name="text")
            self.joint = ConvNorm(8 * width, 1, 1, leaky, norm, name="joint")
        # no padding: 4x4 becomes one number
        kind = SpectralConv if norm == "spectral" else keras.layers.Conv2D
        self.logit = kind(1, 4, 4, padding="valid", use_bias=False,
                          kernel_initializer=normal_init(), dtype="float32", name="logit")

    def call(self, features, embeddings=None, training=False):
        if self.text is None:
            return tf.reshape(self.logit(features), [-1])
        if not self.projection:
            text = replicate(leaky(self.text(embeddings)), 4)
            features = tf.concat([features, text], -1)
        x = self.joint(features, training=training)
        logits = tf.reshape(self.logit(x), [-1])
        if self.projection:
            pooled = tf.reduce_mean(tf.cast(x, tf.float32), [1, 2])
            text = tf.cast(self.text(embeddings), tf.float32)
            logits += tf.reduce_sum(pooled * text, -1) / float(x.shape[-1]) ** 0.5
        return logits
