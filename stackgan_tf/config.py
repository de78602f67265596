"""Every option of a run: one commented line here is one command-line flag.

A value comes from, in falling order: the flag, the run's earlier stage (for what both stages must
share), the preset, the default below. The comment behind a field is the flag's help text.
"""

import dataclasses
import inspect
import logging
import math
import os
import re
import sys
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from stackgan_tf.messages import fail, of_absl, of_system, of_tensorflow
from stackgan_tf.presets import PRESETS, RECIPES

flags.disclaim_key_flags()  # the flags are the command's that asks for them: --help shows them


class UserError(ValueError):
    """A mistake that its user can mend: printed as one line, without a traceback."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The settings of one stage of a run; kept beside it as `config.json`."""

    # the run
    stage: int = 1  # 1 trains the 64x64 sketch, 2 the picture on top of it
    preset: str = "drawn_flowers"  # named settings, see presets.py; flags override them
    recipe: str = "preset"  # of the game: the preset's own, paper or modern; see presets.py
    run: str = "default"  # name of the run's folder
    checkpoint_dir: str = "checkpoints"  # folder of all runs
    seed: int = 0  # weights, noise and data order follow from it alone
    deterministic: bool = False  # and each operation rounds alike each time, on one machine

    # data
    dataset: str = "drawn_flowers"  # drawn_flowers, folder, reed, tfds:NAME, or coco_captions ...
    data_dir: str = ""  # folder: has captions.jsonl; reed: has train/; others: TFDS's ("": default)
    image_dir: str = ""  # reed: where the pictures are, holding jpg/ or images/; "": in data_dir
    captions_dir: str = ""  # reed, tfds: Reed's text_c10 folder; "": in data_dir, or the data's own
    precomputed_embeddings: bool = True  # reed, prepared: stored embeddings, if any, and no encoder
    memory_gb: float = 4.0  # prepared: a set that takes more, decoded, is streamed; 0: always
    shuffle_buffer: int = 2048  # prepared: pictures shuffled at a time where it is streamed
    images_per_class: int = 134  # drawn_flowers: pictures of each of its 30 classes
    max_unreadable: int = 10  # folder, reed: so many pictures may be unreadable, not more
    crop_margin: float = 0.1875  # pictures are kept so much larger, then cropped (76/64)
    captions_per_embedding: int = 1  # training embeds the mean of so many captions (TF code: 4)
    shuffle_captions: bool = False  # control: each picture gets another's, so scores must be chance
    mismatch_candidates: int = 1  # a wrong caption is of the nearest of so many other classes

    # text encoder
    text_encoder: str = ""  # SavedModel string [B] -> float [B, dim]; "": train one for this run
    embedding_dim: int = 1024  # size of a caption's embedding; 0 trains without text
    text_encoder_network: str = "char_cnn_rnn"  # Reed's, or char_cnn: words alone, not their order
    text_encoder_width: int = 512  # its channels (Reed et al.: 512)
    text_encoder_steps: int = 20_000  # training steps of the text encoder
    text_encoder_batch_size: int = 40  # Reed et al. 2016
    text_encoder_learning_rate: float = 7e-4  # Reed et al. 2016
    text_encoder_loss: str = "structured"  # structured (Reed's joint embedding) or contrastive
    text_encoder_temperature: float = 0.1  # contrastive: what cosines are divided by
    text_encoder_grayscale: float = 0.0  # share of its training pictures whose color is taken out

    # networks
    image_size: int = 64  # side of the pictures: 64 in Stage-I, 256 (or 128) in Stage-II
    noise_dim: int = 100  # z
    condition_dim: int = 128  # c, and the discriminator's own text layer
    generator_width: int = 128  # Gf of the paper's tables
    discriminator_width: int = 64  # Df
    discriminator_norm: str = "batch"  # batch (the paper), none, or spectral (of the weights)
    text_in_discriminator: str = "concat"  # concat (the paper): beside the map; or projection
    minibatch_std: int = 0  # D sees how different so many pictures are; 0: the paper
    residual_blocks: int = 4  # Stage-II; the paper takes 4 for 256x256 and 2 for 128x128
    conditioning_augmentation: bool = True  # off: c is the mean, no sampling, no KL (ablation)
    condition_log_sigma: float = 0.0  # log sigma of c at first; 0 (paper): as loud as the caption
    relu_condition: bool = False  # ReLU, not leaky, gives mean and log sigma (PyTorch code)
    condition_blocks: bool = False  # each up-sampling block reads c (conditional batch norm)
    upsampling: str = "nearest"  # of the generator's maps: nearest (the paper) or bilinear
    noise_injection: bool = False  # up-sampling blocks add grain, after StyleGAN's noise inputs
    add_to_sketch: bool = False  # Stage-II adds to the enlarged sketch, instead of redrawing it
    text_once: bool = False  # Stage-II's generator does not read the caption again (ablation)
    unconditional_head: bool = False  # Stage-II's discriminator also judges without the caption
    stage1: str = ""  # Stage-I SavedModel under Stage-II; "": the run's own

    # the game
    loss: str = "non_saturating"  # a row of losses.LOSSES
    kl_weight: float = 2.0  # released code; the paper says 1
    sketch_weight: float = 0.0  # Stage-II: weight of its distance to the sketch, both as 32x32
    mode_seeking_weight: float = 0.0  # pictures of a caption shall differ (MSGAN); 0: the paper
    matching_weight: float = 0.0  # the image encoder shall find a fake's caption; 0: the paper
    r1_weight: float = 0.0  # factor of the R1 gradient penalty on real pictures; 0: the paper
    ma_gp_weight: float = 0.0  # of the matching-aware penalty on real pairs; 0: paper, 2: DF-GAN
    r1_every: int = 1  # R1, MA-GP are taken on each so-manieth picture: cheaper, as strong
    diff_augment: str = ""  # what D sees of pictures: a list of translation,cutout,color; "": paper
    batch_size: int = 64  # pictures a step
    train_steps: int = 0  # steps to train in all; or give --epochs
    epochs: float = 0.0  # passes over the training pictures; or give --train_steps
    learning_rate: float = 2e-4  # Adam
    discriminator_learning_rate: float = 0.0  # 0: the same as learning_rate, as in the paper
    adam_beta1: float = 0.5  # DCGAN's choice, kept by StackGAN
    adam_beta2: float = 0.999  # Adam's default
    learning_rate_schedule: str = "exponential"  # exponential, staircase or constant
    learning_rate_decay: float = 0.5  # factor of the schedule ...
    learning_rate_decay_epochs: float = 100.0  # ... over so many epochs (the paper halves at 100)
    learning_rate_decay_steps: int = 0  # ... or over so many steps, if not 0
    ema_decay: float = 0.999  # moving average of the generator, which is what is exported; 0: off
    precision: str = "auto"  # float32, mixed_bfloat16, mixed_float16; auto: bfloat16 or float32
    jit_compile: str = "auto"  # XLA compiles the step: on, off, or auto: on GPU and TPU
    steps_per_call: int = 0  # steps between two returns to Python; 0: 10 on GPU and TPU, else 1
    distribute: str = "auto"  # none, mirrored (GPUs), multi_worker (TF_CONFIG), tpu; auto: what is
    tpu: str = ""  # name of the TPU; "": $TPU_NAME, or the one of this machine

    on_nan: str = "stop"  # or rollback: to the last checkpoint, and on without that batch

    # reports
    log_steps: int = 50  # steps between lines of the log and TensorBoard
    checkpoint_steps: int = 500  # steps between checkpoints, sample grids and exports
    keep_checkpoints: int = 3  # older ones are removed

    @property
    def load_size(self) -> int:
        """Side at which pictures are kept, to be cropped to image_size: 76 for 64, 304 for 256."""
        return round(self.image_size * (1 + self.crop_margin))


