"""The blocks that all networks are built of. All maps are (B, H, W, C), convolutions SAME."""

import keras
import tensorflow as tf

# From so many input channels, and to at most so large an output map, a convolution is faster as a
# product of two matrices: `python -m benchmarks.layer_forms`.
PRODUCT_CHANNELS, PRODUCT_SIDE = 1024, 4


def normal_init():
    return keras.initializers.RandomNormal(stddev=0.02)  # DCGAN, kept by StackGAN


def conv(filters, kernel_size, strides=1, init=None, name=None, spectral=False):
    """Convolution without bias, weights N(0, 0.02) unless another initializer is given."""
    kind = SpectralConv if spectral else Conv
    return kind(filters, kernel_size, strides, padding="same", use_bias=False,
                kernel_initializer=init or normal_init(), name=name)


class Conv(keras.layers.Conv2D):
    """keras.layers.Conv2D, padding SAME, in the form that a CPU is faster with for its sizes.

    Stage-II's discriminator ends in 4x4 maps of 2048 channels. There the convolution kernels of a
    CPU spend most of their time on bringing 134 MB of weights into another order, in each step and
    direction; as one product the weights are read as they lie.
    """

    def convolution_op(self, inputs, kernel):
        side = -(-max(inputs.shape[1:3]) // self.strides[0])
        if side <= PRODUCT_SIDE and inputs.shape[-1] >= PRODUCT_CHANNELS:
            return convolution_as_product(inputs, kernel, self.strides[0])
        return super().convolution_op(inputs, kernel)


def convolution_as_product(x, kernel, stride):
    """tf.nn.conv2d(x, kernel, stride, "SAME") as the product of all patches with the kernel.

    Args:
        x: float (B, H, W, C); kernel: (KH, KW, C, filters).

    Returns:
        float (B, ceil(H / stride), ceil(W / stride), filters).
    """
    paddings, sizes = [[0, 0]], []
    for size, reach in zip(x.shape[1:3], kernel.shape[:2], strict=True):
        sizes.append(-(-size // stride))
        missing = max((sizes[-1] - 1) * stride + reach - size, 0)
        paddings.append([missing // 2, missing - missing // 2])
    x = tf.pad(x, [*paddings, [0, 0]])
    height, width = ((size - 1) * stride + 1 for size in sizes)
    patches = tf.concat([x[:, i:i + height:stride, j:j + width:stride]
                         for i in range(kernel.shape[0]) for j in range(kernel.shape[1])], -1)
    rows = tf.reshape(patches, [-1, patches.shape[-1]])
    y = tf.matmul(rows, tf.reshape(kernel, [-1, kernel.shape[-1]]))
    return tf.reshape(y, [-1, *sizes, kernel.shape[-1]])


class SpectralConv(Conv):
    """Conv by W / sigma(W), sigma the largest singular value of W as (inputs of a place, filters).

    Spectral normalization, Miyato et al. 2018 (arXiv:1802.05957), Sec. 2.1: sigma = |W u|, u by
    power iteration. keras.layers.SpectralNormalization iterates in each call, so that the pictures
    of a step would be judged by different networks, and assigns the scaled weights, so that the
    gradient does not pass through sigma.
    """

    def build(self, shape):
        super().build(shape)
        self.u = self.add_weight(name="u", shape=(self.filters,), initializer="random_normal",
                                 trainable=False, dtype="float32", autocast=False)

    def power_iteration(self):
        """One step of u towards the singular vector; the same on every replica."""
        matrix = tf.stop_gradient(self._matrix())
        v = tf.math.l2_normalize(tf.linalg.matvec(matrix, self.u.value))
        u = tf.linalg.matvec(matrix, v, transpose_a=True)
        self.u.assign(tf.math.l2_normalize(u))

    def sigma(self):
        """float32 scalar; its gradient is v u^T, that of sigma with u and v held fixed."""
        image = tf.linalg.matvec(self._matrix(), tf.math.l2_normalize(self.u.value))
        return tf.tensordot(tf.stop_gradient(tf.math.l2_normalize(image)), image, 1)

    def _matrix(self):
        return tf.cast(tf.reshape(self.kernel, [-1, self.filters]), tf.float32)

    def call(self, x):
        # the map is divided and not the weights: where they are many, maps are small
        return super().call(x) / tf.cast(self.sigma(), self.compute_dtype)


def power_iterations(network):
    """Moves the u of every SpectralConv of a network by one step."""
    for layer in network._flatten_layers():
        if isinstance(layer, SpectralConv):
            layer.power_iteration()


def text_dense(units, name=None, dtype=None):
    """First layer of a caption's embedding, which is of variance 1; so is what comes out.

    N(0, 0.02), the released code's, does so for 1024 numbers or more only: with 128 the caption
    is a fifth as loud as the noise that it is added to, and is learnt much later.
    """
    return keras.layers.Dense(units, kernel_initializer="lecun_normal", name=name, dtype=dtype)


class BatchNorm(keras.layers.Layer):
    """Batch norm of the released code: epsilon 1e-5, momentum 0.9, gamma ~ N(1, 0.02).

    What keras.layers.BatchNormalization computes, by one fused kernel instead of ten small ones.
    Statistics are float32 under every precision. Under a tf.distribute strategy they are those of
    the global batch.

    Call arguments:
        x: float (B, C) or (B, H, W, C).
        training: True takes the batch's statistics and moves the stored ones towards them.
    """

    epsilon, momentum = 1e-5, 0.9
    folded = False

    def build(self, shape):
        gamma = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
        for name, initializer, trainable in (
                ("gamma", gamma, True), ("beta", "zeros", True),
                ("moving_mean", "zeros", False), ("moving_variance", "ones", False)):
            setattr(self, name, self.add_weight(
                name=name, shape=shape[-1:], initializer=initializer, trainable=trainable,
                dtype="float32", autocast=False))

    def fold_into(self, kernel):
        """Leaves a bias only, for inference: the scale goes into the weights before this layer.

        Args:
            kernel: variable (..., C) of the convolution or dense layer whose output this reads.
        """
        scale = self.gamma * tf.math.rsqrt(self.moving_variance + self.epsilon)
        kernel.assign(kernel * scale)
        self.beta.assign(self.beta - self.moving_mean * scale)
        self.folded = True

    def call(self, x, training=False):
        if self.folded:
            return tf.nn.bias_add(x, tf.cast(self.beta, x.dtype))
        flat = x.shape.rank == 2
        if flat:
            x = x[:, None, None, :]
        if not training:
            y, _, _ = self._fused(x, self.moving_mean.value, self.moving_variance.value)
        elif tf.distribute.get_replica_context().num_replicas_in_sync > 1:
            y, mean, variance = self._over_replicas(x)
            self._move(mean, variance)
        else:
            y, mean, variance = self._fused(x)
            # The kernel gives the unbiased variance; Keras and the released TensorFlow code keep
            # the biased one.
            count = tf.cast(tf.size(x) / x.shape[-1], tf.float32)
            self._move(mean, variance * (count - 1.0) / count)
        return y[:, 0, 0] if flat else y

    def _fused(self, x, mean=None, variance=None):
        training, none, dtype = mean is None, tf.zeros([0]), x.dtype
        if x.shape[-1] % 16:  # of bfloat16, oneDNN's kernel takes 12 times as long for 8 channels
            x = tf.cast(x, tf.float32)
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x, scale=self.gamma.value, offset=self.beta.value, mean=none if training else mean,
            variance=none if training else variance, epsilon=self.epsilon, is_training=training)
        return tf.cast(y, dtype), mean, variance

    def _over_replicas(self, x):
        """The fused kernel sees one replica's rows only; all replicas have as many."""
        context = tf.distribute.get_replica_context()
        wide = tf.cast(x, tf.float32)
        sums = tf.stack([tf.reduce_sum(wide, [0, 1, 2]), tf.reduce_sum(tf.square(wide), [0, 1, 2])])
        count = tf.cast(tf.size(x) / x.shape[-1] * context.num_replicas_in_sync, tf.float32)
        sums = context.all_reduce("SUM", sums)
        mean, squares = tf.unstack(sums / count)
        variance = tf.maximum(squares - tf.square(mean), 0.0)
        y = tf.nn.batch_normalization(wide, mean, variance, self.beta, self.gamma, self.epsilon)
        return tf.cast(y, x.dtype), mean, variance

    def _move(self, mean, variance):
        for stored, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            # a step that float16's loss scaling skips may have overflowed before
            value = tf.where(tf.math.is_finite(value), tf.stop_gradient(value), stored)
            stored.assign(stored * self.momentum + value * (1 - self.momentum))


def leaky(x):
    return tf.nn.leaky_relu(x, 0.2)


class ConvNorm(keras.layers.Layer):
    """Convolution, normalization, activation.

    Args:
        norm: "batch"; "none", a bias instead, for nets that have no normalization at all;
            "spectral", of the weights, and a bias; or None, neither, for the single layers that
            the paper leaves without.
    """

    def __init__(self, filters, kernel_size, strides=1, activation=tf.nn.relu, norm="batch",
                 name=None):
        super().__init__(name=name)
        has_bias = norm in ("none", "spectral")
        # Without any normalization the scale of the weights counts.
        self.conv = conv(filters, kernel_size, strides, "he_normal" if has_bias else None,
                         name="conv", spectral=norm == "spectral")
        self.norm = BatchNorm(name="norm") if norm == "batch" else None
        self.bias = None
        if has_bias:
            self.bias = self.add_weight(name="bias", shape=(filters,), initializer="zeros")
        self.activation = activation

    def call(self, x, training=False):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, training=training)
        if self.bias is not None:
            x = tf.nn.bias_add(x, tf.cast(self.bias, x.dtype))
        return self.activation(x)


class Residual(keras.layers.Layer):
    """ReLU(x + BN conv ReLU BN conv x), 3x3, channels kept. StackGAN Sec. 3.4."""

    def __init__(self, filters, name=None):
        super().__init__(name=name)
        self.first = ConvNorm(filters, 3, name="first")
        self.second = ConvNorm(filters, 3, activation=tf.identity, name="second")

    def call(self, x, training=False):
        y = self.second(self.first(x, training=training), training=training)
        # ensure_shape keeps this sum out of the convolution: eager TensorFlow would fuse it in
        # and the C++ loader not, and in bfloat16 a served picture would not be `sample`'s.
        return tf.nn.relu(x + tf.ensure_shape(y, y.shape))


def fold_batch_norms(generator):
    """Puts every batch norm of a generator into the layer before it. Then it can only infer."""
    for layer in generator._flatten_layers():
        if isinstance(getattr(layer, "norm", None), BatchNorm):
            layer.norm.fold_into(layer.conv.kernel)
    if hasattr(generator, "fc_norm"):
        generator.fc_norm.fold_into(generator.fc.kernel)
    norms = [layer for layer in generator._flatten_layers() if isinstance(layer, BatchNorm)]
    assert all(norm.folded for norm in norms)


def take_as_folded(generator):
    """Tells a generator that its weights are those of one whose batch norms were folded."""
    for layer in generator._flatten_layers():
        if isinstance(layer, BatchNorm):
            layer.folded = True


def replicate(vector, side):
    """Repeats a vector over a map: (B, C) -> (B, side, side, C)."""
    return tf.broadcast_to(vector[:, None, None, :], [tf.shape(vector)[0], side, side,
                                                      vector.shape[-1]])
