"""Tiny data, tiny networks and the command line, for all tests."""

import collections
import gc
import json
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import typed
from fake_evaluation import obeying  # noqa: F401 - a fixture
from fake_runs import MEAN, write_stage, write_text_encoder
from PIL import Image

from stackgan_tf import build, checkpoint, train
from stackgan_tf.config import resolve
from stackgan_tf.reports import Reports
from stackgan_tf.run_folder import Part

gc.freeze()  # what is imported stays: gc.collect(), which many tests call, need not look at it
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Sizes at which a step takes milliseconds: Stage-I 16x16, Stage-II 32x32.
TINY = {
    "embedding_dim": 8, "noise_dim": 5, "condition_dim": 6, "generator_width": 4,
    "discriminator_width": 4, "batch_size": 4, "residual_blocks": 1, "train_steps": 6,
    "log_steps": 2, "checkpoint_steps": 3, "text_encoder_steps": 4, "text_encoder_width": 8,
    "text_encoder_batch_size": 4, "precision": "float32",
    "conditioning_augmentation": True, "discriminator_norm": "batch", "r1_weight": 0.0,
    "mode_seeking_weight": 0.0,
    "learning_rate": 2e-4, "adam_beta1": 0.5, "learning_rate_decay_epochs": 10.0,
}


FIGURES = []


@pytest.fixture
def figure(request):
    """figure(text): what a test counted or measured, shown at the end of all tests."""
    return lambda text: FIGURES.append(f"{request.node.name.partition('[')[0]}: {text}")


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("figures")
        for text, count in collections.Counter(FIGURES).items():
            terminalreporter.line(text + f" ({count} times)" * (count > 1))


@pytest.fixture(autouse=True)
def float32():
    """Whatever precision a test builds a network in, the next one starts from float32."""
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def sigterm():
    """sigterm(): sends this process SIGTERM, which ends nothing but what sees to it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def hang_up():
    """hang_up(): sends this process SIGHUP, and it is not under nohup, as the tests may be."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield lambda: signal.raise_signal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def tiny():
    """tiny(stage, **changes) -> Config."""
    def make(stage=1, **changes):
        size = {1: 16, 2: 32}[stage]
        return resolve({**TINY, "stage": stage, "image_size": size, **changes})
    return make


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A captioned folder of 12 pictures in three classes, each of its own color."""
    path = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    colors = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 50, 220)}
    with open(path / "captions.jsonl", "w") as file:
        for i in range(12):
            name, color = list(colors.items())[i % 3]
            noise = rng.integers(-20, 20, (40, 40, 3))
            picture = np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(picture).save(path / f"{i}.png")
            file.write(json.dumps({"file": f"{i}.png", "class": name, "captions": [
                f"a {name} square", f"this picture number {i} is {name}"]}) + "\n")
    return str(path)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A text encoder that counts hashed words: a SavedModel string [B] -> float [B, 8]."""
    path = str(tmp_path_factory.mktemp("encoder") / "words")

    def serve(captions):
        words = tf.strings.split(tf.strings.lower(captions))
        buckets = tf.strings.to_hash_bucket_fast(words, 8).to_tensor(-1)
        return {"embeddings": tf.reduce_sum(tf.one_hot(buckets, 8), 1)}

    checkpoint.export(path, [], {"serve": (serve, [tf.TensorSpec([None], tf.string, "captions")])})
    return path


@pytest.fixture
def make_trainer(tiny, folder, encoder, tmp_path):
    """make_trainer(batches=None, **changes) -> train.Trainer of Stage-I, in this process."""
    def make(batches=None, **changes):
        config = tiny(**{"dataset": "folder", "data_dir": folder, "checkpoint_dir": str(tmp_path),
                         "precomputed_embeddings": False, **changes})
        return trainer(config, encoder, batches)
    return make


@pytest.fixture
def no_pictures(monkeypatch):
    """Trainings of this process write checkpoints and logs only."""
    monkeypatch.setattr(Reports, "write_pictures", lambda *_: None)
    monkeypatch.setattr(train.Trainer, "export", lambda *_: None)


def trainer(config, encoder, batches=None):
    """The train.Trainer of a Stage-I on the text encoder at a path."""
    part, text = (Part(config.checkpoint_dir, config.run, n) for n in ("stage1", "text_encoder"))
    text.saved_model = encoder
    return train.Trainer(config, part, text, batches or build.load_batches(config), None)


def command(module, *flags, check=True, **kwargs):
    """Runs `python -m stackgan_tf.<module>` and returns the finished process, output as text."""
    done = subprocess.run([sys.executable, "-m", f"stackgan_tf.{module}", *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=600, **kwargs)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def command_here(module, *flags, check=True):
    """The same in this process, for what needs none of its own: TensorFlow takes seconds to start.
    """
    code, out, err = typed.here(module, *flags)
    assert not check or code == 0, out + err
    return subprocess.CompletedProcess([module, *flags], code, out, err)


def tiny_flags(stage, **changes):
    """Command-line flags of TINY for a stage."""
    values = {**TINY, "stage": stage, "image_size": {1: 16, 2: 32}[stage], **changes}
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="session")
def stage1_path(tmp_path_factory):
    """An untrained Stage-I as `train` exports it."""
    config = resolve({**TINY, "image_size": 16})
    gan, _ = build.gan(config)
    path = str(tmp_path_factory.mktemp("stage1") / "saved_model")
    checkpoint.StageExport(config, gan).write(path, gan.generator)
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A checkpoint_dir with the runs `both`, `sketch` (Stage-I only) and `silent` (no text)."""
    root = tmp_path_factory.mktemp("checkpoints")
    below = write_stage(root / "both/stage1", 16)
    write_stage(root / "both/stage2", 32, below=below, mean=MEAN)
    write_text_encoder(root / "both/text_encoder")
    write_stage(root / "sketch/stage1", 16)
    write_text_encoder(root / "sketch/text_encoder")
    write_stage(root / "silent/stage1", 16, text=False)
    (root / "begun/stage1").mkdir(parents=True)
    return str(root)


@pytest.fixture(scope="session")
def demo_root(runs, folder, tmp_path_factory):
    """A checkpoint_dir with the runs of `runs`, where `both` knows its data: `folder`."""
    root = tmp_path_factory.mktemp("demo")
    for run in ("sketch", "silent"):
        os.symlink(os.path.join(runs, run), root / run)
    shutil.copytree(os.path.join(runs, "both"), root / "both")
    (root / "both/stage2/config.json").write_text(json.dumps({
        "dataset": "folder", "data_dir": folder, "crop_margin": 0.25, "image_size": 32}))
    return str(root)
