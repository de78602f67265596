"""Draws with each knob at several values and shows what it trades: quality, variety, the caption.

    pip install -e '.[metrics]'
    python -m stackgan_tf.experiments.curves --run=mine --count=1000
    python -m stackgan_tf.experiments.curves --truncation= --epsilon_scale= --text_strength=1,1.5,2

For the factor of the noise (--truncation), that of the conditioning augmentation's epsilon
(--epsilon_scale) and the strength of the caption (--text_strength): precision (are pictures like
real ones), recall (are all kinds there), KID and the diversity within a caption, of the small
ImageNet network's features, and how well pictures show their captions, by attribute accuracy on
drawn_flowers and R-precision elsewhere. An empty list leaves a knob out. Captions and noises are
the same at every value, and those of `evaluate`.

In checkpoints/<run>/stage<N>/: curves.md, curves.png, curves.json. What was read off pictures is
kept: the same command goes on where it was stopped or killed. 1,000 pictures of Stage-I take about
a minute a value on two CPU cores.
"""

import io
import json
import os
from collections.abc import Sequence

import numpy as np
from absl import flags

from stackgan_tf import evaluation
from stackgan_tf.attribute_judge import Judge
from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.disk import ERRORS, write_whole
from stackgan_tf.generate import Generator
from stackgan_tf.knobs import HELP, NAMES
from stackgan_tf.messages import reason
from stackgan_tf.progress import Progress
from stackgan_tf.run_folder import Part
from stackgan_tf.what_to_draw import read_values

VALUES = {"truncation": (0, 0.25, 0.5, 0.75, 1, 1.25),
          "epsilon_scale": (0, 0.25, 0.5, 0.75, 1, 1.25),
          "text_strength": (0, 0.5, 1, 1.25, 1.5, 2, 3)}
TITLES = {"truncation": "factor of the noise (truncation)",
          "epsilon_scale": "factor of epsilon (epsilon_scale)",
          "text_strength": "strength of the caption (text_strength)"}
# What the two rows of panels show, of the titles of `columns`.
PANELS = (("precision", "recall", "diversity", "mean", "r precision"), ("kid",))


def main(_):
    values, given = flags.FLAGS, given_flags()
    lists = {name: values[name].value for name in NAMES}
    found = measure(given.get("checkpoint_dir", Config.checkpoint_dir),
                    given.get("run", Config.run), values.stage,
                    {name: read_values(name, some) for name, some in lists.items() if some},
                    count=values.count, seed=values.seed, split=values.split,
                    data_dir=values.data_dir)
    print(markdown(found))


def measure(checkpoint_dir: str, run: str, stage: int | None = None,
            values: dict[str, Sequence[float]] | None = None, judge: Judge | None = None,
            **options) -> dict:
    """The curves of a stage of a run, the highest if None, written beside it.

    Args:
        values: {knob: its values}; VALUES if None.
        judge: of attribute accuracy; the one of this checkpoint_dir if None.
        options: fields of evaluation.Options, without the metrics.

    Returns:
        What stands in curves.json: the protocol, and `curves`, {knob: [{"value": its value, and
        every number with /low and /high}]}.
    """
    generator = Generator(checkpoint_dir, run, stage)
    values = possible(generator, VALUES if values is None else values)
    names = choose(generator, checkpoint_dir, options.get("data_dir", ""))
    scores = evaluation.prepare(generator, checkpoint_dir, evaluation.Options(**options), judge,
                                default=names)
    points = [(knob, value) for knob in values for value in values[knob]]
    bar = Progress("curves", 0, len(points), every=1, per_step=scores.count, unit="value")
    curves = {knob: [] for knob in values}
    for done, (knob, value) in enumerate(points, 1):
        turned = scores.turned(**{knob: value})
        turned.draw()
        records = [evaluation.record_of(turned, name) for name in scores.names]
        numbers = {key: number for record in records for key, number in record.items()
                   if key.endswith(("/low", "/high"))
                   or isinstance(number, float) and key != "seconds"}
        curves[knob].append({"value": value, **numbers})
        bar.update(done, {})
    bar.close()
    common = {key: records[0][key] for key in (
        "stage", "step", "seed", "split", "size", "network", "weights", "resize", "version",
        "commit")}
    found = {"run": run, "metrics": scores.names, "count": scores.count,
             "real_count": len(scores.drawings), **common, "curves": curves}
    write(generator.part, found)
    return found


def possible(generator: Generator, values: dict) -> dict:
    """Those that the run can turn; what it cannot is said, or UserError if nothing is left."""
    for name in values:
        try:
            generator.check_knobs([name])
        except UserError as error:
            print(f"left out: {error}", flush=True)
    left = {name: values[name] for name in NAMES if name in generator.knobs and name in values}
    if not left:
        raise UserError(f"run {generator.run!r}: no knob is left to turn; give one of "
                        f"{', '.join('--' + name for name in generator.knobs)} with its values.")
    return left


