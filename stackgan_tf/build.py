"""From a Config to the things it names. The only place that knows names."""

import contextlib
import dataclasses
import importlib
import itertools
import pkgutil
import shutil
import tempfile
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import blocks, datasets, devices, manifest, stage1, stage2
from stackgan_tf.adam import FusedAdam
from stackgan_tf.config import Config, UserError
from stackgan_tf.datasets import prepared
from stackgan_tf.messages import reason
from stackgan_tf.pipeline import Batches, Examples
from stackgan_tf.saved_parts import SavedPart, Stage1
from stackgan_tf.stackgan import StackGAN
from stackgan_tf.stream import Stream

TFDS = ("caltech_birds2011", "coco_captions", "oxford_flowers102")  # known without "tfds:"


def load_batches(config: Config, worker: int = 0, workers: int = 1) -> Batches | Stream:
    """The training batches of a stage, from memory or, of a large prepared set, streamed; the rows
    of one of several workers."""
    stream = open_stream(config, config.batch_size, config.captions_per_embedding, worker, workers)
    return stream or Batches(load_training(config), config.image_size, config.batch_size,
                             config.seed, config.captions_per_embedding, config.mismatch_candidates,
                             worker, workers)


def open_stream(config: Config, batch_size: int, captions_per_embedding: int, worker: int = 0,
                workers: int = 1) -> Stream | None:
    """The training pictures as a stream; None for a set that is to be read into memory.

    Which of the two follows from the flags and the data alone: on another machine a run must go
    on in the same order.
    """
    if config.dataset != "prepared":
        return None
    with plain_errors(config):
        train = prepared.describe(config, "train")
    if not prepared.reads_embeddings(config):
        train = dataclasses.replace(train, embedding_dim=0)
    kept = len(train) * config.load_size**2 * 3 + train.captions * config.embedding_dim * 4
    if kept <= config.memory_gb * 2**30:
        return None
    bare = max(train.without_caption, len(train) - train.captions)
    if config.embedding_dim and not train.embedding_dim and bare:
        raise UserError(f"{bare} of {len(train)} pictures have no caption; give each one and "
                        "prepare anew, or train without text: --embedding_dim=0.")
    if config.shuffle_captions:
        raise UserError(f"--shuffle_captions is for sets in memory; this one takes "
                        f"{kept / 2**30:.1f} GB, so give a larger --memory_gb than "
                        f"{config.memory_gb:g}.")
    if config.mismatch_candidates > 1:
        print("streamed: wrong captions are of any other class (--mismatch_candidates is for sets "
              "in memory)", flush=True)
    return Stream(train, config.image_size, config.load_size, batch_size, config.seed,
                  config.shuffle_buffer, captions_per_embedding, worker, workers)


def data_note(config: Config, batches: Batches | Stream) -> str:
    """What tells the training data from other data, wherever it lies; of a prepared set the same,
    read into memory or streamed."""
    if config.dataset == "prepared":
        return prepared.note(config)
    return batches.examples.note()


def picture_keys(batches: Batches | Stream) -> np.ndarray | None:
    """pipeline.Examples.kept_keys of the training data; None for streamed sets, which are not read
    as a whole."""
    return None if isinstance(batches, Stream) else batches.examples.kept_keys


def load_examples(config: Config, split: str, most: int | None = None) -> Examples:
    """The pictures and captions of --dataset, `split` "train" or "test", at config.load_size;
    only the first `most` if given."""
    with plain_errors(config):
        _check_room(config, most)
        return Examples(itertools.islice(_elements(config, split), most), config.load_size)


class NoSplit(UserError):
    """The data is in order, but has no such split."""


def has_test(config: Config) -> bool:
    """False where nothing tells the splits apart: both are all pictures."""
    module = _dataset(config)
    with plain_errors(config):
        return not hasattr(module, "has_test") or module.has_test(config)


def load_held_out(config: Config, most: int | None = None) -> Examples:
    """The split "test"; NoSplit if there is none, or if it is the pictures of training."""
    if not has_test(config):
        raise NoSplit('nothing is marked as split "test".')
    return load_examples(config, "test", most)


def load_training(config: Config) -> Examples:
    """What is trained on: the split "train", with --shuffle_captions under others' captions."""
    examples = load_examples(config, "train")
    if config.shuffle_captions:
        examples.shuffle_captions(config.seed)
    return examples


def load_elements(config: Config, split: str) -> Iterator[dict]:
    """The data set's elements as they come, one dict of NumPy values a picture."""
    with plain_errors(config):
        yield from _elements(config, split)


