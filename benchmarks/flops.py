"""Floating-point operations of the networks of the paper's tables, counted from the layer shapes.

Counted is the plain algorithm: a 3x3 convolution behind every doubling, whatever form computes it.
A multiply-add is two operations. Only matrix products and convolutions count; normalization,
activations, losses, Adam and the moving average are left out. All figures are of one picture.

`config` is a stackgan_tf Config with text and the paper's blocks: no `condition_blocks`, no
`noise_injection`, and no R1 penalty, which would differentiate the discriminator twice.
"""

from typing import NamedTuple

STAGE1_SIZE = 64  # side of the sketch under Stage-II


class Layer(NamedTuple):
    """A layer's `forward` operations; `leaf` if nothing below it needs a gradient."""

    name: str
    forward: int
    leaf: bool = False


def convolution(name, side, kernel, inner, outer, leaf=False):
    """`side` is that of the map that comes out."""
    return Layer(name, 2 * side**2 * kernel**2 * inner * outer, leaf)


def dense(name, inner, outer, leaf=False):
    return Layer(name, 2 * inner * outer, leaf)


def stage1_generator(config, image_size=STAGE1_SIZE):
    width, condition = config.generator_width, config.condition_dim
    layers = [dense("text", config.embedding_dim, 2 * condition, leaf=True),
              dense("fc", config.noise_dim + condition, 4 * 4 * 8 * width)]
    side, channels = 4, 8 * width
    while side < image_size:
        side, inner, channels = 2 * side, channels, channels // 2
        layers.append(convolution("up", side, 3, inner, channels))
    return layers + [convolution("to_rgb", side, 3, channels, 3)]


def stage2_generator(config):
    """Without the Stage-I below it."""
    width, side = config.generator_width, STAGE1_SIZE
    layers = [convolution("encoder", side, 3, 3, width, leaf=True)]
    channels = width
    for _ in range(2):
        side, inner, channels = side // 2, channels, 2 * channels
        layers.append(convolution("encoder", side, 4, inner, channels))
    layers.append(dense("text", config.embedding_dim, 2 * config.condition_dim, leaf=True))
    layers.append(convolution("joint", side, 3, channels + config.condition_dim, channels))
    layers += [convolution("residual", side, 3, channels, channels)
               for _ in range(2 * config.residual_blocks)]
    while side < config.image_size:
        side, inner, channels = 2 * side, channels, channels // 2
        layers.append(convolution("up", side, 3, inner, channels))
    return layers + [convolution("to_rgb", side, 3, channels, 3)]


def trunk(config):
    """The discriminator from the picture to 4x4x(8 Df)."""
    layers, side, channels = [], config.image_size, 3
    outer = config.discriminator_width
    while side > 4:
        side //= 2
        layers.append(convolution("down", side, 4, channels, outer, leaf=not layers))
        channels, outer = outer, 2 * outer
    while channels > 8 * config.discriminator_width:
        layers.append(convolution("narrow", side, 3, channels, channels // 2))
        channels //= 2
    return layers


def heads(config):
    """(layers of the head with the caption, layers of the one without, if there is one)."""
    channels, text = 8 * config.discriminator_width, config.condition_dim
    logit = convolution("logit", 1, 4, channels, 1)
    matching = [dense("text", config.embedding_dim, text, leaf=True),
                convolution("joint", 4, 1, channels + text, channels), logit]
    return matching, [logit] if config.unconditional_head else []


def forward(layers):
    return sum(layer.forward for layer in layers)


def backward(layers):
    """The gradients of the weights and of what comes in, each as much work as the forward pass."""
    return 2 * forward(layers) - sum(layer.forward for layer in layers if layer.leaf)


def generator(config):
    """The generator that the stage trains."""
    if config.stage == 1:
        return stage1_generator(config, config.image_size)
    return stage2_generator(config)


def inference(config):
    """A picture from noise and an embedding; in Stage-II with the Stage-I below it."""
    below = forward(stage1_generator(config)) if config.stage == 2 else 0
    return below + forward(generator(config))


def training_step(config):
    """A discriminator step and a generator step, as stackgan_tf/stackgan.py plays them.

    The fakes are made once for both; the real picture's features are computed once and judged with
    the right and the wrong caption.
    In the generator's step the discriminator's weights need no gradient.
    """
    matching, unconditional = heads(config)
    d_step = (2 * (forward(trunk(config)) + backward(trunk(config)))
              + 3 * (forward(matching) + backward(matching))
              + 2 * (forward(unconditional) + backward(unconditional)))
    judge = trunk(config) + matching + unconditional
    text = matching[:1]  # no gradient passes through the caption's layer
    g_step = forward(judge) + forward(judge) - forward(text) + backward(generator(config))
    return inference(config) + d_step + g_step