def choose(generator: Generator, checkpoint_dir: str, data_dir: str) -> list[str]:
    """The metrics: those of the features, and of the captions what can be had."""
    of_network = ["precision_recall", "kid", *["diversity"] * generator.text]
    config = generator.data_config(data_dir=data_dir)
    text = Part(checkpoint_dir, generator.run, "text_encoder")
    for name in ("attribute_accuracy", "r_precision"):
        why = evaluation.why_not(name, generator, text, config)
        if not why:
            return [*of_network, name]
    print(f"how well pictures show their captions is left out: {why}", flush=True)
    return of_network


def write(part: Part, found: dict) -> None:
    for name, data in (("curves.json", json.dumps(found, indent=2)),
                       ("curves.md", markdown(found)), ("curves.png", plot(found))):
        path = os.path.join(part.path, name)
        if data is None:
            print(f"{path} is not drawn; that needs: {evaluation.INSTALL}", flush=True)
            continue
        try:
            write_whole(path, data.encode() + b"\n" if isinstance(data, str) else data)
        except ERRORS as error:
            raise UserError(f"{path} could not be written: {reason(error)}; make room. The same "
                            "command then goes on.") from error


def columns(found: dict) -> dict[str, str]:
    """{title: key} of the numbers of a row, without the network's name, which a caption gives."""
    row = next(iter(found["curves"].values()))[0]
    keys = [key for key in row if f"{key}/low" in row]
    return {key.removesuffix(f"_{found['network']}").removeprefix("accuracy/").replace("_", " "):
            key for key in keys}


def markdown(found: dict) -> str:
    """A table a knob, each number with the reach of its 95 % interval."""
    titles = columns(found)
    lines = [f"Run {found['run']}, stage {found['stage']} at step {found['step']}: "
             f"{found['count']:,} pictures a value of the split {found['split']}, beside "
             f"{found['real_count']:,} real ones; all up to diversity of {found['network']}'s "
             "features."]
    for knob, rows in found["curves"].items():
        lines += ["", f"| {knob} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for row in rows:
            cells = [f"{row[key]:.3f}{reach(row, key)}" for key in titles.values()]
            lines.append(f"| {row['value']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def reach(row: dict, key: str) -> str:
    """Half of an interval, of which one side may be cut off; "" where it is not known."""
    if row[f"{key}/low"] is None:
        return ""
    return f" ±{max(row[key] - row[f'{key}/low'], row[f'{key}/high'] - row[key]):.3f}"


def plot(found: dict) -> bytes | None:
    """A column of panels a knob, as a PNG; None without Matplotlib."""
    try:
        from matplotlib.figure import Figure  # slow to import, and nobody else needs it
    except ImportError:
        return None
    titles = columns(found)
    curves = found["curves"]
    figure = Figure(figsize=(4.6 * len(curves), 5.6), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False, sharex="col", sharey="row",
                           height_ratios=(2, 1))
    for i, (knob, rows) in enumerate(curves.items()):
        rows = sorted(rows, key=lambda row: row["value"])
        for axis, shown in zip(axes[:, i], PANELS):
            for title in shown:
                if title in titles:
                    _line(axis, rows, titles[title],
                          {"mean": "attribute accuracy"}.get(title, title))
            axis.axvline(1, color="gray", linewidth=0.8, linestyle=":")  # as trained
            axis.set_ylim(bottom=0)
        axis.set_xlabel(TITLES[knob])
    for axis in axes[:, 0]:
        if axis.lines[1:]:  # beside the one that marks 1
            axis.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    return data.getvalue()


def _line(axis, rows, key, label):
    """A number over the values of a knob, its interval shaded."""
    values, low, high = [row["value"] for row in rows], f"{key}/low", f"{key}/high"
    line, = axis.plot(values, [row[key] for row in rows], marker=".", label=label)
    # an interval that is not known is NaN here, which draws nothing
    between = np.array([[row[low], row[high]] for row in rows], np.float64).T
    axis.fill_between(values, *between, alpha=0.2, color=line.get_color())


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    for name, text in HELP.items():
        flags.DEFINE_list(name, ",".join(map(str, VALUES[name])), f"values of it: {text}")
    flags.DEFINE_integer("stage", None, "1 or 2; the highest that is trained if not given",
                         lower_bound=1, upper_bound=2)
    flags.DEFINE_integer("count", 1000, "pictures to generate at each value", lower_bound=1,
                         upper_bound=10**7)
    flags.DEFINE_integer("seed", 0, "chooses the captions and the noise", lower_bound=0,
                         upper_bound=2**31 - 1)
    flags.DEFINE_enum("split", "", ["", "train", "test"], "the captions and the real pictures; '': "
                      "test, if there is one")
    flags.DEFINE_string("data_dir", "", "where the data is now, if it was moved")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
