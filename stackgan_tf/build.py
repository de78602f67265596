"""From a Config to the things it names. The only place that knows names."""

import contextlib
import importlib
import itertools
import os
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import datasets, stage1, stage2
from stackgan_tf.config import Config, UserError
from stackgan_tf.datasets import folder, prepared
from stackgan_tf.pipeline import Batches, Examples, text
from stackgan_tf.stackgan import StackGAN
from stackgan_tf.stream import Stream


def load_batches(config: Config) -> Batches | Stream:
    """The training batches of a stage, from memory or, of a large prepared set, streamed."""
    stream = open_stream(config, config.batch_size, config.captions_per_embedding)
    return stream or Batches(load_examples(config, "train"), config.image_size, config.batch_size,
                             config.seed, config.captions_per_embedding)


def open_stream(config: Config, batch_size: int, captions_per_embedding: int) -> Stream | None:
    """The training pictures as a stream; None for a set that is to be read into memory.

    Which of the two follows from the flags and the data alone: on another machine a run must go
    on in the same order.
    """
    if config.dataset != "prepared":
        return None
    with _one_line(config):
        train = prepared.describe(config, "train")
    kept = len(train) * config.load_size**2 * 3 + train.captions * config.embedding_dim * 4
    if kept <= config.memory_gb * 2**30:
        return None
    return Stream(train, config.image_size, config.load_size, batch_size, config.seed,
                  config.shuffle_buffer, captions_per_embedding)


def load_examples(config: Config, split: str, most: int | None = None) -> Examples:
    """The pictures and captions of --dataset, `split` "train" or "test", at config.load_size;
    only the first `most` if given."""
    with _one_line(config):
        _check_room(config, most)
        return Examples(itertools.islice(_elements(config, split), most), config.load_size)


def load_elements(config: Config, split: str) -> Iterator[dict]:
    """The data set's elements as they come, one dict of NumPy values a picture."""
    with _one_line(config):
        yield from _elements(config, split)


def _check_room(config, most):
    """UserError, before any picture is opened, if a folder's copy would fill the disk."""
    if config.dataset != "folder":
        return
    count = folder.count(config.data_dir)
    place, needed = tempfile.gettempdir(), min(count, most or count) * config.load_size**2 * 3
    free = shutil.disk_usage(place).free
    if needed > free / 2:
        raise UserError(
            f"--data_dir={config.data_dir}: {count:,} pictures at {config.load_size}x"
            f"{config.load_size} take {needed / 2**30:.1f} GB in {place}, more than half of the "
            f"{free / 2**30:.1f} GB left there; prepare them once and train on that: python -m "
            f"stackgan_tf.prepare --dataset=folder --data_dir={config.data_dir} --output=OUT (or "
            "point TMPDIR at a larger disk).")
    if needed > 2**30:
        print(f"keeping up to {count:,} pictures in {place}: {needed / 2**30:.1f} GB", flush=True)


@contextlib.contextmanager
def _one_line(config):
    """What data sets raise, as one line for the user."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:  # what the data sets raise, in one line
        raise UserError(str(error)) from error
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"--dataset={config.dataset} --data_dir={config.data_dir!r}: "
                        f"{str(error).splitlines()[0][:300]}; give a --data_dir with room that can "
                        "be read and written.") from error


def fixed_captions(config: Config, count: int) -> list[str]:
    """`count` captions of the test split (of "train" if there is none), one a picture."""
    try:
        elements = _elements(config, "test")
    except ValueError:  # a folder may have no test split
        elements = _elements(config, "train")
    first = [row["captions"] for row in itertools.islice(elements, 64 * count)]
    # one further each time: data sets that go through their classes in turn are common
    chosen = [first[(i * (len(first) // count) + i) % len(first)] for i in range(count)]
    return [text(captions[i % len(captions)]) for i, captions in enumerate(chosen)]


def _elements(config, split):
    """The data set's elements, one dict of NumPy values a picture."""
    names = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
    if config.dataset not in names:
        raise UserError(f"--dataset={config.dataset} is unknown; choose one of "
                        f"{', '.join(names)}.")
    module = importlib.import_module(f"stackgan_tf.datasets.{config.dataset}")
    # A plain generator, where a data set has one, keeps its error messages short.
    if hasattr(module, "examples"):
        return module.examples(config, split)
    return module.load(config, split).as_numpy_iterator()


