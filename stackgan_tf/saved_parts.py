"""What was trained before and is stood on: SavedModels that are called and never changed."""

import contextlib
import os
import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from stackgan_tf import disk
from stackgan_tf.config import UserError
from stackgan_tf.messages import reason

OTHER = "put it back whole, or name another"
WRAP = "call it in a tf.function of that signature and save that, or name another"


def refuse_pattern(path: str) -> None:
    """UserError for a path that TensorFlow writes checkpoints and SavedModels to and cannot read
    them from: it takes it for a pattern, as it is spelled here."""
    if re.search(r"\[.*\]" if os.name == "nt" else r"\[.*\]|\\", path):
        raise UserError(f"{path}: TensorFlow cannot read models from a path with [...] or a "
                        "backslash, which it takes for a pattern; rename that folder, choose "
                        "another, or give the path from within it.")


@contextlib.contextmanager
def _tried(what):
    """UserError for whatever a stranger's graph raises when it is called."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what} ({reason(error)}); {WRAP}.") from error


class SavedPart:
    """A SavedModel that another part stands on, frozen: called, never trained or checkpointed.

    Attributes:
        loaded: the loaded object, to be tracked by an export that contains it.
        inputs: {name: TensorSpec} of its `serving_default` signature.
        outputs: likewise.

    Args:
        what: its name in errors.
        remedy: what to do if it cannot be loaded; of a run's own, run_folder.Part.remedy.
    """

    def __init__(self, path: str, what: str, remedy: str = OTHER):
        if not tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
            inner = os.path.join(path, "saved_model")
            raise UserError(f"{what} {path} is no SavedModel folder (it has no saved_model.pb); "
                            f"{f'give {inner}' if tf.io.gfile.exists(inner) else remedy}.")
        refuse_pattern(path)
        try:
            self.loaded = tf.saved_model.load(path)
        except (OSError, ValueError, IndexError, tf.errors.OpError) as error:
            if disk.is_forbidden(error):
                remedy = "see to the permissions"
            raise UserError(f"{what} {path} cannot be loaded ({reason(error)}); {remedy}."
                            ) from error
        if "serving_default" not in self.loaded.signatures:
            raise UserError(f"{what} {path} has no signature serving_default; export it with one, "
                            "or name another.")
        self.path = path
        self.function = self.loaded.signatures["serving_default"]
        self.inputs = self.function.structured_input_signature[1]
        self.outputs = self.function.structured_outputs

    def __call__(self, inputs: dict) -> dict:
        """Calls the signature with those of `inputs` that it asks for."""
        return self.function(**{name: inputs[name] for name in self.inputs})


def is_whole(path: str) -> bool:
    """Whether there is a SavedModel that can be loaded."""
    try:
        SavedPart(path, "")
    except UserError:
        return False
    return True


def with_constants(function) -> Callable:
    """A concrete function from named tensors to named tensors, its weights made constants; it takes
    a dict that may hold more than it reads.

    On CPUs TensorFlow's convolutions lay constant weights out once, variables at each call, which
    one picture waits for longer than many: the numbers are the same, and one picture of Stage-II at
    the paper's sizes comes 1.6 times as fast. It costs memory: each function that is called has
    copies of the weights. Its `function` is the concrete function.
    """
    frozen = convert_variables_to_constants_v2(function)
    names = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    outputs = list(function.structured_outputs)

    def call(inputs):
        found = frozen(*(inputs[name] for name in names))
        return found if isinstance(found, dict) else dict(zip(outputs, found, strict=True))

    call.function = frozen
    return call


class TextEncoder(SavedPart):
    """captions: string [B] -> embeddings: float32 [B, dim], from any SavedModel that does so."""

    def __init__(self, path: str, remedy: str = OTHER):
        super().__init__(path, "text encoder", remedy)
        kinds = [(spec.dtype, spec.shape.rank, *spec.shape[:1]) for spec in self.inputs.values()]
        outputs = [(name, spec) for name, spec in self.outputs.items()
                   if spec.dtype.is_floating and spec.shape.rank == 2]
        if kinds != [(tf.string, 1, None)] or len(outputs) != 1 or outputs[0][1].shape[1] is None:
            raise UserError(f"text encoder {path} does not map string [B] to float [B, dim]: its "
                            f"inputs are {self.inputs}, its outputs {self.outputs}; {WRAP}.")
        (self.input_name,), (self.output_name, spec) = self.inputs, outputs[0]
        self.dim = int(spec.shape[1])

    def __call__(self, captions) -> tf.Tensor:
        vectors = self.function(**{self.input_name: tf.convert_to_tensor(captions, tf.string)})
        return tf.cast(vectors[self.output_name], tf.float32)

    def check(self) -> None:
        """UserError if it does not embed two captions, each as it does alone; of other people's."""
        captions = ["this flower has red petals", "a small bird with a blue head"]
        with _tried(f"text encoder {self.path} cannot embed {captions[0]!r}"):
            both, one = self(captions).numpy(), self(captions[:1]).numpy()
        if both.shape != (2, self.dim) or one.shape != (1, self.dim):
            raise UserError(f"text encoder {self.path} makes {both.shape} of two captions and "
                            f"{one.shape} of one; {WRAP}.")
        if not np.isfinite(both).all():
            raise UserError(f"text encoder {self.path} embeds {captions} as numbers that are not "
                            "finite; take another.")
        if np.linalg.norm(one[0] - both[0]) > 0.01 * np.linalg.norm(both[0]):
            raise UserError(f"text encoder {self.path} embeds {captions[0]!r} in one way and then "
                            "in another; export it for inference, without dropout.")

    def fingerprint(self) -> list[float]:
        """What it makes of one fixed caption: tells it from another encoder of the same size."""
        return self(["this small flower has 5 yellow petals, a red bird sits on it"])[0].numpy(
            ).tolist()

    def has(self, fingerprint: np.ndarray) -> bool:
        """Whether that is its fingerprint, but for rounding: float (dim,)."""
        ours = np.array(self.fingerprint())
        return ours.shape == fingerprint.shape and bool(
            np.linalg.norm(ours - fingerprint) <= 0.01 * np.linalg.norm(fingerprint))


