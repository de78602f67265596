"""Bad input to every command: one line that names the thing and the remedy, exit code 1 (2 where
the command line cannot be understood), no traceback, nothing written.

The cases stand in `bad_input/`, a file a kind; one more is one more line there.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from bad_input import command_lines, data_sets, pictures, run_folders, weights
from bad_input.mistakes import Place, case, on_run
from conftest import ROOT
from PIL import Image
from typed import untouched_logging

from stackgan_tf import build, processes
from stackgan_tf.datasets import drawn_flowers

KINDS = {"flags": command_lines.CASES, "data": data_sets.CASES, "picture": pictures.CASES,
         "run": run_folders.CASES, "weights": weights.CASES}
CASES = {f"{kind}: {name}": one for kind, cases in KINDS.items() for name, one in cases.items()}


@pytest.fixture(scope="session")
def known(tmp_path_factory, runs, encoder, stage1_path):
    """What the cases may copy: {word: path}."""
    root = tmp_path_factory.mktemp("known")
    (root / "D").mkdir()
    with open(root / "D/captions.jsonl", "w") as file:
        for i in range(4):
            Image.new("RGB", (20, 20), (60 * i, 9, 9)).save(root / f"D/{i}.png")
            file.write(json.dumps({"file": f"{i}.png", "captions": [f"shade {i}"],
                                   "class": "ab"[i % 2]}) + "\n")
    return {"D": root / "D", "encoder": encoder, "stage1": stage1_path,
            **{name: os.path.join(runs, name) for name in os.listdir(runs)}, **models(root)}


def models(root):
    """{word: SavedModel} of signatures that nobody asked for."""
    floats = tf.TensorSpec([None, 4], tf.float32, "noise")
    texts = tf.TensorSpec([None], tf.string, "captions")

    def every(captions, value):
        return {"embeddings": tf.fill([tf.shape(captions)[0], 8], value)}

    def refuse(captions):
        with tf.control_dependencies([tf.debugging.assert_less(tf.strings.length(captions), 3)]):
            return every(captions, 1.0)

    def pictures(noise, value=0.0):
        return {"images": tf.fill([tf.shape(noise)[0], 16, 16, 3], value)}

    made = {
        "numbers": (lambda noise: {"sum": tf.reduce_sum(noise, 1)}, [floats]),
        "no numbers": (lambda captions: {"text": captions}, [texts]),
        "two answers": (lambda captions: {name: tf.zeros([tf.shape(captions)[0], 8])
                                          for name in "ab"}, [texts]),
        "of any size": (lambda captions: {"embeddings": tf.strings.to_number(
            tf.strings.bytes_split(captions)).to_tensor()}, [texts]),
        "flat pictures": (lambda noise: {"images": noise}, [floats]),
        "oblong pictures": (lambda noise: {"images": tf.zeros([tf.shape(noise)[0], 16, 8, 3])},
                            [floats]),
        "gray pictures": (lambda noise: {"images": tf.zeros([tf.shape(noise)[0], 16, 16, 1])},
                          [floats]),
        "as large": (lambda noise: {"images": tf.zeros([tf.shape(noise)[0], 32, 32, 3])},
                     [floats]),
        "odd pictures": (lambda noise: {"images": tf.zeros([tf.shape(noise)[0], 24, 24, 3])},
                         [floats]),
        "more inputs": (lambda noise, labels: {"images": tf.zeros(
            [tf.shape(noise + labels)[0], 16, 16, 3])},
            [floats, tf.TensorSpec([None, 4], tf.float32, "labels")]),
        "nan pictures": (lambda noise: pictures(noise, np.nan), [floats]),
        "bright pictures": (lambda noise: pictures(noise, 255.0), [floats]),
        "byte pictures": (lambda noise: {"images": tf.cast(pictures(noise)["images"], tf.uint8)},
                          [floats]),
        "one picture": (lambda noise: pictures(noise[:1]), [floats]),
        "pictures of one row": (pictures, [tf.TensorSpec([1, 4], tf.float32, "noise")]),
        "pictures of doubles": (pictures, [tf.TensorSpec([None, 4], tf.float64, "noise")]),
        "nan texts": (lambda captions: every(captions, np.nan), [texts]),
        "one text": (lambda captions: every(captions[:1], 1.0), [texts]),
        "moody texts": (lambda captions: {"embeddings": tf.random.normal(
            [tf.shape(captions)[0], 8])}, [texts]),
        "refused texts": (refuse, [texts]),
        "columns of texts": (lambda captions: every(captions, 1.0),
                             [tf.TensorSpec([None, 1], tf.string, "captions")]),
        "eight texts": (lambda captions: every(captions, 1.0),
                        [tf.TensorSpec([8], tf.string, "captions")]),
    }
    for name, (function, specs) in made.items():
        module = tf.Module()
        module.serve = tf.function(function, specs)
        tf.saved_model.save(module, str(root / name), {"serving_default": module.serve})
    tf.saved_model.save(tf.Module(), str(root / "no signature"))
    return {name: root / name for name in [*made, "no signature"]}


@pytest.fixture
def place(known, monkeypatch):
    """A Place that is the working folder and the home, with the captioned folder D in it. Nothing
    expensive may begin."""
    def began(*_, **__):
        raise AssertionError("it began")

    monkeypatch.setattr(build, "gan", began)
    monkeypatch.setattr(drawn_flowers, "load", began)
    monkeypatch.setattr(processes, "run", began)
    path = tempfile.mkdtemp(prefix="bad_input_")
    os.chmod(path, 0o755)  # other users may look in, unlike in pytest's folders
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", path)
    shutil.copytree(known["D"], os.path.join(path, "D"))
    with untouched_logging():
        yield Place(path, known)
    shutil.rmtree(path)


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_written(place, capsys, name):
    place.check(CASES[name], capsys)


def test_there_are_enough_of_them():
    assert len(CASES) >= 150


# What the system refuses

LOCKED = {
    "manifest": case(data_sets.FOLDER + "D", "Permission denied (D/captions.jsonl)"),
    "picture": case(pictures.COMMAND, "1.png (cannot be opened: Permission denied)"),
    "weights": case(weights.COMMAND, "--weights=F cannot be read: Permission denied",
                    files={"F": b"x"}),
    "captions": on_run("sample --captions_file=F", "F cannot be read: Permission denied",
                       files={"F": "a flower"}),
    "settings": on_run("sample --captions=ab", "config.json", "ermission denied",
                       files={"runs/sketch/stage1/config.json": "{}"}),
    "model": on_run("sample --captions=ab", "saved_model cannot be loaded", "ermission denied"),
    "place to train in": case(data_sets.FOLDER + "D", "is read-only for you",
                              "see to the permissions"),
    "place to export to": on_run("export --output=O/served", "is read-only for you", "--output"),
    "place to draw in": on_run("sample --captions=ab --output=O/x", "O/x", "is read-only"),
    "place to inspect in": case(data_sets.INSPECT + "D", "cannot make", "ermission denied",
                                "choose another --output"),
    "place to prepare in": case(data_sets.PREPARE + "D", "cannot make --output=O",
                                "ermission denied"),
}
SHUT = {"manifest": "D/captions.jsonl", "picture": "D/1.png", "weights": "F", "captions": "F",
        "settings": "runs/sketch/stage1/config.json",
        "model": "runs/sketch/stage1/saved_model/saved_model.pb"}


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="no users here")
@pytest.mark.parametrize("name", LOCKED)
def test_what_may_not_be_read_or_written(place, capsys, name):
    place.make(LOCKED[name].files)
    if name in SHUT:
        os.chmod(SHUT[name], 0)
        os.chmod(".", 0o777)  # and nothing else is in the way
    with another_user():
        place.check(dataclasses.replace(LOCKED[name], files={}), capsys)


@contextlib.contextmanager
def another_user():
    """Nobody, where the tests run as root, who may do anything; in folders of its own else."""
    if os.getuid():
        os.chmod(".", 0o555)
        yield
        os.chmod(".", 0o755)
        return
    os.setresuid(65534, 65534, 0)  # os.access asks for the first, files for the second
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_a_disk_that_is_read_only(place, capsys):
    os.mkdir("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", "disk"]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        for one in (case(data_sets.FOLDER + "D --checkpoint_dir=disk", "disk is read-only"),
                    on_run("export --output=disk/served", "disk is read-only", "--output"),
                    case(data_sets.PREPARE.replace("=O", "=disk/O") + "D", "disk/O", "ead-only"),
                    on_run("sample --captions=ab --output=disk/x", "disk/x", "ead-only")):
            place.check(one, capsys)
    finally:
        subprocess.run(["umount", "-l", "disk"], check=True)


# What only a process of its own can have

def test_surroundings(known, tmp_path):
    """A home that cannot be, other clusters' settings, a terminal of few letters, a reader that
    has gone, bytes that are no UTF-8."""
    reader, writer = os.pipe()
    os.close(reader)
    started = {name: start(arguments, tmp_path, environment, stdout) for name, (
        arguments, environment, stdout) in {
            "home": (["train", "--images_per_class=1"], {"HOME": "/proc/none"}, subprocess.PIPE),
            "letters": (["train", "--run=größe", "--dataset=folder", "--data_dir=🌸"],
                        {"PYTHONIOENCODING": "ascii", "TF_CONFIG": ""}, subprocess.PIPE),
            "bytes": ([b"sample", b"--captions=\xff", b"--run=sketch", os.fsencode(
                f"--checkpoint_dir={os.path.dirname(known['sketch'])}")], {}, subprocess.PIPE),
            "pipe": (["inspect_data", "--dataset=folder", f"--data_dir={known['D']}",
                      f"--output={tmp_path}/report"], {}, writer)}.items()}
    os.close(writer)
    said = {name: (*process.communicate(timeout=300), process.returncode)
            for name, process in started.items()}
    for name, (_, err, _) in said.items():
        assert b"Traceback" not in err, (name, err)
    for name, words in {"home": b"/proc/none", "letters": b"does not exist",
                        "bytes": b"caption 1 of 1 is no UTF-8"}.items():
        assert said[name][2] == 1 and words in said[name][1].splitlines()[-1], said[name]
    assert said["pipe"][2] == 128 + signal.SIGPIPE and not any(
        line.startswith(b"error: ") for line in said["pipe"][1].splitlines())
    assert b"gr\\xf6\\xdfe" in said["letters"][0]  # what the terminal lacks is spelled out
    assert sorted(os.listdir(tmp_path)) == ["report"]


def start(arguments, cwd, environment, stdout):
    module = os.fsdecode(arguments[0])
    return subprocess.Popen(
        [sys.executable, "-m", f"stackgan_tf.{module}", *arguments[1:]], cwd=cwd, stdout=stdout,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT, **environment})
