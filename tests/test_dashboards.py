"""TensorBoard's pages of a run: what is in its files, and what TensorBoard itself makes of them."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TINY, trainer
from google.protobuf import text_format
from PIL import Image
from tensorboard import default, program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.projector import ProjectorConfig, projector_plugin

from stackgan_tf import dashboards, projector, score_report, shown_texts
from stackgan_tf.config import FREE, Config, resolve
from stackgan_tf.logs import Logs


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, folder, encoder):
    """The run `on`, stopped after three of its six steps, and scored; and the log of another."""
    root = tmp_path_factory.mktemp("dashboards") / "checkpoints"
    settings = {**TINY, "image_size": 16, "dataset": "folder", "data_dir": folder,
                "precomputed_embeddings": False, "checkpoint_dir": str(root)}
    for steps in (3, 6):
        config = resolve({**settings, "run": "on", "train_steps": steps})
        assert trainer(config, encoder).run() == 0
    score_report.write_log(str(root / "on/stage1/logs"), [
        {"metric": "attribute_accuracy", "step": 6, "count": 9, "accuracy/mean": 0.25,
         "accuracy/mean/low": 0.2, "accuracy/mean/high": 0.3, "chance/mean": 0.2}])
    other = Logs(str(root / "wide/stage1/logs"))
    with other.writing():
        dashboards.write_layout()
        dashboards.write_hparams(resolve({**settings, "run": "wide", "generator_width": 8}))
        tf.summary.scalar("loss/generator", 1.5, 7)
    projector.write(other, ["a"], None, np.zeros((1, 8)), np.zeros((1, 16, 16, 3), np.uint8))
    return root


@pytest.fixture(scope="module")
def logs(checkpoints):
    return EventAccumulator(str(checkpoints / "on/stage1/logs"),
                            size_guidance={"tensors": 0}).Reload()


def test_each_chart_shows_something(logs):
    (event, again) = logs.Tensors("custom_scalars__config__")  # one of each start ...
    assert event.tensor_proto == again.tensor_proto  # ... and TensorBoard takes one
    layout = layout_pb2.Layout.FromString(tf.make_ndarray(event.tensor_proto).item())
    (category,) = layout.category
    assert len(category.chart) == 4 and not category.closed
    scalars = [tag for tag in logs.Tags()["tensors"] if
               logs.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"]
    for chart in category.chart:
        for pattern in chart.multiline.tag:
            assert sum(bool(re.match(pattern, tag)) for tag in scalars) == 1, pattern


def test_hparams_are_the_settings_that_stay(logs):
    content = logs.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert info.group_name == "on stage1"
    assert set(info.hparams) == set(Config.__dataclass_fields__) - set(FREE)
    assert info.hparams["generator_width"].number_value == 4
    assert info.hparams["loss"].string_value == "non_saturating"


def test_the_projector_shows_captions_and_pictures(checkpoints, encoder):
    folder = checkpoints / "on/stage1/logs"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    captions = (folder / embedding.metadata_path).read_text().splitlines()
    assert captions[0] == "caption\tclass" and len(captions) == 13
    captions = [line.split("\t")[0] for line in captions[1:]]
    numbers = re.findall(r"number (\d+) is|a (\w+) square", "\n".join(captions))
    assert len(numbers) == 12 and {color for _, color in numbers if color} >= {"red", "blue"}
    vectors = projector_plugin._read_tensor_tsv_file(str(folder / embedding.tensor_path))
    expected = tf.saved_model.load(encoder).signatures["serving_default"](tf.constant(captions))
    np.testing.assert_allclose(vectors, expected["embeddings"], rtol=1e-4)
    sheet = Image.open(folder / embedding.sprite.image_path)
    assert sheet.size == (64, 64) and list(embedding.sprite.single_image_dim) == [16, 16]
    assert not list(folder.rglob("*.tmp"))


def test_texts_are_chosen_at_random_and_the_same_again(tiny, folder, encoder, monkeypatch):
    """Of 12 pictures, in three classes by turns, 9: not the first ones, and all different."""
    monkeypatch.setattr(shown_texts, "MOST", 9)
    config = tiny(dataset="folder", data_dir=folder)

    def embed(captions):
        return tf.zeros([len(captions), 8])

    grid, shown = shown_texts.read(config, 5, embed)
    # rows 0, 2, 4, 7 and 9, and each time a caption further
    assert [caption.split()[-3] for caption in grid.captions[1::2]] == ["2", "7"]
    assert len(shown_texts.read(config, 12, embed)[0].embeddings) == 12
    assert len(shown.captions) == 9 == len(shown.embeddings) and len(set(shown.classes)) == 3
    again = shown_texts.read(config, 5, embed)[1]
    assert again.captions == shown.captions and again.classes == shown.classes


# The Projector's files


def test_sheet_is_square_row_by_row():
    pictures = [np.full((96, 96, 3), 10 * i, np.uint8) for i in range(1, 6)]
    sheet, side = projector.sprite(iter(pictures))
    assert side == 64 and sheet.shape == (192, 192, 3)
    np.testing.assert_array_equal(sheet[::64, ::64, 0], [[10, 20, 30], [40, 50, 0], [0, 0, 0]])
    small, side = projector.sprite([np.arange(12, dtype=np.uint8).reshape(2, 2, 3)])
    assert side == 2 and small.tobytes() == bytes(range(12))


def test_metadata_is_a_row_a_caption():
    """TensorBoard takes a first line with a tab in it for a heading, and no other."""
    assert projector.metadata(["a\tb\nc", " "], None) == b"a b c\n-\n"
    assert projector.metadata(["ü"], ["x\ty"]) == "caption\tclass\nü\tx y\n".encode()


def test_numbers_come_back(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32) * [1, 1e-9, 1e9]
    (tmp_path / "x.tsv").write_bytes(projector.numbers(rows))
    np.testing.assert_allclose(projector_plugin._read_tensor_tsv_file(str(tmp_path / "x.tsv")),
                               rows, rtol=5e-5)


@pytest.mark.parametrize("labels, files, names", [
    ([3, 3, 7], ["a/1", "a/2", "b/1"], ["a", "a", "b"]),
    ([3, 3, 7], ["a/1", "a/2", "a/3"], ["3", "3", "7"]),
    ([3, 3, 7], ["a/1", "b/2", "c/3"], ["3", "3", "7"]),
    ([3, 7], ["1", "2"], ["3", "7"])])
def test_classes_are_called_as_their_folders(labels, files, names):
    assert projector.class_names(labels, files) == names


def test_a_full_disk_costs_the_projector_only(tmp_path, capsys):
    """/dev/full takes nothing, as a full disk does."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (tmp_path / "projector").mkdir()
    os.symlink("/dev/full", tmp_path / "projector/captions.tsv.tmp")
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    for _ in range(2):  # the second time the room is there: what was half-written is gone
        projector.write(Logs(str(tmp_path)), ["a", "b"], None, np.zeros((2, 3)), pictures)
        said = capsys.readouterr().out
        yet = (tmp_path / "projector_config.pbtxt").exists()
        assert ("No space left" in said) != yet and said.count("\n") <= 1
    assert yet and sorted(os.listdir(tmp_path / "projector")) == [
        "captions.tsv", "embeddings.tsv", "pictures.png"]


