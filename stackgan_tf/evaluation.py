"""Scores a run: what can be measured on it, with what, and where it is written.

Below the command line (evaluate.py), so that other commands can score runs too.
"""

import dataclasses
import os
from collections.abc import Sequence

from stackgan_tf import features, score_report
from stackgan_tf.attribute_judge import Judge
from stackgan_tf.config import PLACES, Config, UserError
from stackgan_tf.disk import ERRORS
from stackgan_tf.drawings import Drawings, Split
from stackgan_tf.feature_networks import efficientnet_lite0
from stackgan_tf.generate import Generator
from stackgan_tf.joint_space import JointSpace
from stackgan_tf.messages import reason
from stackgan_tf.run_folder import Part, refuse_unwritable
from stackgan_tf.scores import OF_NETWORK, Scores, too_few

METRICS = ("frechet_distance", "kid", "inception_score", "precision_recall", "diversity",
           "r_precision", "attribute_accuracy")
NETWORK_FLAGS = ("inception", "inception_sha256", "resize")
INSTALL = "pip install 'stackgan_tf[metrics]'"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure, and on what: the flags of the same names (see evaluate.py)."""

    metrics: Sequence[str] = ()
    count: int = 1000
    seed: int = 0
    split: str = ""
    size: int = 0
    inception: str = ""
    inception_sha256: str = ""
    resize: str = ""
    data_dir: str = ""
    image_dir: str = ""
    captions_dir: str = ""


def evaluate(checkpoint_dir: str, run: str, stage: int | None = None, judge: Judge | None = None,
             **options) -> list[dict]:
    """Scores a stage of a run, the highest if None; one record a metric, each appended to the
    stage's metrics.jsonl as soon as it is there, and all printed as a table.

    Args:
        judge: of attribute accuracy; the one of this checkpoint_dir if None.
        options: fields of Options.

    Raises UserError if a metric cannot be had, before anything is drawn; of what shows only in
    the features, when the metrics before it are shown.
    """
    generator = Generator(checkpoint_dir, run, stage)
    scores = prepare(generator, checkpoint_dir, Options(**options), judge)
    scores.draw()
    records = []
    try:
        for name in scores.names:
            records.append(record_of(scores, name))
            score_report.append_line(generator.part.metrics, records[-1])
    finally:  # a metric that fails takes nothing away from those before it
        if records:
            _show(generator.part, records)
    return records


def prepare(generator: Generator, checkpoint_dir: str, o: Options, judge: Judge | None = None,
            default: Sequence[str] = ()) -> Scores:
    """All that the scores of a stage need, before anything is drawn; as `evaluate`.

    Args:
        default: the metrics if `o` names none; what suits the run if empty.
    """
    refuse_unwritable(generator.part.path)
    size = o.size or int(generator.saved.outputs["images"].shape[1])
    places = {name: getattr(o, name) for name in PLACES}
    config = dataclasses.replace(generator.data_config(**places), image_size=size)
    text = Part(checkpoint_dir, generator.run, "text_encoder")
    names = list(default)
    if o.metrics or not default:
        names = choose(generator, text, config, o)
    network = space = None
    if not {*names} & {*OF_NETWORK}:
        refuse_network_flags(dataclasses.asdict(o), names)
    else:
        network = features.of_flags(dataclasses.asdict(o))
    if "r_precision" in names:
        space = JointSpace(text.image_encoder, text.remedy())
    drawings = Drawings(generator, checkpoint_dir, config, o.split, o.seed)
    names = measurable(names, drawings, o)
    if "attribute_accuracy" in names and judge is None:
        judge = Judge(checkpoint_dir, config.data_dir, config.crop_margin)
    return Scores(drawings, names, o.count, o.seed, network, space, judge)


def refuse_network_flags(values: dict, names: Sequence[str]) -> None:
    """UserError for one of NETWORK_FLAGS that the metrics `names` do not read."""
    for flag in NETWORK_FLAGS:
        if values.get(flag):
            raise UserError(f"--{flag}={values[flag]} has no use with --metrics={','.join(names)}; "
                            f"leave it out, or add one of {', '.join(OF_NETWORK)}.")


def record_of(scores: Scores, name: str) -> dict:
    """One metric's numbers; UserError if the features have none."""
    try:
        return scores.record(name)
    except ValueError as error:
        raise UserError(f"{name} cannot be measured: {str(error).rstrip('.')}; give --metrics "
                        "without it.") from error


