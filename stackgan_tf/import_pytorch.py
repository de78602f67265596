"""Takes over a generator of the authors' PyTorch code (hanzhanggit/StackGAN-Pytorch).

    python -m stackgan_tf.import_pytorch --weights=netG_epoch_90.pth --to=coco

Stage-I or Stage-II; all sizes are read from the file. A Stage-II file that holds its Stage-I too
(STAGE1_G.*, as saved by that code) makes both stages of a new run; one without goes on top of the
Stage-I that the run has. PyTorch need not be installed. The run draws at once, from embeddings of
the kind it was trained on (Reed's char-CNN-RNN, 1024 numbers a caption):

    python -m stackgan_tf.sample --run=coco --embeddings=FILE.npy

and carries a Stage-II trained here (python -m stackgan_tf.train --stage=2 --run=coco ...). It takes
less than a minute. SavedModels come out and no checkpoints: the file has no discriminator to go on
training with.

The pictures are those of the PyTorch model in eval mode for the same latents, up to rounding. Only
the drawing of these differs: there each stage draws an epsilon of its own, here both read the same.
"""

import contextlib
import os

import numpy as np
import tensorflow as tf
from absl import flags

from stackgan_tf import build, checkpoint, disk, pytorch_file, saved_parts
from stackgan_tf.config import (
    Config,
    UserError,
    check_run,
    define_flags,
    given_flags,
    resolve,
    run_cli,
)
from stackgan_tf.progress import sigterm_raises
from stackgan_tf.run_folder import Part, flags_of_place, refuse_unwritable

BELOW = "STAGE1_G."  # the Stage-I in a Stage-II file


def main(_):
    weights, run = flags.FLAGS.weights, flags.FLAGS.to
    if not weights or not run:
        raise UserError("say what to import and what to call the run: "
                        "--weights=netG_epoch_N.pth --to=RUN")
    with sigterm_raises():
        import_weights(weights, given_flags().get("checkpoint_dir", Config.checkpoint_dir), run)


def import_weights(weights: str, checkpoint_dir: str, run: str) -> None:
    """Writes a new run, or the Stage-II of one with a Stage-I, complete or not at all.

    Raises UserError, in one line, if a tensor is missing, unknown or of another shape, or if
    something is in the way.
    """
    check_run(run, "--to")
    refuse_unwritable(os.path.join(checkpoint_dir, run))
    lower, upper = stages(read(weights), weights)
    sizes = {stage: read_sizes(stage, tensors, weights)
             for stage, tensors in ((1, lower), (2, upper)) if tensors}
    if lower and upper:
        for what in ("text", "condition"):
            if sizes[1][what] != sizes[2][what]:
                raise UserError(f"--weights={weights}: its stages differ in the size of the {what},"
                                f" {sizes[1][what]} and {sizes[2][what]}; both read the same here.")
    below = Part(checkpoint_dir, run, "stage1")
    configs = {}
    for stage, size in sizes.items():
        with refused(weights, stage, size):
            configs[stage] = settings(stage, size, checkpoint_dir, run, None if lower else below)
    if not lower and not below.is_exported():
        raise UserError(f"--weights={weights} is a Stage-II without its Stage-I (no {BELOW}*), and "
                        f"run {run!r} has none; import that first, with the same --to.")
    final = os.path.join(checkpoint_dir, run, *(() if lower else ("stage2",)))
    refuse_existing(final)
    temporary = disk.own_folder(final)  # no run can have this name
    folder, beside = os.path.split(temporary)
    disk.remove_orphans(folder)
    try:
        if lower:
            below = Part(temporary, "", "stage1")
            write(configs[1], lower, below)
        if upper:
            part = Part(temporary, "", "stage2") if lower else Part(folder, "", beside)
            frozen = saved_parts.Stage1(below.saved_model)
            with refused(weights, 2, sizes[2]):
                if frozen.size != 64:
                    raise UserError(f"Stage-I {frozen.path} makes pictures of {frozen.size} "
                                    "pixels; the PyTorch code's Stage-II reads 64.")
                build.latent_dims(configs[2], frozen)
            write(configs[2], upper, part, frozen)
        checkpoint.publish(temporary, final)  # refuses what was made meanwhile
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.rmtree(temporary)
    report(weights, run, checkpoint_dir, sizes)


def read(weights: str) -> dict[str, np.ndarray]:
    """{name: float32 array} of a file, without what data-parallel training adds to the names."""
    path = os.path.expanduser(weights)
    try:
        state = pytorch_file.read(path)
    except OSError as error:
        raise UserError(f"--weights={weights} cannot be read: {error.strerror or error}."
                        ) from error
    except ValueError as error:
        raise UserError(f"--weights: {error}") from error
    tensors = {}
    for name, value in state.items():
        plain = ".".join(part for part in name.split(".") if part != "module")
        if plain in tensors:
            raise UserError(f"--weights={weights} has {plain[:100]!r} twice, once as "
                            f"{name[:100]!r}; save one model's state dict.")
        # num_batches_tracked counts training steps (PyTorch 0.4.1 on); no picture depends on it
        if not plain.endswith(".num_batches_tracked"):
            tensors[plain] = value
    return tensors