class Stage(SavedPart):
    """{noise, epsilon, embeddings} -> images [B, H, W, 3] in [-1, 1]."""

    def __init__(self, path: str, what: str, remedy: str = OTHER):
        super().__init__(path, what, remedy)
        names, image = set(self.inputs), self.outputs.get("images")
        sized = all(spec.shape.rank == 2 and spec.shape[0] is None and spec.shape[1]
                    and spec.dtype == tf.float32 for spec in self.inputs.values())
        if not sized or "noise" not in names or names - {"noise", "epsilon", "embeddings"} or (
                image is None or image.shape.rank != 4 or image.shape[3] != 3
                or not image.dtype.is_floating):
            raise UserError(f"{what} {path} does not map noise [B, n] (and epsilon, embeddings) of "
                            "float32 to float images [B, H, W, 3]: its inputs are "
                            f"{self.inputs}, its outputs {self.outputs}; {WRAP}.")


class Stage1(Stage):
    """A Stage-I as it lies frozen under Stage-II."""

    def __init__(self, path: str, remedy: str = OTHER):
        super().__init__(path, "Stage-I", remedy)
        image = self.outputs["images"]
        self.size = image.shape[1] or 0
        if self.size < 8 or self.size & (self.size - 1) or image.shape[2] != self.size:
            raise UserError(f"Stage-I {path} makes images of {image.shape[1]}x{image.shape[2]}; "
                            "Stage-II needs a square of 8, 16, 32, 64 ... pixels.")

    def check(self) -> None:
        """UserError if it does not draw two pictures in [-1, 1]; of other people's."""
        inputs = {name: tf.random.stateless_normal([2, self.dim(name)], [0, 0])
                  for name in self.inputs}
        with _tried(f"Stage-I {self.path} cannot draw"):
            images = self(inputs).numpy()
        if images.shape != (2, self.size, self.size, 3):
            raise UserError(f"Stage-I {self.path} makes images {images.shape} of two rows; {WRAP}.")
        if not np.isfinite(images).all() or np.abs(images).max() > 1.01:
            raise UserError(f"Stage-I {self.path} draws pixels from {images.min():g} to "
                            f"{images.max():g}; they are to be from -1 to 1, so scale them, or "
                            "take another.")

    def dim(self, name: str) -> int:
        """Size of an input, 0 if Stage-I does not read it."""
        return int(self.inputs[name].shape[1]) if name in self.inputs else 0

    def __call__(self, inputs: dict) -> tf.Tensor:
        return super().__call__(inputs)["images"]
