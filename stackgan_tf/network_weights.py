"""Weights of networks that others trained, from their files, for inference."""

import hashlib
import os

import numpy as np
import tensorflow as tf

from stackgan_tf import pytorch_file


def sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: str) -> dict[str, np.ndarray]:
    """{name: array} of a PyTorch state dict (.pth, .pt), a frozen TensorFlow graph (.pb) or a NumPy
    archive (.npz). Nothing in a file is run.

    Raises:
        ValueError: one line with what is wrong in it.
        OSError: it cannot be opened.
    """
    kind = os.path.splitext(path)[1].lower()
    if kind in (".pth", ".pt"):
        return pytorch_file.read(path)
    if kind not in (".npz", ".pb"):
        raise ValueError(f"{path} is neither .pth, .npz nor .pb.")
    with open(path, "rb") as file:
        try:
            if kind == ".npz":
                with np.load(file, allow_pickle=False) as archive:
                    return {name: archive[name] for name in archive.files}
            graph = tf.compat.v1.GraphDef.FromString(file.read())
            return {node.name: tf.make_ndarray(node.attr["value"].tensor) for node in graph.node
                    if node.op == "Const" and node.attr["value"].tensor.dtype == tf.float32}
        except Exception as error:  # on a damaged file nearly anything
            raise ValueError(f"{path} is damaged or of another format ({type(error).__name__}); "
                             "get it again.") from error


def take(tensors: dict[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor as float64; ValueError if it is missing, of another shape or not finite."""
    if name not in tensors:
        raise ValueError(f"it has no {name}.")
    array = tensors[name]
    if array.shape != shape:
        raise ValueError(f"its {name} is {array.shape} and should be {shape}.")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError(f"its {name} is not finite numbers.")
    return array.astype(np.float64)


def fold(kernel: np.ndarray, gamma, beta, mean, variance, epsilon: float) -> list[np.ndarray]:
    """The kernel and bias of a convolution that has the batch norm behind it in it.

    Args:
        kernel: float64 (..., filters).
        gamma, beta, mean, variance: float64 (filters,).

    Raises ValueError where they make no finite float32 numbers.
    """
    if variance.min() < 0:
        raise ValueError(f"the variance of a batch norm is {variance.min():g}, below 0.")
    scale = gamma / np.sqrt(variance + epsilon)
    with np.errstate(over="ignore", invalid="ignore"):
        made = [(kernel * scale).astype(np.float32), (beta - mean * scale).astype(np.float32)]
    if not all(np.isfinite(array).all() for array in made):
        raise ValueError("a convolution and its batch norm make numbers beyond float32.")
    return made
