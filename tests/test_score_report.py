"""Where scores go: metrics.jsonl, the table, TensorBoard, the plot."""

import json
import math
import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from stackgan_tf import score_report


@pytest.mark.parametrize("left", [b'{"metric": "kid_x", "st', b'{"loss": 1}\n\xff\xfe bad\n',
                                  b"", b"\n"])
def test_a_record_counts_whatever_stands_before_it(obeying, tmp_path, left):
    """Half a line that a full disk cut off, or other bytes."""
    path = tmp_path / "run/stage1/metrics.jsonl"
    path.write_bytes(left)
    record, = obeying(metrics=["kid"], count=20)[0]
    assert score_report.read_lines(str(path)) == [record]
    assert path.read_bytes().startswith(left)


def test_a_plot_that_finds_no_room_costs_a_warning(obeying, tmp_path, monkeypatch, capsys):
    def full(path, data, shared):
        raise OSError(28, "No space left on device", path)

    pytest.importorskip("matplotlib", reason="needs pip install '.[metrics]'")
    monkeypatch.setattr(score_report, "write_whole", full)
    record, = obeying(metrics=["kid"], count=20)[0]
    out = capsys.readouterr().out
    assert f"{record['kid_fake']:9.4f}" in out  # the table
    assert "warning: " in out and "metrics.png could not be drawn: No space left on device" in out


def test_an_interval_that_is_not_known_is_null_and_says_so(obeying, tmp_path, capsys):
    record, = obeying(metrics=["kid"], count=5)[0]
    line, = (tmp_path / "run/stage1/metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["kid_fake/low"] is None and math.isfinite(record["kid_fake"])
    assert re.search(r"kid_fake +[-\d.]+  not known", capsys.readouterr().out)


def test_scores_are_in_tensorboard_and_in_a_plot(obeying, tmp_path):
    obeying(metrics=["kid", "attribute_accuracy"], count=30)
    stage = tmp_path / "run/stage1"
    found = {}
    for path in stage.glob("logs/evaluate/events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag] = event.step, float(tf.make_ndarray(value.tensor))
    assert found["accuracy/mean"] == (1000, 1.0) and found["kid_fake"][0] == 1000
    pytest.importorskip("matplotlib", reason="needs pip install '.[metrics]'")
    assert Image.open(stage / "metrics.png").size[0] > 500


def test_plot_draws_a_line_for_each_protocol(tmp_path):
    pytest.importorskip("matplotlib", reason="needs pip install '.[metrics]'")
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 5, "loss": 1.0}]
    lines += [{"metric": "kid_x", "step": step, "kid_x": 1 / step, "kid_x/low": 0, "kid_x/high": 1,
               "count": count} for step in (100, 200) for count in (10, 20)]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"metric": "cut o')
    records = score_report.read_lines(str(path))
    assert len(records) == 4
    assert score_report.plot(str(tmp_path / "a.png"), records)
    assert score_report.plot(str(tmp_path / "b.png"), records[:1])
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in "ab"]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()


def test_the_last_line_says_of_which_metric_the_real_pictures_are():
    def line(metric, real):
        return {"metric": metric, "count": 400, "real_count": real, "split": "test", "size": 64,
                metric: 1.0, f"{metric}/low": 0.9, f"{metric}/high": 1.1}

    both = score_report.table([line("precision_recall", 400), line("kid", 804)])
    assert both.splitlines()[-1].startswith(
        "real pictures: 400 (precision_recall) and 804 (kid) of the split test")
    assert "real pictures: 804 of the split" in score_report.table([line("kid", 804)])


def test_commit_is_that_of_the_code_or_none(tmp_path, monkeypatch):
    found = score_report.commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}\+?", found)
    (tmp_path / "score_report.py").write_text("")
    monkeypatch.setattr(score_report, "__file__", str(tmp_path / "score_report.py"))
    assert score_report.commit() is None
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert score_report.commit() is None  # in a repository that does not hold the code