# What Stage-II takes over from the run's Stage-I unless a flag says otherwise.
SHARED = (
    "preset", "recipe", "seed", "dataset", "data_dir", "image_dir", "captions_dir",
    "precomputed_embeddings", "images_per_class", "max_unreadable", "memory_gb", "shuffle_buffer",
    "crop_margin", "conditioning_augmentation", "condition_log_sigma", "condition_dim",
    "captions_per_embedding", "shuffle_captions",
    "text_encoder", "embedding_dim", "text_encoder_network", "text_encoder_width",
    "text_encoder_steps", "text_encoder_batch_size", "text_encoder_learning_rate",
    "text_encoder_loss", "text_encoder_temperature", "text_encoder_grayscale",
)

# What a text encoder must have been made with, to be used.
TEXT_FIELDS = ("dataset", "data_dir", "captions_dir", "images_per_class", "shuffle_captions",
               "text_encoder", "embedding_dim")

# Ends the name of a SavedModel for the moment in which the next one takes its place.
REPLACED = ".being-replaced"

# The folder of a complete checkpoint; what a killed process left has more behind.
CHECKPOINT = re.compile(r"step-(\d+)/?")

POLICIES = ("color", "translation", "cutout")  # of --diff_augment, made in this order

# Where the data lies: the same data may lie elsewhere at the next start.
PLACES = ("data_dir", "image_dir", "captions_dir")
PATHS = (*PLACES, "text_encoder", "stage1")  # each may be spelt in several ways