class SavedPart:
    """A SavedModel that another part stands on, frozen: called, never trained or checkpointed.

    Attributes:
        loaded: the loaded object, to be tracked by an export that contains it.
        inputs: {name: TensorSpec} of its `serving_default` signature.
        outputs: likewise.
    """

    def __init__(self, path: str, what: str):
        if not tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
            raise UserError(f"{what} {path} is no SavedModel folder (it has no saved_model.pb).")
        try:
            self.loaded = tf.saved_model.load(path)
        except (OSError, ValueError, IndexError, tf.errors.OpError) as error:
            raise UserError(f"{what} {path} cannot be loaded: "
                            f"{str(error).splitlines()[0][:200]}") from error
        if "serving_default" not in self.loaded.signatures:
            raise UserError(f"{what} {path} has no signature serving_default.")
        self.path = path
        self.function = self.loaded.signatures["serving_default"]
        self.inputs = self.function.structured_input_signature[1]
        self.outputs = self.function.structured_outputs

    def __call__(self, inputs: dict) -> dict:
        """Calls the signature with those of `inputs` that it asks for."""
        return self.function(**{name: inputs[name] for name in self.inputs})


class TextEncoder(SavedPart):
    """captions: string [B] -> embeddings: float32 [B, dim], from any SavedModel that does so."""

    def __init__(self, path: str):
        super().__init__(path, "text encoder")
        kinds = [spec.dtype for spec in self.inputs.values()]
        outputs = [(name, spec) for name, spec in self.outputs.items()
                   if spec.dtype.is_floating and spec.shape.rank == 2]
        if kinds != [tf.string] or len(outputs) != 1 or outputs[0][1].shape[1] is None:
            raise UserError(f"text encoder {path} does not map string [B] to float [B, dim]: its "
                            f"inputs are {self.inputs}, its outputs {self.outputs}.")
        (self.input_name,), (self.output_name, spec) = self.inputs, outputs[0]
        self.dim = int(spec.shape[1])

    def __call__(self, captions) -> tf.Tensor:
        vectors = self.function(**{self.input_name: tf.constant(captions, tf.string)})
        return tf.cast(vectors[self.output_name], tf.float32)


class Stage1(SavedPart):
    """{noise, epsilon, embeddings} -> images in [-1, 1], frozen under Stage-II."""

    def __init__(self, path: str):
        super().__init__(path, "Stage-I")
        names, image = set(self.inputs), self.outputs.get("images")
        sized = all(spec.shape.rank == 2 and spec.shape[1] for spec in self.inputs.values())
        if not sized or "noise" not in names or names - {"noise", "epsilon", "embeddings"} or (
                image is None or image.shape.rank != 4):
            raise UserError(f"Stage-I {path} does not map noise [B, n] (and epsilon, embeddings) "
                            f"to images: its inputs are {self.inputs}, its outputs {self.outputs}.")
        self.size = image.shape[1] or 0
        if self.size < 8 or self.size & (self.size - 1) or image.shape[2] != self.size:
            raise UserError(f"Stage-I {path} makes images of {image.shape[1]}x{image.shape[2]}; "
                            "Stage-II needs a square of 8, 16, 32, 64 ... pixels.")

    def dim(self, name: str) -> int:
        """Size of an input, 0 if Stage-I does not read it."""
        return int(self.inputs[name].shape[1]) if name in self.inputs else 0

    def __call__(self, inputs: dict) -> tf.Tensor:
        return super().__call__(inputs)["images"]


