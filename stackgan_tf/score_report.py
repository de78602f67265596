"""Where scores go: metrics.jsonl, a table, TensorBoard, and a picture of metrics over steps."""

import io
import json
import os
import subprocess

import numpy as np
import tensorflow as tf

from stackgan_tf.attribute_classifier import ATTRIBUTES
from stackgan_tf.config import UserError
from stackgan_tf.disk import ERRORS, write_whole
from stackgan_tf.logs import Logs, scalar
from stackgan_tf.messages import reason

PLOT = "metrics.png"
# Scores of other values of these are not comparable, so each gets a line of its own in a plot.
_SETTINGS = ("size", "crop_margin", "split", "resize", "count", "real_count", "seed")


def commit() -> str | None:
    """The git commit that this code stands at, "+" behind it if it was changed; None if unknown."""
    folder = os.path.dirname(os.path.abspath(__file__))

    def git(*arguments):
        return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True,
                              check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", os.path.basename(__file__))  # not a repository around it
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def append_line(path: str, record: dict) -> None:
    """One line in one write, so that a reader never sees half of it; behind a line that a full disk
    cut off, on a new one."""
    line = json.dumps(record, allow_nan=False) + "\n"
    try:
        if tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "rb") as file:
                file.seek(max(0, file.size() - 1))
                line = "\n" * (file.read() not in (b"", b"\n")) + line
        with tf.io.gfile.GFile(path, "a") as file:
            file.write(line)
            file.flush()
    except ERRORS as error:
        raise UserError(f"cannot write {path}: {reason(error)}; make room, or see to its "
                        "permissions.") from error


def read_lines(path: str) -> list[dict]:
    """The records of evaluations in a metrics.jsonl; lines of training and damaged ones are left
    out."""
    records = []
    with tf.io.gfile.GFile(path, "rb") as file:
        for line in file.read().splitlines():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # cut off by a full disk; no UTF-8
                continue
            if isinstance(record, dict) and "metric" in record:
                records.append(record)
    return records


def values(record: dict) -> dict[str, float]:
    """The numbers that a record is there for, without their intervals."""
    return {name: record[name] for name in record if f"{name}/low" in record}


def tables(records: list[dict]) -> list[str]:
    """A table of attribute accuracy, if it is there, and one of all else."""
    of_attributes = [record for record in records if record["metric"] == "attribute_accuracy"]
    others = [record for record in records if record["metric"] != "attribute_accuracy"]
    return [*map(attribute_table, of_attributes), *([table(others)] if others else [])]


def attribute_table(record: dict) -> str:
    """Attribute accuracy beside what real pictures and chance would get."""
    lines = [f"{'attribute':14}{'generated':>10}{'real test':>11}{'chance':>8}{'captions':>10}"]
    for name in (*ATTRIBUTES, "mean"):
        if f"accuracy/{name}" in record:
            lines.append(f"{name:14}{record[f'accuracy/{name}']:10.3f}"
                         f"{record['classifier_accuracy'][name]:11.3f}"
                         f"{record[f'chance/{name}']:8.3f}"
                         f"{record.get(f'count/{name}', record['count']):10.0f}")
    return "\n".join(lines)


def table(records: list[dict]) -> str:
    """A line a number, of metrics of the same real pictures."""
    lines = [f"{'metric':38}{'value':>9}  {'95 % interval':19}{'real':>9}{'chance':>8}"
             f"{'pictures':>10}"]
    for record in records:
        for name, value in values(record).items():
            extra = [f"{record[f'{name}/{kind}']:{width}.4f}" if f"{name}/{kind}" in record
                     else " " * width for kind, width in (("real", 9), ("chance", 8))]
            between = "not known" if record[f"{name}/low"] is None else (
                f"{record[f'{name}/low']:.4f} to {record[f'{name}/high']:.4f}")
            lines.append(f"{name:38}{value:9.4f}  {between:19}{''.join(extra)}"
                         f"{record['count']:10,}")
    first, counts = records[0], {}
    for record in records:
        counts.setdefault(f"{record['real_count']:,}", []).append(record["metric"])
    real = " and ".join(f"{count} ({', '.join(names)})" if len(counts) > 1 else count
                        for count, names in counts.items())
    lines.append(f"real pictures: {real} of the split {first['split']}, their centers at "
                 f"{first['size']}x{first['size']}")
    return "\n".join(lines)


def write_log(folder: str, records: list[dict]) -> None:
    """As metrics of TensorBoard's HParams. In a log of their own, for TensorBoard reads on in the
    newest file of a folder, and a training may be at work in the other."""
    with Logs(os.path.join(folder, "evaluate")).writing():
        for record in records:
            for name, value in values(record).items():
                scalar(name, value, record["step"] or 0)


def plot(path: str, records: list[dict]) -> bool:
    """Draws each number over the steps, its interval shaded, as a PNG; False without Matplotlib.

    Args:
        records: of one stage, as `read_lines` gives them; the last of a step counts.

    Raises disk.ERRORS.
    """
    try:
        from matplotlib.figure import Figure  # slow to import, and nobody else needs it
    except ImportError:
        return False
    panels = {}
    for record in records:
        if record.get("step") is None:
            continue
        label = ", ".join(f"{name} {record[name]}" for name in _SETTINGS if name in record)
        for name, value in values(record).items():
            points = panels.setdefault(name, {}).setdefault(label, {})
            points[record["step"]] = (value, record[f"{name}/low"], record[f"{name}/high"])
    if not panels:
        return True
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, lines) in zip(axes, panels.items()):
        for label, points in lines.items():
            steps = sorted(points)
            # an interval that is not known is NaN here, which draws nothing
            value, low, high = np.array([points[step] for step in steps], np.float64).T
            line, = axis.plot(steps, value, marker=".", label=label)
            axis.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
        axis.set(title=name, xlabel="step")
        if any(lines):  # an older record may say nothing of its settings
            axis.legend(fontsize="xx-small")
    for axis in axes[len(panels):]:
        axis.remove()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=100)
    write_whole(path, data.getvalue(), shared=True)
    return True