# What may change from one start of a part to the next without changing what is computed.
FREE = (
    "run", "checkpoint_dir", "max_unreadable", "train_steps", "epochs", "log_steps",
    "checkpoint_steps", "keep_checkpoints", "jit_compile", "steps_per_call", "on_nan",
    "deterministic", "distribute", "tpu",
)

CHOICES = {
    "stage": (1, 2),
    "preset": tuple(PRESETS),
    "text_encoder_network": ("char_cnn_rnn", "char_cnn"),
    "text_encoder_loss": ("structured", "contrastive"),
    "recipe": ("preset", *RECIPES),
    "discriminator_norm": ("batch", "none", "spectral"),
    "text_in_discriminator": ("concat", "projection"),
    "upsampling": ("nearest", "bilinear"),
    "loss": ("non_saturating", "least_squares", "wasserstein", "hinge"),
    "learning_rate_schedule": ("exponential", "staircase", "constant"),
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "jit_compile": ("auto", "on", "off"),
    "distribute": ("auto", "none", "mirrored", "multi_worker", "tpu"),
    "on_nan": ("stop", "rollback"),
}

# (field, smallest, largest): bounds that hold whatever the other fields are.
BOUNDS = (
    ("seed", 0, 2**31 - 1), ("steps_per_call", 0, 10_000),
    ("text_encoder_grayscale", 0, 1), ("condition_log_sigma", -10, 1),
    ("images_per_class", 1, 100_000), ("max_unreadable", 0, None),
    ("memory_gb", 0, None), ("shuffle_buffer", 16, 2**20),
    ("crop_margin", 0, 4), ("captions_per_embedding", 1, 10), ("mismatch_candidates", 1, 100),
    ("embedding_dim", 0, 65536),
    ("text_encoder_width", 4, 8192), ("text_encoder_steps", 1, 10**12),
    ("text_encoder_batch_size", 2, None), ("noise_dim", 1, 65536), ("condition_dim", 1, 65536),
    ("generator_width", 4, 4096), ("discriminator_width", 1, 4096), ("residual_blocks", 0, 64),
    ("batch_size", 2, None), ("train_steps", 0, 10**12), ("epochs", 0, 10**6),
    ("kl_weight", 0, 10**9), ("sketch_weight", 0, 10**9), ("r1_weight", 0, 10**9),
    ("mode_seeking_weight", 0, 10**9), ("matching_weight", 0, 10**9),
    ("r1_every", 1, 65536), ("ma_gp_weight", 0, 10**9), ("minibatch_std", 0, None),
    ("discriminator_learning_rate", 0, 1), ("log_steps", 1, None), ("checkpoint_steps", 1, None),
    ("keep_checkpoints", 1, None), ("learning_rate_decay", 1e-6, 1),
    ("learning_rate_decay_steps", 0, 10**12), ("learning_rate_decay_epochs", 0, 10**6),
    ("learning_rate", 0, 1), ("text_encoder_learning_rate", 0, 1),
    ("text_encoder_temperature", 1e-3, 10),
)


def _comments():
    """The comment behind each field, which is its flag's help."""
    lines = inspect.getsource(Config).splitlines()
    found = (re.match(r"\s+(\w+): \w+ = [^#]+#\s*(.+)$", line) for line in lines)
    return {match[1]: match[2] for match in found if match}


def define_flags(only: tuple[str, ...] = ()) -> None:
    """Makes an absl flag of each field of Config, or of the fields named."""
    makers = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer,
              float: flags.DEFINE_float, str: flags.DEFINE_string}
    comments = _comments()
    for field in dataclasses.fields(Config):
        if not only or field.name in only:
            text = f"{comments.get(field.name, field.name)} (default: {field.default!r})"
            # None stands for "not given", so that a preset's value can show through.
            makers[field.type](field.name, None, text)


def given_flags() -> dict[str, Any]:
    """{field: value} of the flags that were given on the command line (or in a flagfile)."""
    names = [field.name for field in dataclasses.fields(Config)]
    values = {name: flags.FLAGS[name].value for name in names if name in flags.FLAGS}
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("checkpoint_dir", "text_encoder", "stage1", "image_dir", "captions_dir"):
        if given.get(name, "").startswith("~"):  # the shell leaves --name=~/folder as it is
            given[name] = os.path.expanduser(given[name])
    return given