def _check_room(config, most):
    """UserError, before any picture is opened, if a folder's copy would fill the disk."""
    if config.dataset != "folder":
        return
    count = manifest.count(config.data_dir)
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
def plain_errors(config: Config):
    """Whatever reading a data set raises becomes a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except datasets.NoSplit as error:
        raise NoSplit(str(error)) from error
    except ValueError as error:  # what the data sets raise, in one line
        raise UserError(str(error)) from error
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"--dataset={config.dataset} --data_dir={config.data_dir!r}: "
                        f"{reason(error)}; give a --data_dir with room that can be read and "
                        "written.") from error


def embedding_dim(config: Config) -> int:
    """Size of the embeddings that the data itself brings; 0 where it brings captions."""
    module = _dataset(config)
    try:
        return module.embedding_dim(config) if hasattr(module, "embedding_dim") else 0
    except ValueError as error:
        raise UserError(str(error)) from error


def _dataset(config):
    """The module of --dataset; what may stand behind a colon is its own business."""
    names = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
    name, colon, _ = config.dataset.partition(":")
    name = "tfds" if name in TFDS else name
    if name not in names or (colon and name != "tfds"):
        raise UserError(f"--dataset={config.dataset} is unknown; choose one of "
                        f"{', '.join([*names, *TFDS])}, or tfds:NAME.")
    return importlib.import_module(f"stackgan_tf.datasets.{name}")


def raw_elements(config: Config, split: str):
    """The data set as it is stored, for inspection: an iterable of dicts.

    A data set may have `raw_examples(config, split)` for this, which may give a `path` in place
    of `image`, and `error` for what cannot be read; otherwise it is what training gets.
    """
    return _elements(config, split, ("raw_examples", "examples"))


def _elements(config, split, functions=("examples",)):
    """The data set's elements, one dict of NumPy values a picture."""
    module = _dataset(config)
    # A plain generator, where a data set has one, keeps its error messages short.
    for function in functions:
        if hasattr(module, function):
            return getattr(module, function)(config, split)
    return module.load(config, split).as_numpy_iterator()


def gan(config: Config, frozen_stage1: Stage1 | None = None, joint_space=None
        ) -> tuple[StackGAN, keras.Model]:
    """The GAN of a stage with built networks, and a second generator for the moving average;
    config.matching_weight needs the joint_space.JointSpace of the text encoder.

    The weights follow from config.seed; both generators start alike.
    """
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(devices.precision(config))
    dims = latent_dims(config, frozen_stage1)
    text_dim = config.condition_dim if config.embedding_dim else 0
    options = {"norm": config.discriminator_norm, "minibatch_std": config.minibatch_std,
               "projection": config.text_in_discriminator == "projection"}
    if config.stage == 1:
        discriminator = stage1.Stage1Discriminator(config.image_size, config.discriminator_width,
                                                   text_dim, **options)
    else:
        discriminator = stage2.Stage2Discriminator(
            config.image_size, config.discriminator_width, text_dim, config.unconditional_head,
            **options)
    generator, ema_generator = (_generator(config, frozen_stage1) for _ in range(2))
    _build(config, dims, frozen_stage1, [generator, ema_generator], discriminator)
    for average, value in zip(ema_generator.variables, generator.variables, strict=True):
        average.assign(value)
    game = StackGAN(generator, discriminator, dims, config.loss,
                    config.kl_weight if config.conditioning_augmentation else 0.0, frozen_stage1,
                    config.r1_weight, config.r1_every, config.ma_gp_weight,
                    tuple(filter(None, config.diff_augment.split(","))), config.sketch_weight,
                    config.mode_seeking_weight, config.matching_weight, joint_space)
    return game, ema_generator


def generator_alone(config: Config, frozen_stage1: Stage1 | None = None) -> StackGAN:
    """The game of a stage with a built generator and no discriminator: it can `generate` only."""
    keras.config.set_dtype_policy(devices.precision(config))
    dims = latent_dims(config, frozen_stage1)
    generator = _generator(config, frozen_stage1)
    _build(config, dims, frozen_stage1, [generator])
    return StackGAN(generator, None, dims, stage1=frozen_stage1)


def for_inference(config: Config, generator: keras.Model, frozen_stage1: Stage1 | None = None,
                  copy: keras.Model | None = None) -> keras.Model:
    """A copy of a stage's generator for its export, with the batch norms in the convolutions.

    `copy` is one that an earlier call gave, to be filled anew instead of building another.
    """
    copy = copy or generator_alone(config, frozen_stage1).generator
    for variable, value in zip(copy.variables, generator.variables, strict=True):
        variable.assign(value)
    blocks.fold_batch_norms(copy)
    return copy