def stages(tensors: dict, weights: str) -> tuple[dict, dict]:
    """The tensors of Stage-I and of Stage-II, {} for one that is not there."""
    lower = {name[len(BELOW):]: value for name, value in tensors.items() if name.startswith(BELOW)}
    own = {name: value for name, value in tensors.items() if not name.startswith(BELOW)}
    if "ca_net.fc.weight" not in own:
        raise UserError(f"--weights={weights} is no StackGAN generator: it has no ca_net.fc.weight "
                        f"but {listed(own)}. Give netG_epoch_N.pth.")
    if lower or any(name.startswith(("encoder.", "hr_joint.", "residual.")) for name in own):
        return lower, own
    return own, {}


def listed(names) -> str:
    names = [name[:100] for name in names]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def stage1_layers(text=0, condition=0, noise=0, width=0) -> dict[str, tuple[str, tuple]]:
    """{their name: (place in our generator, their shape)}; `width` is Gf.

    Convolutions are (out, in, height, width) there, dense layers (out, in).
    """
    channels = [8 * width // 2**i for i in range(5)]
    layers = _condition(text, condition)
    layers["fc.0.weight"] = "fc.kernel", (16 * channels[0], noise + condition)
    layers |= _norm("fc.1", "fc_norm", 16 * channels[0])
    return layers | _up(channels)


def stage2_layers(text=0, condition=0, width=0, blocks=0) -> dict[str, tuple[str, tuple]]:
    """As stage1_layers; `blocks` counts the residual ones."""
    inner = 4 * width
    layers = _condition(text, condition)
    layers["encoder.0.weight"] = "encoder.0.conv.kernel", (width, 3, 3, 3)
    layers |= _conv_norm("encoder", 2, 3, "encoder.1", width, 2 * width, 4)
    layers |= _conv_norm("encoder", 5, 6, "encoder.2", 2 * width, inner, 4)
    layers |= _conv_norm("hr_joint", 0, 1, "joint", inner + condition, inner)
    for i in range(blocks):
        layers |= _conv_norm(f"residual.{i}.block", 0, 1, f"residual.{i}.first", inner, inner)
        layers |= _conv_norm(f"residual.{i}.block", 3, 4, f"residual.{i}.second", inner, inner)
    return layers | _up([inner // 2**i for i in range(5)])


LAYERS = {1: stage1_layers, 2: stage2_layers}


def _condition(text, condition):
    return {"ca_net.fc.weight": ("augmentation.dense.kernel", (2 * condition, text)),
            "ca_net.fc.bias": ("augmentation.dense.bias", (2 * condition,))}


def _up(channels):
    layers = {}
    for i in range(4):
        layers |= _conv_norm(f"upsample{i + 1}", 1, 2, f"up.{i}", *channels[i:i + 2])
    return layers | {"img.0.weight": ("to_rgb.kernel", (3, channels[4], 3, 3))}


def _conv_norm(name, conv, norm, place, fan_in, fan_out, side=3):
    return {f"{name}.{conv}.weight": (place + ".conv.kernel", (fan_out, fan_in, side, side)),
            **_norm(f"{name}.{norm}", place + ".norm", fan_out)}


def _norm(name, place, size):
    return {f"{name}.{theirs}": (f"{place}.{ours}", (size,)) for theirs, ours in (
        ("weight", "gamma"), ("bias", "beta"), ("running_mean", "moving_mean"),
        ("running_var", "moving_variance"))}


def read_sizes(stage: int, tensors: dict, weights: str) -> dict[str, int]:
    """The arguments of LAYERS[stage] that fit the tensors, checked name by name."""
    blocks = {"blocks": len({name.split(".")[1] for name in tensors
                             if name.startswith("residual.")})} if stage == 2 else {}
    expected = LAYERS[stage](**blocks)
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    where = f"--weights={weights}: Stage-{'I' * stage}"
    if missing or unknown:
        found = {"lacks": missing, "has the unknown": unknown}
        said = [f"{what} {listed(names)}" for what, names in found.items() if names]
        raise UserError(f"{where} {' and '.join(said)}; nothing was imported.")

    def side(name, axis):  # 0 for a tensor of too few axes, which is reported below
        return (*tensors[name].shape, 0, 0)[axis]

    sizes = {"text": side("ca_net.fc.weight", 1), "condition": side("ca_net.fc.weight", 0) // 2}
    if stage == 1:
        sizes |= {"width": side("fc.0.weight", 0) // 128,
                  "noise": side("fc.0.weight", 1) - sizes["condition"]}
    else:
        sizes |= {"width": side("encoder.0.weight", 0), **blocks}
    for name, (_, shape) in LAYERS[stage](**sizes).items():
        if tensors[name].shape != shape:
            raise UserError(f"{where}: {name} has the shape {tensors[name].shape}; {shape} would "
                            f"fit the rest ({in_words(sizes)}); nothing was imported.")
        if not np.isfinite(tensors[name]).all():
            raise UserError(f"{where}: {name} has numbers that are not finite; take another epoch.")
        # its root is no number, which ReLU makes 0 of on some processors and keeps on others
        if name.endswith("running_var") and tensors[name].min() < 0:
            raise UserError(f"{where}: {name} has {tensors[name].min():g}, and no variance is "
                            "below 0; take another epoch.")
    return sizes


def in_words(sizes):
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def settings(stage, sizes, checkpoint_dir, run, below: Part | None) -> Config:
    """The config.json of an imported stage; on a Stage-I below, with its way to read captions."""
    given = {"stage": stage, "run": run, "checkpoint_dir": checkpoint_dir,
             "image_size": {1: 64, 2: 256}[stage], "embedding_dim": sizes["text"],
             "condition_dim": sizes["condition"], "generator_width": sizes["width"],
             "relu_condition": True, "conditioning_augmentation": True, "condition_blocks": False,
             "condition_log_sigma": 0.0, "upsampling": "nearest", "noise_injection": False,
             "add_to_sketch": False,
             "precision": "float32"}  # as it was trained; its pictures are compared with PyTorch's
    given |= {"noise_dim": sizes["noise"]} if stage == 1 else {"residual_blocks": sizes["blocks"]}
    return resolve(given, (below and below.read_config()) or {"preset": "coco"})


@contextlib.contextmanager
def refused(weights, stage, sizes):
    """Names the file where its sizes, which no flag gives here, are refused."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--weights={weights}: its Stage-{'I' * stage} ({in_words(sizes)}) cannot "
                        f"be taken: {error} Nothing was imported.") from error


def refuse_existing(path):
    if tf.io.gfile.exists(path):
        raise UserError(f"{path} is there already and is not written over; choose another --to, or "
                        "move it away.")


def write(config: Config, tensors: dict, part: Part, frozen_stage1=None) -> None:
    """Builds the stage's generator with the tensors and writes config.json and SavedModel."""
    gan = build.generator_alone(config, frozen_stage1)
    for variable, value in placed(gan.generator, config, tensors):
        variable.assign(value)
    part.open(config)
    checkpoint.StageExport(config, gan).write(part.saved_model, gan.generator)
    made = saved_parts.Stage(part.saved_model, f"Stage-{'I' * config.stage}")
    images = made({name: tf.ones([1, spec.shape[1]]) for name, spec in made.inputs.items()})
    if not np.isfinite(images["images"]).all():
        raise UserError(f"--weights: Stage-{'I' * config.stage} draws no finite picture; take "
                        "another epoch. Nothing was imported.")


def placed(generator, config, tensors):
    """Pairs of each of the generator's variables and its value."""
    layers = LAYERS[config.stage](**({"blocks": config.residual_blocks} if config.stage == 2
                                     else {}))
    for name, (place, _) in layers.items():
        variable = generator
        for step in place.split("."):
            variable = variable[int(step)] if step.isdigit() else getattr(variable, step)
        yield variable, converted(name, tensors[name])


def converted(name: str, value: np.ndarray) -> np.ndarray:
    """One of their tensors in our layout; the function of the whole stays the same."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name.startswith("ca_net."):
        # Their second half is the log-variance, ours log sigma, half of it: ReLU(x) / 2 is
        # ReLU(x / 2), and halving is exact.
        half = len(value) // 2
        value = np.concatenate([value[:half], value[half:] / 2])
    elif name.startswith("fc."):
        # Their 4x4 map is viewed channels first, ours last. Noise comes before c in both.
        channels = len(value) // 16
        value = np.moveaxis(value.reshape(channels, 16, -1), 0, 1).reshape(value.shape)
    return value.T


def report(weights, run, checkpoint_dir, sizes) -> None:
    for stage, found in sizes.items():
        print(f"Stage-{'I' * stage} ({in_words(found)}) of {weights}: "
              f"{Part(checkpoint_dir, run, f'stage{stage}').saved_model}")
    text = next(iter(sizes.values()))["text"]
    print(f"Next: it reads embeddings of {text} numbers a caption, of the text encoder that it was "
          "trained with. For the released models that is Reed's char-CNN-RNN, whose vectors come "
          "with their data as char-CNN-RNN-embeddings.pickle; those of another encoder mean "
          "nothing to it. Draw from that file, or from a .npy of such vectors:\n"
          f"    python -m stackgan_tf.sample{flags_of_place(checkpoint_dir, run)} "
          "--embeddings=FILE", flush=True)


def define_own_flags() -> None:
    define_flags(only=("checkpoint_dir",))
    flags.DEFINE_string("weights", "", "state dict of a generator, as torch.save wrote it "
                        "(netG_epoch_N.pth)")
    flags.DEFINE_string("to", "", "name of the run that it becomes")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