def _show(part, records):
    """A table; then what may find no room on the disk, TensorBoard and the plot of all records."""
    print("\n\n".join(score_report.tables(records)), flush=True)
    score_report.write_log(part.logs, records)
    path = os.path.join(part.path, score_report.PLOT)
    try:
        drawn = score_report.plot(path, score_report.read_lines(part.metrics))
    except ERRORS as error:
        print(f"warning: {path} could not be drawn: {reason(error)}", flush=True)
    else:
        if not drawn:
            print(f"{path} is not drawn; that needs: {INSTALL}", flush=True)


def choose(generator: Generator, text: Part, config: Config, o: Options) -> list[str]:
    """The metrics asked for, or else those that suit the run; UserError for what cannot be."""
    if not o.metrics:
        return _default(generator, text, config, o)
    names = ["frechet_distance" if name == "fid" else name for name in o.metrics]
    for name in names:
        if name not in METRICS:
            raise UserError(f"--metrics={name} is unknown; choose of fid, {', '.join(METRICS)}.")
        if why := why_not(name, generator, text, config):
            raise UserError(why)
    if "fid" in o.metrics and not o.inception:
        raise UserError("--metrics=fid needs the weights that it is defined by, which pip does not "
                        "bring: --inception=pt_inception-2015-12-05-6726825d.pth (or "
                        "classify_image_graph_def.pb). Without them take kid, or frechet_distance, "
                        "of a smaller network.")
    return list(dict.fromkeys(names))


def _default(generator, text, config, o):
    if config.dataset == "drawn_flowers" and generator.text:
        return ["attribute_accuracy"]
    names = ["r_precision"]
    if o.inception or efficientnet_lite0.find_weights():
        names = ["kid", "precision_recall", "diversity", "r_precision"]
    else:
        print(f"kid, precision_recall and diversity are left out; they need: {INSTALL}", flush=True)
    names = [name for name in names if not why_not(name, generator, text, config)]
    if "r_precision" not in names and generator.embeds:
        print(f"r_precision is left out: {JointSpace.missing(text)}", flush=True)
    if not names:
        raise UserError(f"nothing can be measured on run {generator.run!r}; get the small ImageNet "
                        f"network for it: {INSTALL}")
    return names


def measurable(names: list[str], split: Split, o: Options) -> list[str]:
    """The metrics that the data and --count have enough for; what is left out is said.

    Raises UserError for one that was asked for, or if none is left.
    """
    left = []
    for name in names:
        why, remedy = too_few(name, split, o.count)
        if why and o.metrics:
            asked = "fid" if name == "frechet_distance" and "fid" in o.metrics else name
            raise UserError(f"--metrics={asked} {why}; {remedy}, or leave it out.")
        if why:
            print(f"{name} is left out: it {why}.", flush=True)
        else:
            left.append(name)
    if not left:
        why, remedy = too_few(names[0], split, o.count)
        raise UserError(f"nothing is left to measure: {names[0]} {why}; {remedy}.")
    return left


def why_not(name: str, generator: Generator, text: Part, config: Config) -> str:
    """Why a run cannot be scored by a metric; "" if it can."""
    run = f"run {generator.run!r}"
    if name == "attribute_accuracy" and config.dataset != "drawn_flowers":
        return (f"{run} was trained on --dataset={config.dataset}; this score reads the "
                "attributes that only drawn_flowers' captions name. Leave attribute_accuracy out.")
    if name in ("attribute_accuracy", "r_precision", "diversity") and not generator.text:
        return (f"{run} was trained without text, so no caption can be checked; leave {name} out, "
                "or evaluate a run with --embedding_dim above 0.")
    if name == "r_precision" and not generator.embeds:
        return (f"{run} draws from the embeddings of its data; R-precision needs a text encoder "
                "that was trained here, with its image encoder. Leave r_precision out.")
    return JointSpace.missing(text) if name == "r_precision" else ""
