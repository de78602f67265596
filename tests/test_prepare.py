"""Prepared sets: complete, the same after any interruption, refused when they would be mixed up."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import ROOT
from PIL import Image
from watched import Watched

from stackgan_tf import build, prepare, shards, sources
from stackgan_tf.config import UserError, resolve
from stackgan_tf.datasets import prepared


def picture(i, size=(24, 20)):
    """A picture of noise, unlike that of any other i."""
    return np.random.default_rng(i).integers(0, 256, (*size, 3)).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    data = io.BytesIO()
    Image.fromarray(image).save(data, kind, **options)
    return data.getvalue()


def make_folder(path, count, size=(24, 20), **fields):
    """`count` pictures, every other a JPEG; captions one to three, classes three."""
    lines = []
    for i in range(count):
        name = f"{i}.png" if i % 2 else f"{i}.jpg"
        (path / name).write_bytes(encoded(picture(i, size), "PNG" if i % 2 else "JPEG"))
        lines.append({"file": name, "captions": [f"c{i} {k}" for k in range(1 + i % 3)],
                      "class": "abc"[i % 3], **{k: v(i) for k, v in fields.items()}})
    (path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def settings(data_dir, output, dataset="folder", max_size=304, small=0, shards=3, workers=2,
             beam="", **fields):
    config = resolve({"dataset": dataset, "data_dir": str(data_dir), "image_size": 256,
                      "crop_margin": 0.1875, **fields})
    return prepare.Settings(config, str(output), max_size, small, shards, workers, beam, ())


def read(output, split="train"):
    """{file name: element} by plain TFDS; fails on a name that comes twice."""
    elements = list(tfds.builder_from_directory(str(output)).as_dataset(split).as_numpy_iterator())
    found = {element["file_name"].decode(): element for element in elements}
    assert len(found) == len(elements)
    return found


def contents(output):
    return {name: (output / name).read_bytes() for name in sorted(os.listdir(output))}


def test_every_picture_comes_back_once_through_plain_tfds(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 40, split=lambda i: "test" if i % 5 == 0 else "train")
    assert prepare.prepare(settings(data, output)) == 0
    for split, which in (("train", [i for i in range(40) if i % 5]), ("test", range(0, 40, 5))):
        found = read(output, split)
        assert sorted(found) == sorted(f"{i}.png" if i % 2 else f"{i}.jpg" for i in which)
        for i in which:
            element = found[f"{i}.png" if i % 2 else f"{i}.jpg"]
            assert [c.decode() for c in element["captions"]] == [f"c{i} {k}"
                                                                 for k in range(1 + i % 3)]
            assert element["label"] == i % 3
    info = tfds.builder_from_directory(str(output)).info
    assert info.features["label"].names == ["a", "b", "c"]
    assert sum(info.splits["train"].shard_lengths) == info.splits["train"].num_examples == 32
    assert not [name for name in os.listdir(output) if name.startswith(".")]


def test_any_shard_is_a_random_sample(tmp_path):
    make_folder(tmp_path, 60)
    prepare.prepare(settings(tmp_path, tmp_path / "out"))
    order = [int(e["file_name"].split(b".")[0]) for e in tfds.builder_from_directory(
        str(tmp_path / "out")).as_dataset("train", shuffle_files=False).as_numpy_iterator()]
    assert len(set(order)) == 60 and order != sorted(order)
    assert abs(np.corrcoef(order, np.arange(60))[0, 1]) < 0.4  # 3 standard deviations


def test_what_is_stored_of_a_picture(tmp_path):
    small, large = encoded(picture(1), "JPEG"), encoded(picture(2, (90, 120)), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    sideways = encoded(picture(3), "JPEG", exif=turned)
    assert shards.stored_jpegs(small, 30, 0) == {"image": small}
    for data, side in ((large, 30), (sideways, 20), (encoded(picture(4), "PNG"), 20)):
        stored = shards.stored_jpegs(data, 30, 0)["image"]
        image = Image.open(io.BytesIO(stored))
        assert (image.format, image.size, image.mode) == ("JPEG", (side, side), "RGB")
        assert stored != data
    with pytest.raises(ValueError, match="damaged"):
        shards.stored_jpegs(small[:-200], 30, 0)


def test_a_small_copy_is_of_the_picture_itself(tmp_path, tiny):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 12, size=(40, 50))
    prepare.prepare(settings(data, output, max_size=30, small=19))
    for element in read(output).values():
        assert element["image"].shape == (30, 30, 3) and element["small"].shape == (19, 19, 3)
    original = {e["file_name"]: e["image"] for e in build.load_elements(
        tiny(dataset="folder", data_dir=str(data), crop_margin=0.1875), "train")}
    for config, side in ((tiny(dataset="prepared", data_dir=str(output), crop_margin=0.1875), 19),
                         (tiny(dataset="prepared", data_dir=str(output), crop_margin=0.25), 30)):
        found = list(prepared.examples(config, "train"))
        assert {e["image"].shape for e in found} == {(side, side, 3)}
        assert all("small" not in e for e in found)
        if side == 19:  # what the folder gives at this size, but for JPEG's loss on noise
            off = [np.abs(e["image"].astype(int) - original[e["file_name"].decode()]).mean()
                   for e in found]
            assert max(off) < 5  # other pictures are 60 off


@pytest.mark.parametrize("max_size,squares", [
    (30, {"image": 30, "small": 19}),
    (304, {"small": 19})])  # every other picture is a JPEG of 40x50 that keeps its bytes
def test_squares_of_one_size_are_noted(tmp_path, max_size, squares):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 8, size=(40, 50))
    prepare.prepare(settings(data, output, max_size=max_size, small=19))
    noted = prepared.describe(settings(output, "").config, "train").squares
    assert noted == squares and [*noted] == sorted(noted)  # the same file from the same command
    for element in read(output).values():
        for name, side in squares.items():
            assert element[name].shape == (side, side, 3)


def test_shrinking_is_antialiased():
    lines = np.zeros((80, 80, 3), np.uint8)
    lines[::2] = 255  # taking every fourth pixel would give all black or all white
    image = tf.io.decode_jpeg(shards.square_jpegs(lines, 20, 0)["image"]).numpy()
    assert image.shape == (20, 20, 3) and np.abs(image.astype(int) - 127).max() < 12


def run(*flags, **kwargs):
    return subprocess.Popen([sys.executable, "-m", "stackgan_tf.prepare", *flags], cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def reports(output):
    folder = output / ".progress"
    return sorted(p.name for p in folder.glob("train-*.json")) if folder.is_dir() else []


def interrupt(process, output, number, least):
    """Sends a signal once `least` shards are whole; returns those that are whole then."""
    end = time.time() + 120
    while len(reports(output)) < least and process.poll() is None and time.time() < end:
        time.sleep(0.002)
    process.send_signal(number)
    process.communicate(timeout=60)
    return reports(output)


def test_killed_and_terminated_and_resumed_equals_undisturbed(tmp_path, figure):
    data, output, whole = tmp_path / "data", tmp_path / "out", tmp_path / "whole"
    data.mkdir()
    make_folder(data, 600, size=(64, 64))
    flags = ["--dataset=folder", f"--data_dir={data}", f"--output={output}", "--shards=30",
             "--max_size=48", "--small_size=0"]
    process = run(*flags)
    killed = interrupt(process, output, signal.SIGKILL, 3)
    assert process.returncode == -signal.SIGKILL and 3 <= len(killed) < 30
    time.sleep(1)
    assert len(reports(output)) <= len(killed) + 2  # the workers have ended with it
    assert not (output / "dataset_info.json").exists()
    with pytest.raises(ValueError, match="half made"):
        prepared.describe(types.SimpleNamespace(data_dir=str(output)), "train")
    process = run(*flags)
    stopped = interrupt(process, output, signal.SIGTERM, len(reports(output)) + 3)
    assert process.returncode == 128 + signal.SIGTERM
    assert set(killed) < set(stopped) and len(stopped) < 30
    before = {p.name: p.stat().st_mtime_ns for p in output.glob("prepared-train*")}
    assert prepare.prepare(settings(data, output, shards=30, max_size=48)) == 0
    after = {p.name: p.stat().st_mtime_ns for p in output.glob("prepared-train*")}
    kept = [name for name in before if int(name.split("-")[2]) in {int(n[6:11]) for n in stopped}]
    assert len(kept) == len(stopped) and all(before[name] == after[name] for name in kept)
    assert prepare.prepare(settings(data, whole, shards=30, max_size=48)) == 0
    assert contents(output) == contents(whole)
    assert len(read(output)) == 600
    figure("1 SIGKILL, 1 SIGTERM: no whole shard lost, the set is that of an undisturbed run")


def test_half_a_shard_never_counts(tmp_path):
    """Neither a shard without its report nor a report being written."""
    make_folder(tmp_path, 30)
    begun, whole = settings(tmp_path, tmp_path / "out"), settings(tmp_path, tmp_path / "whole")
    prepare.prepare(whole)
    folder = tmp_path / "out" / ".progress"
    folder.mkdir(parents=True)
    for name in contents(tmp_path / "whole"):
        if "tfrecord" in name:
            (tmp_path / "out" / name).write_bytes(b"half")
    (folder / "train-00000.json.77.tmp").write_bytes(b"{")
    plan = json.loads((tmp_path / "whole/prepared.json").read_text())
    (tmp_path / "out/prepared.json").write_text(json.dumps(
        {key: plan[key] for key in ("settings", "input")}))
    prepare.prepare(begun)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_and_other_input_are_refused_by_name(tmp_path):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 12)
    prepare.prepare(settings(data, output))
    before = contents(output)
    for changes, words in (({"max_size": 64}, r"--max_size=64 \(was 304\)"),
                           ({"seed": 3}, r"--seed=3 \(was 0\)"),
                           ({"shards": 2}, r"--shards=2 \(was 3\)")):
        with pytest.raises(UserError, match=words):
            prepare.prepare(settings(data, output, **changes))
    assert prepare.prepare(settings(data, output, workers=1, max_unreadable=3)) == 0
    (data / "1.png").write_bytes(encoded(picture(77)) + b"longer")
    with pytest.raises(UserError, match="has changed since"):
        prepare.prepare(settings(data, output))
    assert contents(output).items() >= before.items()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        prepare.prepare(settings(data, tmp_path / "mine"))


def test_unreadable_pictures_are_listed_then_refused(tmp_path, capsys):
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 20)
    (data / "3.png").write_bytes(b"")
    (data / "4.jpg").write_bytes((data / "4.jpg").read_bytes()[:300])
    with pytest.raises(UserError, match=r"(3.png|4.jpg).*raise --max_unreadable\.$"):
        prepare.prepare(settings(data, output, max_unreadable=1))
    assert prepare.prepare(settings(data, output, max_unreadable=2)) == 0
    assert len(read(output)) == 18
    printed = capsys.readouterr().out
    assert "left out 3.png: the file is empty" in printed and "left out 4.jpg: damaged" in printed
    assert set(json.loads((output / "prepared.json").read_text())["unreadable"]) == {
        "3.png", "4.jpg"}


def test_a_manifest_is_checked_as_for_training(tmp_path):
    make_folder(tmp_path, 4)
    with open(tmp_path / "captions.jsonl", "a") as file:
        file.write(json.dumps({"file": "./2.jpg", "captions": ["again"], "class": "a"}) + "\n")
    with pytest.raises(UserError, match="line 5: .*the same picture as in line 3"):
        prepare.prepare(settings(tmp_path, tmp_path / "out"))
    (tmp_path / "captions.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        prepare.prepare(settings(tmp_path, tmp_path / "out2"))


def test_more_shards_than_pictures(tmp_path):
    make_folder(tmp_path, 2)
    prepare.prepare(settings(tmp_path, tmp_path / "out", shards=50))
    assert len(read(tmp_path / "out")) == 2


# Data sets that come as an iterator

def elements(count, dim=0, changed=None, broken=None):
    for i in range(count):
        if i == broken:
            raise KeyboardInterrupt
        element = {"image": picture(i if i != changed else 9999, (9, 8)), "label": i % 7,
                   "file_name": f"{i}", "captions": np.array([f"c{i}".encode()], object)}
        if dim:
            element["embeddings"] = np.full((2, dim), i, np.float32)
        yield element


def test_any_other_data_set_with_its_embeddings_goes_on_where_it_stopped(tmp_path, monkeypatch):
    def give(**how):
        monkeypatch.setattr(build, "load_elements", lambda config, split: elements(
            **{"count": 2500 if split == "train" else 10, "dim": 4, **how}))

    monkeypatch.setattr(sources.Spool, "CHUNK", 1000)
    output = tmp_path / "out"
    chosen = settings("", output, "drawn_flowers")
    give(broken=2100)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(chosen)
    chunks = {p.name for p in (output / ".progress").glob("spool/train-0000?")}
    assert sorted(chunks) == ["train-00000", "train-00001"]
    with pytest.raises(UserError, match="--max_size=20"):
        prepare.prepare(settings("", output, "drawn_flowers", max_size=20))
    give(changed=1500)
    with pytest.raises(UserError, match="pictures 1000 to 2000 of split train have changed"):
        prepare.prepare(chosen)
    give()
    assert prepare.prepare(chosen) == 0
    found = read(output)
    assert len(found) == 2500 and len(read(output, "test")) == 10
    for i in (0, 999, 1000, 2499):
        assert found[str(i)]["label"] == i % 7 and found[str(i)]["captions"] == [b"c%d" % i]
        np.testing.assert_array_equal(found[str(i)]["embeddings"], np.full((2, 4), i))
    assert prepare.prepare(chosen) == 0  # whole: the data set is not asked again


def test_few_pictures_are_copied_at_a_time(tmp_path):
    elements, spool = Watched(map(picture, range(300))), sources.Spool(str(tmp_path))
    assert spool.write("train", elements, lambda e: e["image"].tobytes(), 2, lambda _: None) == 300
    assert 0 < elements.most <= 4 * 2 + 2
    rows = spool.rows("train")
    assert spool.read_example("train", rows[299]) == picture(299).tobytes()


@pytest.mark.parametrize("change", ["label", "embeddings"])
def test_splits_of_two_kinds_are_refused_before_anything_is_written(tmp_path, monkeypatch, change):
    def give(config, split):
        for element in elements(9, dim=4):
            if split == "test":
                del element[change]
            yield element

    monkeypatch.setattr(build, "load_elements", give)
    words = {"label": "train with classes .*test without classes",
             "embeddings": "train with classes .*of 4 numbers.*test with classes .*none"}[change]
    with pytest.raises(UserError, match=f"splits of .* are of two kinds, {words}"):
        prepare.prepare(settings("", tmp_path / "out", "drawn_flowers"))
    assert not (tmp_path / "out").exists()


def test_the_first_picture_may_lack_its_captions(tmp_path, monkeypatch):
    def give(config, split):
        for i, element in enumerate(elements(9)):
            if not i:
                del element["captions"]
            yield element

    monkeypatch.setattr(build, "load_elements", give)
    assert prepare.prepare(settings("", tmp_path / "out", "drawn_flowers")) == 0
    said = json.loads((tmp_path / "out/prepared.json").read_text())
    assert said["without_caption"] == {"train": 1, "test": 1}


# The rest

def test_a_copy_that_is_left_behind_a_whole_set_goes(tmp_path):
    (tmp_path / "in").mkdir()
    make_folder(tmp_path / "in", 4)
    to_do = settings(tmp_path / "in", tmp_path / "out")
    assert prepare.prepare(to_do) == 0
    left = tmp_path / "out" / shards.PROGRESS / "spool"
    left.mkdir(parents=True)
    (left / "train-00000").write_bytes(b"x")
    assert prepare.prepare(to_do) == 0
    assert not (tmp_path / "out" / shards.PROGRESS).exists()


def test_a_folder_too_large_for_the_disk_is_sent_here(tmp_path, monkeypatch, tiny):
    make_folder(tmp_path, 20)
    needed = 20 * 19**2 * 3  # 16 and the margin: 19 pixels a side
    monkeypatch.setattr(build.shutil, "disk_usage",
                        lambda place: types.SimpleNamespace(free=2 * needed - 2))
    with pytest.raises(UserError, match="more than half .* -m stackgan_tf.prepare"):
        build.load_examples(tiny(dataset="folder", data_dir=str(tmp_path), crop_margin=0.1875),
                            "train")


def test_beam_makes_the_same_shards(tmp_path):
    pytest.importorskip("apache_beam", reason="apache-beam is an extra")
    make_folder(tmp_path, 30)
    prepare.prepare(settings(tmp_path, tmp_path / "out"))
    prepare.prepare(settings(tmp_path, tmp_path / "beam", beam="DirectRunner"))
    assert contents(tmp_path / "out") == contents(tmp_path / "beam")


def test_beam_missing_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match="stackgan_tf.beam"):
        prepare.prepare(settings(tmp_path, tmp_path / "out", beam="DirectRunner"))


@pytest.mark.slow
def test_twenty_thousand_pictures_killed_and_resumed(tmp_path, figure):
    import resource
    data, output = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    make_folder(data, 20_000)
    flags = ["--dataset=folder", f"--data_dir={data}", f"--output={output}"]  # as a user would
    killed = interrupt(run(*flags), output, signal.SIGKILL, 3)
    assert 3 <= len(killed) < 10
    process = run(*flags)
    printed, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, printed + errors
    assert f"going on: {len(killed)} of 10 shards" in printed
    names = {f"{i}.png" if i % 2 else f"{i}.jpg" for i in range(20_000)}
    assert read(output).keys() == names
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figure(f"1 SIGKILL: none of {len(killed)} whole shards lost; peak memory of a process "
           f"{peak / 1024:.0f} MiB")
