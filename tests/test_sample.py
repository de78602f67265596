"""sample.py and generate.py on tiny SavedModels, written here: no training."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from stackgan_tf import checkpoint, sample
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator

NOISE, EPSILON, DIM = 5, 3, 4


class FakeStage(keras.Model):
    """noise, epsilon and embeddings through a dense layer and a convolution to a picture."""

    def __init__(self, size, seed):
        super().__init__()
        self.size = size
        init = keras.initializers.RandomNormal(stddev=0.7, seed=seed)
        self.dense = keras.layers.Dense(8 * 8 * 4, kernel_initializer=init)
        self.conv = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer=init)

    def call(self, inputs):
        x = tf.concat([inputs[name] for name in sorted(inputs)], -1)
        x = tf.reshape(self.dense(x), [-1, 8, 8, 4])
        return tf.tanh(self.conv(tf.image.resize(x, [self.size, self.size])))


def write_stage(path, size, text=True, below=None):
    dims = {"noise": NOISE, **({"epsilon": EPSILON, "embeddings": DIM} if text else {})}
    signature = {name: tf.TensorSpec([None, dim], tf.float32, name) for name, dim in dims.items()}
    model = FakeStage(size, seed=size)
    model({name: np.zeros((1, dim), np.float32) for name, dim in dims.items()})
    endpoints = {"serve": (lambda x: {"images": model(x)}, [signature])}
    if below is not None:
        endpoints["stage1"] = (lambda x: {"images": below(x)}, [signature])
    checkpoint.export(str(path / "saved_model"), [model] + [below] * (below is not None), endpoints)
    return model


def write_text_encoder(path):
    """Letter frequencies of a, b, c and d."""
    def embed(captions):
        letters = tf.strings.unicode_decode(captions, "UTF-8")
        return {"embeddings": tf.stack([tf.reduce_sum(tf.cast(letters == ord(c), tf.float32), 1)
                                        for c in "abcd"], 1)}

    checkpoint.export(str(path / "saved_model"), [], {"serve": (embed, [
        tf.TensorSpec([None], tf.string, "captions")])})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A checkpoint_dir with the runs `both`, `sketch` (Stage-I only) and `silent` (no text)."""
    root = tmp_path_factory.mktemp("checkpoints")
    below = write_stage(root / "both/stage1", 16)
    write_stage(root / "both/stage2", 32, below=below)
    write_text_encoder(root / "both/text_encoder")
    write_stage(root / "sketch/stage1", 16)
    write_text_encoder(root / "sketch/text_encoder")
    write_stage(root / "silent/stage1", 16, text=False)
    (root / "begun/stage1").mkdir(parents=True)
    return str(root)


def contents(paths):
    return [open(path, "rb").read() for path in paths]


def test_writes_a_grid_and_single_pictures_of_both_stages(runs, tmp_path):
    out = str(tmp_path / "out")
    paths = sample.sample(runs, "both", ["a cab", "bad"], count=3, output=out)
    assert paths[0] == os.path.join(out, "grid.png")
    assert sorted(os.listdir(out)) == sorted(
        ["grid.png", *(f"{i}_{j}_stage{s}.png" for i in (0, 1) for j in range(3) for s in (1, 2))])
    assert Image.open(os.path.join(out, "1_2_stage1.png")).size == (16, 16)
    assert Image.open(os.path.join(out, "1_2_stage2.png")).size == (32, 32)
    grid = np.asarray(Image.open(paths[0]))
    assert grid.shape[1] == 3 * 34 + 2  # three pictures of 32 with 2 between and around
    single = np.asarray(Image.open(os.path.join(out, "1_0_stage2.png")))
    assert (grid[-34:-2, 2:34] == single).all()  # the last row is caption 1, Stage-II