def resolve(given: dict[str, Any], shared: dict[str, Any] | None = None) -> Config:
    """Config of a stage from the flags given and, for stage 2, the run's Stage-I settings.

    Raises UserError, with the value and the remedy, for whatever can be seen to be wrong.
    """
    given = {**{k: v for k, v in (shared or {}).items() if k in SHARED}, **given}
    for name in ("stage", "preset", "recipe"):
        check_choice(name, given.get(name, getattr(Config, name)))
    stage, values = given.get("stage", Config.stage), {}
    for named in (PRESETS[given.get("preset", Config.preset)],
                  RECIPES.get(given.get("recipe", Config.recipe), {})):
        values |= {**named.get("", {}), **named.get(stage, {})}
    if not {**values, **given}.get("embedding_dim", Config.embedding_dim):
        values.pop("text_in_discriminator", None)  # a recipe's; there is none
    for one, other in (("train_steps", "epochs"), ("epochs", "train_steps"),
                       ("learning_rate_decay_epochs", "learning_rate_decay_steps")):
        if given.get(one):
            values.pop(other, None)  # the user's way of counting replaces the preset's
    config = Config(**{**values, **given})
    validate(config)
    return config


def check_choice(name: str, value) -> None:
    """UserError if the option --name knows no such value."""
    if value not in CHOICES[name]:
        raise UserError(f"--{name}={value} is unknown; choose one of "
                        f"{', '.join(map(str, CHOICES[name]))}.")


def validate(config: Config) -> None:
    """Refuses values that cannot work, before anything expensive starts."""
    for name in CHOICES:
        check_choice(name, getattr(config, name))
    for name, low, high in BOUNDS:
        value = getattr(config, name)
        if not value >= low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"{low} to {high}"
            raise UserError(f"--{name}={value} is out of range; give {allowed}.")
    for field in dataclasses.fields(Config):
        if field.type is float and not math.isfinite(getattr(config, field.name)):
            raise UserError(f"--{field.name}={getattr(config, field.name)} is no finite number.")
    for name in ("learning_rate", "text_encoder_learning_rate", "learning_rate_decay_epochs"):
        if not getattr(config, name) > 0:
            raise UserError(f"--{name}={getattr(config, name)} must be above 0.")
    for name in ("adam_beta1", "adam_beta2", "ema_decay"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"--{name}={getattr(config, name)} must be from 0 to below 1.")
    check_run(config.run)
    if bool(config.train_steps) == bool(config.epochs):
        raise UserError(f"--train_steps={config.train_steps} and --epochs={config.epochs}: "
                        "give exactly one of them, above 0.")
    _validate_sizes(config)
    _validate_discriminator(config)


def check_run(run: str, flag: str = "--run") -> None:
    """UserError if `run` is no name of a folder: it shall not lead out of --checkpoint_dir."""
    if not re.fullmatch(r"\w[\w.-]{,99}", run):
        raise UserError(f"{flag}={run!r} is no folder name; use at most 100 letters, digits, . _ "
                        "and -, a letter or digit first.")


def _validate_sizes(config):
    size = config.image_size
    smallest = 16 if config.stage == 1 else 32
    if size < smallest or size > 1024 or size & (size - 1):
        raise UserError(f"--image_size={size} does not fit stage {config.stage}; give a power of "
                        f"two from {smallest} to 1024 (the paper: 64 in stage 1, 256 in stage 2).")
    halvings = size.bit_length() - 3  # 4x4 doubled so often
    if config.stage == 1 and (8 * config.generator_width) % (2 ** halvings):
        raise UserError(f"--generator_width={config.generator_width} cannot be halved down to "
                        f"{size}x{size}; give a multiple of {max(1, 2 ** halvings // 8)}.")
    if config.stage == 2 and config.generator_width % 4:
        raise UserError(f"--generator_width={config.generator_width} must be a multiple of 4 in "
                        "stage 2.")
    for name in ("stage1", "text_once", "unconditional_head", "add_to_sketch", "sketch_weight"):
        if config.stage == 1 and getattr(config, name):
            raise UserError(f"--{name}={getattr(config, name)} is for --stage=2 only; leave it "
                            "out.")
    if config.relu_condition and (not config.embedding_dim or config.text_once):
        without = "--text_once" if config.text_once else "--embedding_dim=0"
        raise UserError(f"--relu_condition has no use with {without}, where this generator reads "
                        "no caption; leave one out.")
    for name in ("shuffle_captions", "text_encoder", "matching_weight"):
        value = getattr(config, name)
        if value and not config.embedding_dim:
            said = "" if value is True else f"={value}"
            raise UserError(f"--{name}{said} has no use with --embedding_dim=0, which trains "
                            "without text; leave one out.")


