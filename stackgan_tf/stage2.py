"""Stage-II: the 64x64 sketch and the caption become a 256x256 picture.

StackGAN (arXiv:1612.03242), Sec. 3.4.
"""

import keras
import tensorflow as tf

from stackgan_tf import blocks, upsampling
from stackgan_tf.conditioning_augmentation import ConditioningAugmentation
from stackgan_tf.discriminator_blocks import DiscriminatorTrunk, MatchingHead


class Stage2Generator(keras.Model):
    """Stage-II generator; at paper sizes (width 128, 4 residual blocks) 26,290,080 parameters.

    Args:
        stage1_size, image_size: sides of the image that comes in and of the one that goes out.
        width: Gf.
        condition_dim: size of c; 0 leaves the caption out (no text at all, or the "text once"
            ablation, where only Stage-I has read it).
        residual_blocks: the paper takes 4 for 256x256, 2 for 128x128.
        augment: False takes c = mean(e), the paper's ablation.
        condition_blocks: every up-sampling block reads c too.
        halvings: of the sketch before the residual blocks; 2 in the paper, 1 without text (the
            unconditional two-stage GAN).
        relu_condition, log_sigma: of the conditioning augmentation.
        bilinear, noise_injection: as in Stage-I.
        add_to_sketch: the enlarged sketch is the picture at first, and what the network makes is
            added to it; the paper's draws the picture anew.

    Call argument: a dict of
        stage1_images: float (B, stage1_size, stage1_size, 3) in [-1, 1].
        embeddings: float (B, embedding_dim), with text only.
        epsilon: float (B, condition_dim), standard normal, with augmentation only.
        noise: float (B, noise_dim), Stage-I's, with noise_injection only.

    Returns:
        dict of `images` float32 (B, image_size, image_size, 3) in [-1, 1] and, with text, `mean`
        and `log_sigma` (B, condition_dim).
    """

    def __init__(self, stage1_size=64, image_size=256, width=128, condition_dim=128,
                 residual_blocks=4, augment=True, condition_blocks=False, halvings=2,
                 relu_condition=False, log_sigma=0.0, add_to_sketch=False,
                 bilinear=False, noise_injection=False, name="stage2_generator"):
        super().__init__(name=name, autocast=False)  # the latents stay float32
        self.augment = augment
        self.image_size = image_size
        self.add_to_sketch = add_to_sketch
        self.side = stage1_size // 2**halvings
        inner = width * 2**halvings  # 4 Gf at 16x16 in the paper
        self.encoder = [blocks.ConvNorm(width, 3, norm=None, name="encoder_0")]
        self.encoder += [blocks.ConvNorm(width * 2**i, 4, 2, name=f"encoder_{i}")
                         for i in range(1, halvings + 1)]
        self.augmentation = self.joint = None
        if condition_dim:
            self.augmentation = ConditioningAugmentation(condition_dim, relu_condition, log_sigma)
            self.joint = blocks.ConvNorm(inner, 3, name="joint")
        self.residual = [blocks.Residual(inner, name=f"residual_{i}")
                         for i in range(residual_blocks)]
        doublings = (image_size // self.side).bit_length() - 1
        conditional = condition_blocks and condition_dim > 0
        self.up = [upsampling.Upsample(max(inner // 2**(i + 1), 1), conditional, bilinear,
                                       noise_injection, name=f"up_{i}") for i in range(doublings)]
        self.to_rgb = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, name="to_rgb",
                                          kernel_initializer=blocks.normal_init(),
                                          dtype="float32")

    def call(self, inputs, training=False):
        x, condition, statistics = inputs["stage1_images"], None, {}
        for layer in self.encoder:  # 64x64xGf, 32x32x2Gf, 16x16x4Gf
            x = layer(x, training=training)
        if self.augmentation is not None:
            condition, mean, log_sigma = self.augmentation(
                inputs["embeddings"], inputs["epsilon"] if self.augment else None)
            statistics = {"mean": mean, "log_sigma": log_sigma}
            everywhere = blocks.replicate(tf.cast(condition, x.dtype), self.side)
            x = self.joint(tf.concat([x, everywhere], -1), training=training)
        for layer in self.residual:
            x = layer(x, training=training)
        for layer in self.up:  # 32x32x2Gf, 64x64xGf, 128x128xGf/2, 256x256xGf/4
            x = layer(x, condition, inputs.get("noise"), training=training)
        x = self.to_rgb(x)
        if self.add_to_sketch:
            # 0.9: where tanh is nearly flat, what is added would hardly be seen, or learnt
            sketch = upsampling.enlarge(tf.atanh(0.9 * inputs["stage1_images"]), self.image_size)
            x = sketch + tf.ensure_shape(x, x.shape)  # not fused, see blocks.Residual
        return {"images": tf.tanh(x), **statistics}


class Stage2Discriminator(keras.Model):
    """Judges whether a 256x256 image is real and matches the caption.

    Args:
        image_size: side of the images, a power of two.
        width: Df.
        text_dim: size of its own text layer, 0 without text.
        norm: "batch" (the paper), "none" or "spectral".
        unconditional: adds a second head that judges without the caption (released PyTorch
            code, not in the paper).
        projection, minibatch_std: of MatchingHead and DiscriminatorTrunk.
    """

    def __init__(self, image_size=256, width=64, text_dim=128, unconditional=False,
                 norm="batch", projection=False, minibatch_std=0, name="stage2_discriminator"):
        super().__init__(name=name)
        self.trunk = DiscriminatorTrunk(image_size, width, norm, minibatch_std, name="trunk")
        self.head = MatchingHead(width, text_dim, norm, projection, name="head")
        self.unconditional_head = None
        if unconditional:
            self.unconditional_head = MatchingHead(width, 0, norm, name="unconditional_head")

    def features(self, images, training=False):
        """float (B, image_size, image_size, 3) in [-1, 1] -> (B, 4, 4, channels)."""
        return self.trunk(images, training=training)

    def logits(self, features, embeddings=None, training=False):
        """float (B, 4, 4, channels), (B, embedding_dim) -> float32 (B,)."""
        return self.head(features, embeddings, training=training)

    def call(self, inputs, training=False):
        """{"images", "embeddings"} -> logits float32 (B,)."""
        features = self.features(inputs["images"], training)
        if self.unconditional_head is not None:
            self.unconditional_head(features)  # so that it is built with the rest
        return self.logits(features, inputs.get("embeddings"), training)
