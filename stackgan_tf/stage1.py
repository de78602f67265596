"""Stage-I: a caption and noise become a 64x64 sketch. StackGAN (arXiv:1612.03242), Sec. 3.3."""

import keras
import tensorflow as tf

from stackgan_tf import blocks, upsampling
from stackgan_tf.conditioning_augmentation import ConditioningAugmentation
from stackgan_tf.discriminator_blocks import DiscriminatorTrunk, MatchingHead


class Stage1Generator(keras.Model):
    """Stage-I generator; at paper sizes (width 128, embeddings of 1024) 10,301,248 parameters.

    Args:
        image_size: side of the images, a power of two; the paper's is 64.
        width: Gf; the 4x4 map has 8 Gf channels, every doubling halves them.
        condition_dim: size of c, or 0 for a generator without text.
        augment: False takes c = mean(e), the paper's ablation.
        condition_blocks: every up-sampling block reads c too, not the first layer alone.
        relu_condition, log_sigma: of the conditioning augmentation.
        bilinear: the blocks double maps bilinearly, not by nearest neighbours as the paper's.
        noise_injection: of upsampling.Upsample.

    Call argument: a dict of
        noise: float (B, noise_dim), standard normal.
        embeddings: float (B, embedding_dim), with text only.
        epsilon: float (B, condition_dim), standard normal, with augmentation only.

    Returns:
        dict of `images` float32 (B, image_size, image_size, 3) in [-1, 1] and, with text, `mean`
        and `log_sigma` (B, condition_dim).
    """

    def __init__(self, image_size=64, width=128, condition_dim=128, augment=True,
                 condition_blocks=False, relu_condition=False, log_sigma=0.0,
                 bilinear=False, noise_injection=False, name="stage1_generator"):
        super().__init__(name=name, autocast=False)  # the latents stay float32
        self.width = width
        self.augment = augment
        self.augmentation = None
        if condition_dim:
            self.augmentation = ConditioningAugmentation(condition_dim, relu_condition, log_sigma)
        self.fc = keras.layers.Dense(4 * 4 * 8 * width, use_bias=False, name="fc",
                                     kernel_initializer=blocks.normal_init())
        self.fc_norm = blocks.BatchNorm(name="fc_norm")
        doublings = image_size.bit_length() - 3
        conditional = condition_blocks and condition_dim > 0
        self.up = [upsampling.Upsample(8 * width // 2**(i + 1), conditional, bilinear,
                                       noise_injection, name=f"up_{i}") for i in range(doublings)]
        self.to_rgb = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, name="to_rgb",
                                          kernel_initializer=blocks.normal_init(),
                                          dtype="float32")

    def call(self, inputs, training=False):
        x, condition, statistics = inputs["noise"], None, {}
        if self.augmentation is not None:
            condition, mean, log_sigma = self.augmentation(
                inputs["embeddings"], inputs["epsilon"] if self.augment else None)
            statistics = {"mean": mean, "log_sigma": log_sigma}
            x = tf.concat([x, condition], -1)  # (B, noise_dim + condition_dim)
        x = tf.nn.relu(self.fc_norm(self.fc(x), training=training))
        x = tf.reshape(x, [-1, 4, 4, 8 * self.width])
        for layer in self.up:  # 8x8x4Gf, 16x16x2Gf, 32x32xGf, 64x64xGf/2
            x = layer(x, condition, inputs["noise"], training=training)
        return {"images": tf.tanh(self.to_rgb(x)), **statistics}


class Stage1Discriminator(keras.Model):
    """Judges whether a 64x64 image is real and matches the caption.

    Args:
        image_size: side of the images, a power of two.
        width: Df; the 4x4 map has 8 Df channels.
        text_dim: size of its own text layer, 0 without text.
        norm: "batch" (the paper), "none" or "spectral".
        projection, minibatch_std: of MatchingHead and DiscriminatorTrunk.

    `features` is apart from `logits`, so that the features of real images are computed once and
    judged twice: with the right caption and with a wrong one.
    """

    def __init__(self, image_size=64, width=64, text_dim=128, norm="batch", projection=False,
                 minibatch_std=0, name="stage1_discriminator"):
        super().__init__(name=name)
        self.trunk = DiscriminatorTrunk(image_size, width, norm, minibatch_std, name="trunk")
        self.head = MatchingHead(width, text_dim, norm, projection, name="head")
        self.unconditional_head = None

    def features(self, images, training=False):
        """float (B, image_size, image_size, 3) in [-1, 1] -> (B, 4, 4, channels)."""
        return self.trunk(images, training=training)

    def logits(self, features, embeddings=None, training=False):
        """float (B, 4, 4, channels), (B, embedding_dim) -> float32 (B,)."""
        return self.head(features, embeddings, training=training)

    def call(self, inputs, training=False):
        """{"images", "embeddings"} -> logits float32 (B,)."""
        return self.logits(self.features(inputs["images"], training), inputs.get("embeddings"),
                           training)
