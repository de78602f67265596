"""The Inception v3 of the FID: Google's 2015 graph, as Keras layers.

Szegedy et al. 2015 (arXiv:1512.00567), with what tells this one from all others: average pools
leave the padding out, the last block pools by the maximum, 1,008 classes, and its own weights, read
from a file that the user names. `keras.applications.InceptionV3` is another network.

pytorch-fid's names are used here: Mixed_5b.branch1x1 is the graph's mixed/conv.
"""

import keras
import numpy as np

from stackgan_tf.network_weights import fold, take

NAME = "inception_2015"
SIZE, CLASSES, EPSILON = 299, 1008, 1e-3

# SHA-256 of the files that hold the weights that every FID is computed with.
PUBLISHED = {
    # pytorch-fid's pt_inception-2015-12-05-6726825d.pth, torch-fidelity's weights-inception-...
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    # classify_image_graph_def.pb of inception-2015-12-05.tgz
    "009d6814d1bc560d4e7b236e170e9b2d5ca6f4b57bd8037f6db05776204415c6",
}

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_MIXED = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")
_IN_GRAPH = {  # a branch's convolutions in the graph, by the kind of block
    "5": {"branch1x1": "", "branch5x5": "tower", "branch3x3dbl": "tower_1",
          "branch_pool": "tower_2"},
    "6a": {"branch3x3": "", "branch3x3dbl": "tower"},
    "6": {"branch1x1": "", "branch7x7": "tower", "branch7x7dbl": "tower_1",
          "branch_pool": "tower_2"},
    "7a": {"branch3x3": "tower", "branch7x7x3": "tower_1"},
    "7": {"branch1x1": "", "branch3x3": "tower", "branch3x3dbl": "tower_1",
          "branch_pool": "tower_2"},
}


def graph_name(name: str) -> str:
    """The graph's name of one of pytorch-fid's convolutions."""
    if name in _STEM:
        return _numbered("conv", _STEM.index(name))
    block, branch = name.removeprefix("Mixed_").split(".")
    branch, _, place = branch.partition("_") if "pool" not in branch else (branch, "", "")
    towers = _IN_GRAPH[block if block in _IN_GRAPH else block[0]]
    path = [_numbered("mixed", _MIXED.index(block)), *filter(None, [towers[branch]])]
    if place and place[-1] in "ab":  # 1x3 and 3x1 side by side
        path += ["mixed", _numbered("conv", "ab".index(place[-1]))]
    else:
        path.append(_numbered("conv", int(place or 1) - 1))
    return "/".join(path)


def _numbered(word, number):
    return f"{word}_{number}" if number else word


def build(tensors: dict[str, np.ndarray]) -> keras.Model:
    """images float (B, 299, 299, 3) in [-1, 1] -> {"features": (B, 2048), "logits": (B, 1008)}.

    The logits are without the bias, as in Salimans et al.'s Inception Score.

    Args:
        tensors: pytorch-fid's state dict, or the constants of the graph.

    Raises ValueError if one is missing or of another shape.
    """
    layers = _Layers(tensors)
    images = keras.Input((SIZE, SIZE, 3), dtype="float32")
    x = layers.conv(images, "Conv2d_1a_3x3", 32, 3, 2, "valid")  # 149
    x = layers.conv(x, "Conv2d_2a_3x3", 32, 3, 1, "valid")  # 147
    x = _max_pool(layers.conv(x, "Conv2d_2b_3x3", 64, 3))  # 73
    x = layers.conv(x, "Conv2d_3b_1x1", 80, 1)
    x = _max_pool(layers.conv(x, "Conv2d_4a_3x3", 192, 3, 1, "valid"))  # 35
    for block, width in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = _block_a(layers.within(block), x, width)
    x = _block_b(layers.within("6a"), x)  # 17
    for block, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = _block_c(layers.within(block), x, width)
    x = _block_d(layers.within("7a"), x)  # 8
    x = _block_e(layers.within("7b"), x, keras.layers.AveragePooling2D)
    x = _block_e(layers.within("7c"), x, keras.layers.MaxPooling2D)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(x)
    logits = keras.layers.Dense(CLASSES, use_bias=False, name="fc", dtype="float32")
    model = keras.Model(images, {"features": features, "logits": logits(features)}, name=NAME)
    logits.set_weights([layers.classifier()])
    return model


