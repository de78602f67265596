"""How the generators' maps grow. All maps are (B, H, W, C), convolutions SAME."""

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf.blocks import BatchNorm, normal_init

# Side of the input map from which the fused up-sampling wins on a CPU, of
# `python -m benchmarks.layer_forms`: in float32, and in 16 bits, which only AMX multiplies fast.
FUSED_FROM, FUSED_FROM_16_BITS = 8, 32

# (16, 9): of a 3x3 kernel the sum of its four shifts by 0 or 1 in 4x4, turned by 180 degrees. One
# product with it is several times as fast as padding and adding.
_SHIFTS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])  # along one axis
SHIFTED_SUM = np.kron(_SHIFTS, _SHIFTS)


class UpsampleConv(keras.layers.Layer):
    """Nearest-neighbour doubling, then a 3x3 convolution without bias.

    On large maps it runs as one 4x4 transposed convolution with stride 2, which computes the same
    numbers with 16 instead of 36 multiply-adds an input pixel and never makes the enlarged map.

    Call arguments:
        x: float (B, H, W, C).

    Returns:
        float (B, 2H, 2W, filters).
    """

    def __init__(self, filters, name=None):
        super().__init__(name=name)
        self.filters = filters

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, shape[-1], self.filters),
                                      initializer=normal_init())

    def call(self, x):
        kernel = tf.cast(self.kernel, x.dtype)
        if x.shape[1] >= (FUSED_FROM if x.dtype == tf.float32 else FUSED_FROM_16_BITS):
            return self.fused(x, kernel)
        return self.plain(x, kernel)

    def plain(self, x, kernel):
        # Not tf.image.resize: it has no second-order gradient and no XLA gradient.
        _, height, width, channels = x.shape
        batch = tf.shape(x)[0]
        doubled = tf.broadcast_to(x[:, :, None, :, None, :],
                                  [batch, height, 2, width, 2, channels])
        doubled = tf.reshape(doubled, [batch, 2 * height, 2 * width, channels])
        return tf.nn.conv2d(doubled, kernel, strides=1, padding="SAME")

    def fused(self, x, kernel):
        # Doubling spreads each input over 2x2 outputs, so the whole is a convolution with the
        # 3x3 kernel summed over its four one-pixel shifts, i.e. 4x4, at every second place.
        # Transposed convolution flips, and wants the filters before the channels.
        flat = tf.reshape(tf.transpose(kernel, [0, 1, 3, 2]), [9, -1])
        wide = tf.matmul(tf.constant(SHIFTED_SUM, x.dtype), flat)
        _, height, width, channels = x.shape
        wide = tf.reshape(wide, [4, 4, self.filters, channels])
        shape = [tf.shape(x)[0], 2 * height, 2 * width, self.filters]
        return tf.nn.conv2d_transpose(x, wide, shape, strides=2, padding="SAME")


def smooth(x):
    """Each number becomes the mean of its 3x3 neighborhood, by the weights 1 2 1 of either axis.

    Nearest-neighbour doubling and this are bilinear doubling, also with a convolution in between,
    since their order does not matter (but at the border, which is repeated here): "Bilinear
    sampling" in StyleGAN, Karras et al. 2019 (arXiv:1812.04948), Sec. 2.

    Args:
        x: float (B, H, W, C). Returns the same shape.
    """
    kernel = tf.constant(np.outer([1, 2, 1], [1, 2, 1]) / 16, x.dtype)[:, :, None, None]
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    return tf.nn.depthwise_conv2d(x, tf.tile(kernel, [1, 1, x.shape[-1], 1]), [1] * 4, "VALID")


def grain(noise, side):
    """A random map for each picture, a function of its noise alone: (B, side, side, 1).

    One fixed map of standard normal numbers, shifted cyclically by as much as two numbers of the
    noise say. Drawn anew for each picture it would be a second kind of latents.

    Args:
        noise: float32 (B, noise_dim), standard normal; in 16 bits shifts would be others.
    """
    fixed = np.random.default_rng(side).standard_normal((side, side))
    uniform = 0.5 + 0.5 * tf.math.erf(noise[:, :2] * 0.5**0.5)
    shift = tf.floor(uniform * side)[..., None]
    # in floats, which are exact here: a GPU leaves the integers' arithmetic to the CPU
    places = tf.cast((tf.range(side, dtype=noise.dtype) + shift) % side, tf.int32)
    rows = tf.gather(tf.constant(fixed, noise.dtype), places[:, 0])
    return tf.gather(rows, places[:, -1], axis=2, batch_dims=1)[..., None]


class Upsample(keras.layers.Layer):
    """Nearest x2, 3x3 convolution, batch norm, ReLU: (B, H, W, C) -> (B, 2H, 2W, filters).

    Args:
        bilinear: smooths after the convolution, which makes it bilinear x2. From nearest x2 alone
            the four pixels of a square come from four sets of weights, which small nets with
            little time do not bring together: a lattice lies over their pictures.
        conditional: scales and shifts every channel by what a layer reads in the condition
            (conditional batch norm, de Vries et al. 2017, arXiv:1707.00683), so that the caption
            reaches each resolution directly.
        noise_injection: adds `grain` to every channel before the ReLU, as strong as each learns:
            texture that no caption says and no weights can draw. After StyleGAN's "noise inputs",
            Sec. 3.2, which are other maps in each layer.

    Call arguments:
        x: float (B, H, W, C).
        condition: float (B, condition_dim), if conditional.
        noise: float32 (B, noise_dim), if noise_injection.
    """

    def __init__(self, filters, conditional=False, bilinear=False, noise_injection=False,
                 name=None):
        super().__init__(name=name, autocast=False)  # the noise stays float32, see `grain`
        self.bilinear = bilinear
        self.noise_strength = None
        if noise_injection:
            self.noise_strength = self.add_weight(name="noise_strength", shape=(filters,),
                                                  initializer="zeros")
        self.conv = UpsampleConv(filters, name="conv")
        self.norm = BatchNorm(name="norm")
        self.modulate = None
        if conditional:  # from zero: at first a plain block
            self.modulate = keras.layers.Dense(2 * filters, kernel_initializer="zeros",
                                               name="modulate")

    def call(self, x, condition=None, noise=None, training=False):
        x = self.conv(x)
        x = self.norm(smooth(x) if self.bilinear else x, training=training)
        if self.modulate is not None:
            scale, shift = tf.split(self.modulate(condition)[:, None, None, :], 2, -1)
            x = x * (1.0 + scale) + shift
        if self.noise_strength is not None:
            random = tf.cast(grain(noise, x.shape[1]), x.dtype)
            # not fused with the sums before, see blocks.Residual
            x = tf.ensure_shape(x, x.shape) + random * tf.cast(self.noise_strength, x.dtype)
        return tf.nn.relu(x)


def enlarge(images, size):
    """Bilinear enlargement of square images: float (B, S, S, C) -> (B, size, size, C).

    As tf.image.resize gives it, which has no gradient under XLA nor a second one.
    """
    old = images.shape[1]
    # pixel i's center, in pixels of the small image; the border's outer half repeats the border
    places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))  # (size, S)
    weights = tf.constant(weights, images.dtype)
    return tf.einsum("yh,xw,bhwc->byxc", weights, weights, images)
