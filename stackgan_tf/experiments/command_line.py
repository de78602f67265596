"""What the experiments' commands have in common: their flags, and what they check first."""

import dataclasses
import os
from collections.abc import Callable

import tensorflow as tf
from absl import flags

from stackgan_tf import build, distribution, evaluation, features
from stackgan_tf.below import image_encoder_beside
from stackgan_tf.config import Config, UserError, check_run, define_flags, given_flags
from stackgan_tf.experiments.plan import OWN, Plan, Variant
from stackgan_tf.experiments.runner import Runner
from stackgan_tf.feature_networks import efficientnet_lite0
from stackgan_tf.run_folder import refuse_unwritable
from stackgan_tf.scores import OF_NETWORK

flags.disclaim_key_flags()  # they are those of each command, for its --help


def define_own_flags(name: str, minutes: float) -> None:
    """The flags of all experiments; those of train that it does not decide itself are for all of
    its trainings."""
    define_flags(only=tuple(field.name for field in dataclasses.fields(Config)
                            if field.name not in OWN))
    flags.DEFINE_string("run", name, "name of the experiment's folder in --checkpoint_dir")
    flags.DEFINE_float("minutes", minutes, "training steps of so many minutes for each row of the "
                       "table", lower_bound=1e-6, upper_bound=10**7)
    flags.DEFINE_integer("steps", 0, "instead of --minutes: so many steps for each row",
                         lower_bound=0, upper_bound=10**12)
    flags.DEFINE_integer("seeds", 1, "trainings of each variant, of the seeds 0, 1 ...; may be "
                         "raised later", lower_bound=1, upper_bound=1000)
    flags.DEFINE_list("variants", [], "names of those to be trained; '': all. May be others later")
    flags.DEFINE_list("metrics", [], f"what is measured, of fid, {', '.join(evaluation.METRICS)}; "
                      "'': what suits the data")
    flags.DEFINE_integer("count", 1000, "pictures that are generated for the scores",
                         lower_bound=2, upper_bound=10**7)
    for flag in evaluation.NETWORK_FLAGS:
        flags.DEFINE_string(flag, "", "as in evaluate")


def run(name: str, columns: tuple[str, ...], make: Callable[[dict], list[Variant]],
        varied: tuple[str, ...], metrics: tuple[str, ...], size: int) -> int:
    """Does an experiment as its flags say; returns the exit code.

    Args:
        columns: headings of the table.
        make: options of all -> variants.
        varied: options that the experiment is about, which nobody else may set.
        metrics: measured without --metrics, where the data has what they need.
        size: at which pictures are compared; 0: that of each stage.
    """
    tf.config.set_visible_devices([], "GPU")  # their memory is for the trainings
    values, base = flags.FLAGS, given_flags()
    for option in varied:
        if option in base:
            raise UserError(f"--{option}={base[option]} is what this experiment varies; leave it "
                            "out.")
    check_run(values.run)
    root = base.pop("checkpoint_dir", Config.checkpoint_dir)
    base.pop("run", None)
    base.pop("stage", None)  # recipes' own may be "both"
    folder = os.path.join(root, values.run)
    refuse_unwritable(folder)
    base = _with_embeddings(base, make)
    scoring = {flag: values[flag].value for flag in evaluation.NETWORK_FLAGS
               if values[flag].value}
    plan = Plan(name, folder, columns, tuple(make(base)), base, values.minutes, values.steps,
                values.seeds, tuple(values.variants), (), values.count, size, scoring,
                bool(values.metrics))
    plan = dataclasses.replace(plan, metrics=_metrics(values.metrics, metrics, plan))
    cluster = distribution.Cluster()  # of one device; how many there are the trainings see
    for variant in plan.trained():
        config = plan.config(variant)  # refused now, not after hours
        try:
            cluster.check(config)
        except UserError as error:
            raise UserError(f"{variant.name}: {error} Or leave it out: name the others in "
                            "--variants.") from error
        if config.matching_weight and not _keeps_image_encoder(config):
            raise UserError(f"--matching_weight={config.matching_weight} needs a text encoder that "
                            "was trained here, with its image encoder; leave it out.")
    return Runner(plan).run()


def _with_embeddings(base, make):
    """Says in the options of all whether the data brings its own embeddings."""
    config = Plan("", "", (), (), base).config(make(base)[0])
    if not config.embedding_dim:
        raise UserError("--embedding_dim=0 trains without text, which these trainings compare the "
                        "use of; leave it out, or choose another --preset.")
    return {**base, "precomputed_embeddings": bool(build.embedding_dim(config))}


def _metrics(given, default, plan):
    """The metrics to be measured; UserError for what cannot be."""
    chosen = list(given)
    for name in () if given else default:
        if reason := _lacks(name, plan):
            print(f"{name} is not measured: {reason.partition(';')[0]}", flush=True)
        else:
            chosen.append(name)
    for name in given:
        if name not in ("fid", *evaluation.METRICS):
            raise UserError(f"--metrics={name} is unknown; choose of fid, "
                            f"{', '.join(evaluation.METRICS)}.")
        if reason := _lacks(name, plan):
            raise UserError(f"--metrics={name}: {reason}")
    inception = plan.scoring.get("inception")
    if {*chosen} & {*OF_NETWORK} and not inception and not efficientnet_lite0.find_weights():
        raise UserError(f"{', '.join(n for n in chosen if n in OF_NETWORK)} need a network: "
                        f"{evaluation.INSTALL}, or --inception=FILE, or other --metrics.")
    if "fid" in chosen and not inception:
        raise UserError("--metrics=fid needs the weights that it is defined by: --inception=FILE; "
                        "without them take kid.")
    if {*chosen} & {*OF_NETWORK}:
        features.of_flags(plan.scoring)  # UserError for weights that will not do
    else:
        evaluation.refuse_network_flags(plan.scoring, chosen)
    return tuple(dict.fromkeys("frechet_distance" if n == "fid" else n for n in chosen))


def _lacks(name, plan):
    """Why the data cannot be scored by a metric; "" if it can."""
    config = plan.config(plan.variants[0])
    if name == "attribute_accuracy" and config.dataset != "drawn_flowers":
        return (f"it reads what only drawn_flowers' captions name, not --dataset={config.dataset}; "
                "leave it out.")
    if name == "r_precision" and not _keeps_image_encoder(config):
        return ("it needs a text encoder that was trained here, with its image encoder; leave it "
                "out.")
    return ""


def _keeps_image_encoder(config):
    return not config.precomputed_embeddings and (not config.text_encoder or os.path.exists(
        image_encoder_beside(config.text_encoder)))