def gan(config: Config, frozen_stage1: Stage1 | None = None) -> tuple[StackGAN, keras.Model]:
    """The GAN of a stage with built networks, and a second generator for the moving average.

    The weights follow from config.seed; both generators start alike.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(precision(config))
    text_dim = config.condition_dim if config.embedding_dim else 0
    dims = {"noise": config.noise_dim}
    if text_dim and config.conditioning_augmentation:
        dims["epsilon"] = config.condition_dim
    if config.stage == 1:
        def make_generator():
            return stage1.Stage1Generator(config.image_size, config.generator_width, text_dim,
                                          config.conditioning_augmentation)
        discriminator = stage1.Stage1Discriminator(config.image_size, config.discriminator_width,
                                                   text_dim, config.discriminator_norm)
    else:
        dims = _stage2_dims(config, dims, frozen_stage1)

        def make_generator():
            return stage2.Stage2Generator(
                frozen_stage1.size, config.image_size, config.generator_width,
                0 if config.text_once else text_dim, config.residual_blocks,
                config.conditioning_augmentation, halvings=2 if text_dim else 1)
        discriminator = stage2.Stage2Discriminator(
            config.image_size, config.discriminator_width, text_dim, config.unconditional_head,
            config.discriminator_norm)
    networks = make_generator(), make_generator(), discriminator
    _build(config, dims, frozen_stage1, *networks)
    generator, ema_generator, discriminator = networks
    for average, value in zip(ema_generator.variables, generator.variables, strict=True):
        average.assign(value)
    game = StackGAN(generator, discriminator, dims, config.loss,
                    config.kl_weight if config.conditioning_augmentation else 0.0, frozen_stage1,
                    config.r1_weight)
    return game, ema_generator


def precision(config: Config) -> str:
    """The Keras dtype policy: "auto" is mixed_bfloat16 on TPUs, on GPUs from Ampere on and on CPUs
    with AMX, which multiply bfloat16 several times faster, and float32 anywhere else."""
    if config.precision != "auto":
        return config.precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        ampere = (8, 0)
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability")
        fast = (capability or ampere) >= ampere
    else:
        fast = bool(tf.config.list_logical_devices("TPU")) or "amx_bf16" in _cpu_flags()
    return "mixed_bfloat16" if fast else "float32"


def _cpu_flags():
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith("flags")), "").split()
    except OSError:  # not Linux
        return []


def _stage2_dims(config, dims, frozen_stage1):
    """Latents of both stages together; refuses a Stage-I that does not fit."""
    if frozen_stage1.size >= config.image_size:
        raise UserError(f"--image_size={config.image_size} is not larger than the "
                        f"{frozen_stage1.size} of Stage-I {frozen_stage1.path}.")
    given = frozen_stage1.dim("embeddings")
    if given and given != config.embedding_dim:
        raise UserError(f"--embedding_dim={config.embedding_dim} does not fit Stage-I "
                        f"{frozen_stage1.path}, which reads {given}.")
    if "epsilon" in dims and frozen_stage1.dim("epsilon") not in (0, dims["epsilon"]):
        raise UserError(f"--condition_dim={config.condition_dim} differs from the "
                        f"{frozen_stage1.dim('epsilon')} of Stage-I {frozen_stage1.path}; both "
                        "stages read the same epsilon.")
    below = {name: frozen_stage1.dim(name) for name in ("noise", "epsilon")}
    # Stage-II itself reads epsilon (unless the caption enters once), and no noise
    own = {} if config.text_once else {n: d for n, d in dims.items() if n == "epsilon"}
    return {**{name: dim for name, dim in below.items() if dim}, **own}


def _build(config, dims, frozen_stage1, generator, ema_generator, discriminator):
    """Makes all weights now: inside a tf.function they would be made at its first trace."""
    inputs = {name: np.zeros((2, dim), np.float32) for name, dim in dims.items()}
    if config.embedding_dim:
        inputs["embeddings"] = np.zeros((2, config.embedding_dim), np.float32)
    if frozen_stage1 is not None:
        size = frozen_stage1.size
        inputs["stage1_images"] = np.zeros((2, size, size, 3), np.float32)
    for network in (generator, ema_generator):
        network(inputs)
    inputs["images"] = np.zeros((2, config.image_size, config.image_size, 3), np.float32)
    discriminator(inputs)


def learning_rate(config: Config, rate: float, steps_per_epoch: float) -> Callable:
    """step -> learning rate that starts at `rate`; of the step alone, so a resume is exact."""
    steps = config.learning_rate_decay_steps or max(
        1, round(config.learning_rate_decay_epochs * steps_per_epoch))
    decay = 1.0 if config.learning_rate_schedule == "constant" else config.learning_rate_decay
    return keras.optimizers.schedules.ExponentialDecay(
        rate, steps, decay, staircase=config.learning_rate_schedule == "staircase")


def optimizer(config: Config, rate: Callable, model: keras.Model) -> keras.Optimizer:
    """Adam, built on the model's trainable variables. epsilon 1e-8: the released code's."""
    # Named, or a second one in the same process would not fit the checkpoints of the first.
    adam = keras.optimizers.Adam(rate, config.adam_beta1, config.adam_beta2, epsilon=1e-8,
                                 name="adam")
    adam.build(model.trainable_variables)
    return adam