def _validate_discriminator(config):
    for name in ("r1_weight", "ma_gp_weight"):
        value = getattr(config, name)
        if value and config.discriminator_norm == "batch":
            raise UserError(f"--{name}={value} penalizes each picture's own gradient, which batch "
                            "norm mixes up; add --discriminator_norm=none.")
        if value and config.precision == "mixed_float16":
            raise UserError(f"--{name}={value} needs gradients that float16 rounds to 0; take "
                            "--precision=mixed_bfloat16 or float32.")
    if config.minibatch_std == 1:
        raise UserError("--minibatch_std=1 compares each picture with itself; give 4, or 0 to "
                        "leave it out.")
    if config.text_in_discriminator == "projection" and not config.embedding_dim:
        raise UserError("--text_in_discriminator=projection has no use with --embedding_dim=0, "
                        "which trains without text; leave one out.")
    named = config.diff_augment.split(",")
    if config.diff_augment and (set(named) - set(POLICIES) or len(set(named)) < len(named)):
        raise UserError(f"--diff_augment={config.diff_augment} is no list of "
                        f"{', '.join(POLICIES)}, each at most once; give translation,cutout.")


def to_flags(config: Config) -> list[str]:
    """The command-line flags that give this config again."""
    return as_flags(dataclasses.asdict(config))


def as_flags(options: dict) -> list[str]:
    """{field: value} as they are typed."""
    return [f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in options.items()]


def run_cli(main) -> None:
    """app.run with mistakes as one line on stderr: exit code 1, or 2 for flags that cannot be
    understood."""

    def guarded(argv):
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed: nobody wants to hear it
                setattr(sys, name, open(os.devnull, "w"))
        try:
            if sys.stdout:  # a console may lack letters that a caption or a folder's name has
                sys.stdout.reconfigure(errors="backslashreplace")
            # TensorFlow and TFDS report each file they write; our own words are enough.
            absl_logging.set_verbosity(absl_logging.WARNING)
            logging.getLogger("tensorflow").setLevel(logging.WARNING)
            logging.getLogger("stackgan_tf").setLevel(logging.INFO)
            code = main(argv)
            print(end="", flush=True)  # now, so that a reader who has gone is noticed here
            return code
        except BaseException as error:
            if (code := explain(error)) is None:
                raise
            return code

    app.run(guarded, flags_parser=_parse_flags)


def explain(error: BaseException) -> int | None:
    """Says on stderr, in one line, what ended a command; returns its exit code. None, and nothing
    said, if it is no mistake of its user, nor the machine's."""
    match error:
        case UserError():
            return fail(str(error), 1)
        case BrokenPipeError():  # what reads our output has ended, such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13  # as SIGPIPE
        case OSError():  # a full disk, a folder that may not be written
            return fail(of_system(error), 1)
        case MemoryError():
            return fail(f"the memory does not suffice ({error}); a smaller --batch_size, "
                        "--image_size or width of the networks needs less.", 1)
        case SystemExit(code=int()):  # by SIGTERM
            return error.code
        case KeyboardInterrupt():
            print("stopped", file=sys.stderr)
            return 130
        case Exception() if said := of_tensorflow(error):
            return fail(said, 1)
    return None


def _parse_flags(argv):
    """Gives absl's flags their values; ends the process with code 2 if that cannot be done."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"unexpected {rest[1]!r}; options look like --name=value.")
        for name in flags.FLAGS:
            value = str(flags.FLAGS[name].value)
            if "\0" in value:  # from a flagfile; no path can have it
                raise flags.Error(f"--{name} holds a NUL character; take it out.")
            if name != "captions" and re.search("[\ud800-\udfff]", value):  # bytes of no UTF-8
                raise flags.Error(f"{value} of --{name} is no UTF-8; rename that file or "
                                  "folder, or have the terminal send UTF-8.")
        return rest
    except RecursionError:  # absl looks for a flag of a similar name
        sys.exit(fail("a flag's name is longer than any; --help lists the options.", 2))
    except (flags.Error, ValueError) as error:  # ValueError: a flagfile that is no text
        sys.exit(fail(of_absl(str(error)), 2))
    except SystemExit:  # --help, which absl ends with 1
        sys.exit(0)