class _Layers:
    """Makes convolutions of their names, each with its weights."""

    def __init__(self, tensors, prefix=""):
        self.tensors, self.prefix = tensors, prefix
        self.of_graph = "softmax/weights" in tensors

    def within(self, block):
        return _Layers(self.tensors, f"Mixed_{block}.")

    def conv(self, x, name, filters, kernel, strides=1, padding="same"):
        size = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        name = self.prefix + name
        layer = keras.layers.Conv2D(filters, size, strides, padding, activation="relu",
                                    name=name.replace(".", "_"), dtype="float32")
        y = layer(x)
        layer.set_weights(self.weights(name, (*size, x.shape[-1], filters)))
        return y

    def chain(self, x, *steps):
        for step in steps:
            x = self.conv(x, *step)
        return x

    def weights(self, name, shape):
        if self.of_graph:
            name = graph_name(name)
            norm, names = f"{name}/batchnorm", ("gamma", "beta", "moving_mean", "moving_variance")
            kernel = take(self.tensors, f"{name}/conv2d_params", shape)
            return fold(kernel, *(take(self.tensors, f"{norm}/{n}", shape[-1:]) for n in names),
                        EPSILON)
        names = ("weight", "bias", "running_mean", "running_var")
        kernel = take(self.tensors, f"{name}.conv.weight", (*shape[:1:-1], *shape[:2]))
        return fold(kernel.transpose(2, 3, 1, 0),
                    *(take(self.tensors, f"{name}.bn.{n}", shape[-1:]) for n in names), EPSILON)

    def classifier(self):
        if self.of_graph:
            return take(self.tensors, "softmax/weights", (2048, CLASSES))
        return take(self.tensors, "fc.weight", (CLASSES, 2048)).T


def _max_pool(x):
    return keras.layers.MaxPooling2D(3, 2, dtype="float32")(x)


def _pool(x, kind=keras.layers.AveragePooling2D):
    return kind(3, 1, "same", dtype="float32")(x)  # Keras averages over what is not padding


def _join(*parts):
    return keras.layers.Concatenate(dtype="float32")(parts)


def _block_a(layers, x, width):
    return _join(
        layers.conv(x, "branch1x1", 64, 1),
        layers.chain(x, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        layers.chain(x, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3),
                     ("branch3x3dbl_3", 96, 3)),
        layers.conv(_pool(x), "branch_pool", width, 1))


def _block_b(layers, x):
    return _join(
        layers.conv(x, "branch3x3", 384, 3, 2, "valid"),
        layers.chain(x, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3),
                     ("branch3x3dbl_3", 96, 3, 2, "valid")),
        _max_pool(x))


def _block_c(layers, x, width):
    return _join(
        layers.conv(x, "branch1x1", 192, 1),
        layers.chain(x, ("branch7x7_1", width, 1), ("branch7x7_2", width, (1, 7)),
                     ("branch7x7_3", 192, (7, 1))),
        layers.chain(x, ("branch7x7dbl_1", width, 1), ("branch7x7dbl_2", width, (7, 1)),
                     ("branch7x7dbl_3", width, (1, 7)), ("branch7x7dbl_4", width, (7, 1)),
                     ("branch7x7dbl_5", 192, (1, 7))),
        layers.conv(_pool(x), "branch_pool", 192, 1))


def _block_d(layers, x):
    return _join(
        layers.chain(x, ("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2, "valid")),
        layers.chain(x, ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)),
                     ("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2, "valid")),
        _max_pool(x))


def _block_e(layers, x, pool):
    middle = layers.conv(x, "branch3x3_1", 384, 1)
    deep = layers.chain(x, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3))
    return _join(
        layers.conv(x, "branch1x1", 320, 1),
        layers.conv(middle, "branch3x3_2a", 384, (1, 3)),
        layers.conv(middle, "branch3x3_2b", 384, (3, 1)),
        layers.conv(deep, "branch3x3dbl_3a", 384, (1, 3)),
        layers.conv(deep, "branch3x3dbl_3b", 384, (3, 1)),
        layers.conv(_pool(x, pool), "branch_pool", 192, 1))