def test_same_seed_same_bytes_and_never_overwrites(runs):
    first = sample.sample(runs, "both", ["a cab"], count=2, seed=7)
    again = sample.sample(runs, "both", ["a cab"], count=2, seed=7)
    assert os.path.dirname(first[0]) != os.path.dirname(again[0])
    assert os.path.basename(os.path.dirname(again[0])).startswith("sample-000")
    assert contents(first) == contents(again)
    assert contents(first) != contents(sample.sample(runs, "both", ["a cab"], count=2, seed=8))


def test_given_output_is_not_overwritten(runs, tmp_path):
    sample.sample(runs, "both", ["a cab"], count=1, output=str(tmp_path))
    before = contents(sorted(tmp_path.iterdir()))
    with pytest.raises(UserError, match="already holds grid.png; choose another"):
        sample.sample(runs, "both", ["bad"], count=1, output=str(tmp_path))
    assert contents(sorted(tmp_path.iterdir())) == before


def test_a_picture_does_not_depend_on_its_batch(runs):
    generator = Generator(runs, "both")
    captions = [f"a{'b' * (i % 4)}{'cd' * (i % 3)}" for i in range(11)]
    seeds = [2**40 + i % 5 for i in range(11)]
    for stage in generator.stages:
        together = generator.generate(captions, seeds, stage)
        for i in (0, 4, 10):
            alone = Generator(runs, "both").generate([captions[i]], [seeds[i]], stage)
            assert (alone[0] == together[i]).all()
    assert len(np.unique(together, axis=0)) == 11


def test_stage_1_of_a_stage_2_is_the_sketch_beneath(runs):
    beneath = Generator(runs, "both").generate(["abc"], [0], stage=1)
    alone = Generator(runs, "both", stage=1).generate(["abc"], [0])
    assert beneath.shape == (1, 16, 16, 3) and (beneath == alone).all()


def test_noise_depends_on_seed_and_place_not_on_the_caption(runs, tmp_path):
    paths = sample.sample(runs, "sketch", ["ab", "ab", "cd"], count=2, output=str(tmp_path))
    pictures = contents(paths[1:])
    assert pictures[0:2] == pictures[2:4]
    assert len(set(pictures)) == 4


def test_stage_1_alone_is_said(runs, tmp_path, capsys):
    sample.sample(runs, "sketch", ["ab"], count=1, output=str(tmp_path))
    assert "no Stage-II yet" in capsys.readouterr().out


def test_run_without_text(runs, tmp_path):
    assert len(sample.sample(runs, "silent", count=9, output=str(tmp_path))) == 10
    with pytest.raises(UserError, match="without text; leave --captions out"):
        sample.sample(runs, "silent", ["a red flower"])


@pytest.mark.parametrize("run, captions, message", [
    ("both", [], "--captions="),
    ("both", ["ab", " \t"], "caption 2 of 2 is empty"),
    ("nowhere", ["ab"], "--run=nowhere: no such run"),
    ("begun", ["ab"], "train it with: python -m stackgan_tf.train --stage=1 --run=begun"),
])
def test_mistakes_are_named(runs, run, captions, message):
    with pytest.raises(UserError, match=message):
        sample.sample(runs, run, captions)


def test_text_encoder_of_another_size_is_refused(runs, tmp_path):
    write_stage(tmp_path / "odd/stage1", 16)
    checkpoint.export(str(tmp_path / "odd/text_encoder/saved_model"), [], {"serve": (
        lambda captions: {"embeddings": tf.zeros([tf.size(captions), 9])},
        [tf.TensorSpec([None], tf.string, "captions")])})
    with pytest.raises(UserError, match="gives 9 numbers a caption, .* reads 4"):
        Generator(str(tmp_path), "odd")


def test_command_line(runs, tmp_path):
    command = [sys.executable, "-m", "stackgan_tf.sample", f"--checkpoint_dir={runs}"]
    done = subprocess.run([*command, "--run=both", "--captions=ab", "--captions=cd", "--count=1",
                           f"--output={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "grid.png")
    assert (tmp_path / "1_0_stage2.png").exists()
    done = subprocess.run([*command, "--run=both", "--captions= "], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: caption 1 of 1 is empty")
    assert "Traceback" not in done.stderr