def from_saved(config: Config, saved: SavedPart, frozen_stage1: Stage1 | None = None
               ) -> keras.Model:
    """The generator of a stage's SavedModel as a network again, in `config.precision`.

    It can only infer: the batch norms of a SavedModel are folded.
    """
    generator = generator_alone(config, frozen_stage1).generator
    stored = getattr(saved.loaded, "variables", ())
    if [v.shape for v in stored] != [v.shape for v in generator.variables]:
        raise UserError(f"{saved.path} does not hold the network that its config.json describes; "
                        "put back the config.json that it was trained with.")
    for variable, value in zip(generator.variables, stored, strict=True):
        variable.assign(value)
    blocks.take_as_folded(generator)
    return generator


def _generator(config, frozen_stage1):
    text_dim = config.condition_dim if config.embedding_dim else 0
    if config.stage == 1:
        return stage1.Stage1Generator(
            config.image_size, config.generator_width, text_dim, config.conditioning_augmentation,
            config.condition_blocks, config.relu_condition, config.condition_log_sigma,
            config.upsampling == "bilinear", config.noise_injection)
    return stage2.Stage2Generator(
        frozen_stage1.size, config.image_size, config.generator_width,
        0 if config.text_once else text_dim, config.residual_blocks,
        config.conditioning_augmentation, config.condition_blocks,
        halvings=2 if text_dim else 1, relu_condition=config.relu_condition,
        log_sigma=config.condition_log_sigma, add_to_sketch=config.add_to_sketch,
        bilinear=config.upsampling == "bilinear", noise_injection=config.noise_injection)


def latent_dims(config: Config, frozen_stage1: Stage1 | None) -> dict[str, int]:
    """{name: size} of a stage's random inputs; UserError for a Stage-I that does not fit."""
    dims = {"noise": config.noise_dim}
    if config.embedding_dim and config.conditioning_augmentation:
        dims["epsilon"] = config.condition_dim
    return dims if config.stage == 1 else _stage2_dims(config, dims, frozen_stage1)


def _stage2_dims(config, dims, frozen_stage1):
    """Latents of both stages together; refuses a Stage-I that does not fit."""
    if frozen_stage1.size >= config.image_size:
        raise UserError(f"--image_size={config.image_size} is not larger than the "
                        f"{frozen_stage1.size} of Stage-I {frozen_stage1.path}; try "
                        f"--image_size={4 * frozen_stage1.size}.")
    given = frozen_stage1.dim("embeddings")
    if given and given != config.embedding_dim:
        raise UserError(f"--embedding_dim={config.embedding_dim} does not fit Stage-I "
                        f"{frozen_stage1.path}, which reads {given} numbers a caption.")
    if "epsilon" in dims and frozen_stage1.dim("epsilon") not in (0, dims["epsilon"]):
        raise UserError(f"--condition_dim={config.condition_dim} differs from the "
                        f"{frozen_stage1.dim('epsilon')} of Stage-I {frozen_stage1.path}; both "
                        "stages read the same epsilon.")
    below = {name: frozen_stage1.dim(name) for name in ("noise", "epsilon")}
    # Stage-II itself reads epsilon (unless the caption enters once), and no noise but Stage-I's
    own = {} if config.text_once else {n: d for n, d in dims.items() if n == "epsilon"}
    return {**{name: dim for name, dim in below.items() if dim}, **own}


def _build(config, dims, frozen_stage1, generators, discriminator=None):
    """Makes all weights now: inside a tf.function they would be made at its first trace."""
    inputs = {name: np.zeros((2, dim), np.float32) for name, dim in dims.items()}
    if config.embedding_dim:
        inputs["embeddings"] = np.zeros((2, config.embedding_dim), np.float32)
    if frozen_stage1 is not None:
        size = frozen_stage1.size
        inputs["stage1_images"] = np.zeros((2, size, size, 3), np.float32)
    for network in generators:
        network(inputs)
    if discriminator is not None:
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
    """Adam, built on the model's trainable variables. epsilon 1e-8: the released code's.

    With float16, whose smallest numbers gradients fall below, the loss is scaled up.
    """
    # Named, or a second one in the same process would not fit the checkpoints of the first.
    adam = FusedAdam(rate, config.adam_beta1, config.adam_beta2, epsilon=1e-8, name="adam")
    if devices.precision(config) == "mixed_float16":
        adam = keras.optimizers.LossScaleOptimizer(adam, name="loss_scale")
    adam.build(model.trainable_variables)
    return adam