# TensorBoard's own reading


@pytest.fixture(scope="module")
def ask(checkpoints):
    """ask(path, body=None) -> what the README's `tensorboard` answers, from JSON."""
    readme = (Path(ROOT) / "README.md").read_text()
    (line,) = set(re.findall(r"^ +tensorboard (--\S+)$", readme, re.M))
    assert line == "--logdir=checkpoints"
    server = program.TensorBoard(default.get_plugins())
    server.configure(["tensorboard", f"--logdir={checkpoints}", "--port=0"])
    address = server.launch()

    def get(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{address}data/{path}", data, {
            "Content-Type": "application/json", "Accept-Encoding": "gzip"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
            body = gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body
            return json.loads(body) if "json" in answer.headers["Content-Type"] else body
    end = time.monotonic() + 60
    while len(get("runs")) < 3 and time.monotonic() < end:  # it reads in the background
        time.sleep(0.1)
    return get


def test_tensorboard_lists_the_run_and_its_pages(ask):
    assert set(ask("runs")) == {"on/stage1/logs", "on/stage1/logs/evaluate", "wide/stage1/logs"}
    ask("plugin/projector/runs")  # looks for it; the list may come before it has
    active = {name for name, plugin in ask("plugins_listing").items() if plugin["enabled"]}
    assert active >= {"scalars", "images", "text", "custom_scalars", "hparams"}
    assert set(ask("plugin/projector/runs")) == {"on/stage1/logs", "wide/stage1/logs"}


def test_tensorboard_joins_the_runs_layouts(ask):
    (category,) = ask("plugin/custom_scalars/layout")["category"]
    assert [chart["title"] for chart in category["chart"]] == list(dashboards.CHARTS)
    points = ask("plugin/custom_scalars/scalars?run=on%2Fstage1%2Flogs&tag=loss/discriminator$")
    ((tag, values),) = points["tag_to_events"].items()
    assert tag == "loss/discriminator" and [step for _, step, _ in values] == [2, 3, 4, 6]


def test_tensorboard_compares_the_runs(ask):
    experiment = ask("plugin/hparams/experiment", {"experimentName": ""})
    differ = {info["name"] for info in experiment["hparamInfos"] if info.get("differs")}
    assert differ == {"generator_width"}
    metrics = {(m["name"]["group"], m["name"]["tag"]) for m in experiment["metricInfos"]}
    assert metrics >= {("", "loss/generator"), ("", "samples/variety"),
                       ("evaluate", "accuracy/mean")}
    # every metric that may be looked at, as its page asks for them
    rows = ask("plugin/hparams/session_groups", {
        "experimentName": "", "startIndex": 0, "sliceSize": 9, "colParams": [],
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_SUCCESS"]})
    rows = {row["name"]: row for row in rows["sessionGroups"]}
    assert set(rows) == {"on stage1", "wide stage1"}
    assert rows["wide stage1"]["hparams"]["generator_width"] == 8
    values = {metric["name"]["tag"]: metric for metric in rows["on stage1"]["metricValues"]}
    assert values["accuracy/mean"]["value"] == 0.25 and values["accuracy/mean"][
        "trainingStep"] == 6
    assert values["loss/generator"]["trainingStep"] == 6 and len(rows["on stage1"]["sessions"]) == 1


def test_tensorboard_serves_the_projector(ask):
    (embedding,) = ask("plugin/projector/info?run=on%2Fstage1%2Flogs")["embeddings"]
    assert embedding["tensorName"] == "captions" and embedding["tensorShape"] == [12, 8]
    where = "run=on%2Fstage1%2Flogs&name=captions"
    assert len(ask(f"plugin/projector/tensor?{where}")) == 12 * 8 * 4
    assert ask(f"plugin/projector/metadata?{where}").count(b"\n") == 13
    assert ask(f"plugin/projector/sprite_image?{where}").startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium here")
def test_screenshots_show_the_charts(checkpoints, tmp_path):
    """The README's command, of one page: charts are drawn, in colors of their lines."""
    subprocess.run([sys.executable, os.path.join(ROOT, "docs/screenshots.py"), "--logdir",
                    str(checkpoints), f"--output={tmp_path}", "--pages=custom_scalars"],
                   check=True, timeout=300)
    picture = Image.open(tmp_path / "tensorboard_custom_scalars.png")
    assert picture.width == 1200 and len(picture.convert("RGB").getcolors()) > 20
