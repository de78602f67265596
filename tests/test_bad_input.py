"""Bad input to every command: one line that names the thing and the remedy, exit code 1 (2 where
the command line cannot be understood), no traceback, nothing written.

The cases stand in `bad_input/`, a file a kind; one more is one more line there.
"""

import json
import os
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from bad_input import command_lines, data_sets, pictures, run_folders, weights
from bad_input.mistakes import Place, untouched_logging
from PIL import Image

from stackgan_tf import build
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
        "nan pictures": (lambda noise: {"images": tf.fill([tf.shape(noise)[0], 16, 16, 3],
                                                          np.nan)}, [floats]),
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
    monkeypatch.setattr("subprocess.Popen", began)
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
