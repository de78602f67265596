"""Training a text encoder: from the command line, stopped and resumed, exported, refused."""

import json
import os
import shutil
import signal
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import command_here
from PIL import Image

from stackgan_tf import (
    below,
    build,
    config,
    joint_space,
    pipeline,
    progress,
    run_folder,
    saved_parts,
    train_text_encoder,
)
from stackgan_tf.config import UserError
from stackgan_tf.text_encoders import joint_embedding, whitening


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)


def make_folder(tmp_path):
    """12 pictures in 3 classes, 2 captions each, 4 of them for testing."""
    lines = []
    for i in range(12):
        Image.new("RGB", (20, 20), (i * 20, 0, 0)).save(tmp_path / f"{i}.png")
        lines.append({"file": f"{i}.png", "captions": [f"number {i}", f"a picture of {i}"],
                      "class": f"c{i % 3}", "split": "test" if i % 3 == 0 else "train"})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def settings(folder, run="r", **more):
    return config.resolve({
        "run": run, "checkpoint_dir": str(folder / "runs"), "dataset": "folder",
        "data_dir": str(folder), "embedding_dim": 5, "text_encoder_width": 8,
        "text_encoder_steps": 4, "text_encoder_batch_size": 4, "log_steps": 1, **more})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a finished run of each network and loss, named after the loss."""
    folder = make_folder(tmp_path_factory.mktemp("trained"))
    for loss, network in (("structured", "char_cnn_rnn"), ("contrastive", "char_cnn")):
        assert train_text_encoder.train(settings(
            folder, loss, text_encoder_loss=loss, text_encoder_network=network)) == 0
    return folder


def test_every_network_and_loss_that_a_flag_may_name_is_there():
    assert tuple(train_text_encoder.NETWORKS) == config.CHOICES["text_encoder_network"]
    assert tuple(joint_embedding.TEXT_LOSSES) == config.CHOICES["text_encoder_loss"]


def test_command_line(folder):
    command_here("train_text_encoder", *config.to_flags(settings(folder, log_steps=2)))
    part = folder / "runs/r/text_encoder"
    assert {p.name for p in part.iterdir()} >= {"config.json", "ckpt", "saved_model", "logs",
                                                "metrics.jsonl", "image_encoder"}
    lines = [json.loads(line) for line in (part / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 4]
    assert 0 <= lines[-1]["text_encoder/test_retrieval_own"] <= 1
    assert any(name.name.startswith("events") for name in (part / "logs").iterdir())
    before = os.stat(part / "saved_model/saved_model.pb").st_mtime_ns
    assert train_text_encoder.train(settings(folder)) == 0  # finished: nothing is done
    assert os.stat(part / "saved_model/saved_model.pb").st_mtime_ns == before


def embeddings_of(folder, run):
    loaded = tf.saved_model.load(str(folder / f"runs/{run}/text_encoder/saved_model"))
    return loaded.serve(tf.constant(["number 1", "a picture of 7", "", "z"]))["embeddings"].numpy()


def test_stopped_and_resumed_is_the_same(trained, monkeypatch):
    folder, options = trained, {"text_encoder_loss": "contrastive"}
    with monkeypatch.context() as patch:
        def stop_at_2(self, step, values=None):
            if step == 2:
                signal.raise_signal(signal.SIGTERM)

        patch.setattr(progress.Progress, "update", stop_at_2)
        assert train_text_encoder.train(settings(folder, "parts", **options)) == 143
    assert [p.name for p in (folder / "runs/parts/text_encoder/ckpt").iterdir()] == [
        "step-00000002"]
    assert train_text_encoder.train(settings(folder, "parts", **options)) == 0
    embedded = embeddings_of(folder, "contrastive")
    np.testing.assert_array_equal(embedded, embeddings_of(folder, "parts"))
    assert np.isfinite(embedded).all() and embedded.std() > 0


def test_a_reader_of_the_output_that_goes_costs_no_step(folder, monkeypatch):
    def gone(self, step, values=None):
        if step == 2:
            raise BrokenPipeError

    monkeypatch.setattr(progress.Progress, "update", gone)
    with pytest.raises(BrokenPipeError):
        train_text_encoder.train(settings(folder, "gone", checkpoint_steps=2))
    assert os.listdir(folder / "runs/gone/text_encoder/ckpt") == ["step-00000002"]


def test_a_signal_while_a_checkpoint_is_written_writes_no_second_one(folder):
    """Which would take the place of the first by two renames, in the moment of being killed."""
    stop, saved = types.SimpleNamespace(number=0), []

    def save(step):
        saved.append(step)
        stop.number = signal.SIGTERM

    done = train_text_encoder._loop(
        settings(folder, checkpoint_steps=2, log_steps=9),
        run_folder.Part(str(folder), "r", "text_encoder"),
        types.SimpleNamespace(step=dict), lambda step: (), types.SimpleNamespace(save=save), 0,
        stop)
    assert done == 2 and saved == [2]


@pytest.mark.parametrize("loss", ["structured", "contrastive"])
def test_embeddings_of_training_captions_have_unit_variance(trained, loss):
    loaded = tf.saved_model.load(str(trained / f"runs/{loss}/text_encoder/saved_model"))
    captions = [c for i in range(12) if i % 3 for c in (f"number {i}", f"a picture of {i}")]
    embedded = loaded.serve(tf.constant(captions))["embeddings"].numpy()
    np.testing.assert_allclose(embedded.mean(0), 0, atol=1e-3)
    assert embedded.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("loss", ["structured", "contrastive"])
def test_the_kept_image_encoder_scores_as_in_training(trained, loss):
    part = run_folder.Part(str(trained / "runs"), loss, "text_encoder")
    test = build.load_examples(settings(trained, image_size=64), "test")
    pictures = pipeline.center_crop(test.images, 64)
    space = joint_space.JointSpace(part.image_encoder)
    text = saved_parts.TextEncoder(part.saved_model)
    captions = space.of_captions(text([row[0] for row in test.captions]).numpy())
    best = np.argmax(captions @ space.read(pictures)["embeddings"].T, 1)
    recorded = json.loads(open(part.metrics).read().splitlines()[-1])
    assert np.mean(best == np.arange(4)) == recorded["text_encoder/test_retrieval_own"]


def test_a_run_of_before_gets_its_image_encoder_from_the_checkpoint(trained, capsys, monkeypatch):
    shutil.copytree(trained / "runs/contrastive", trained / "runs/r")
    part = run_folder.Part(str(trained / "runs"), "r", "text_encoder")
    options = {"text_encoder_loss": "contrastive"}
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    words = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)

    def read():
        space = joint_space.JointSpace(part.image_encoder)
        return space.read(picture)["embeddings"], space.of_captions(words)

    before = read()
    # another version may choose another map, and that of the export is what is undone
    monkeypatch.setattr(whitening, "compute", lambda *rows: (np.zeros(5), np.eye(5), 1.0))
    kept = part.fingerprint()
    shutil.rmtree(part.image_encoder)
    said = joint_space.JointSpace.missing(part)
    assert "give python -m stackgan_tf.train_text_encoder once more" in said
    assert train_text_encoder.train(settings(trained, **options)) == 0
    (picture_now, words_now), (picture_then, words_then) = read(), before
    np.testing.assert_array_equal(picture_now, picture_then)
    np.testing.assert_allclose(words_now, words_then, atol=1e-5)
    assert part.fingerprint() == kept  # the text encoder is as it was
    shutil.rmtree(part.image_encoder)
    shutil.rmtree(part.checkpoints)
    assert train_text_encoder.train(settings(trained, **options)) == 0
    assert "finished; nothing to do" in capsys.readouterr().out
    said = joint_space.JointSpace.missing(part)
    assert "only text encoders that are trained here have one" in said


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_generator_s_pictures_are_read_as_those_of_files(trained, side):
    """Those of 32x32, enlarged; and a gradient comes back."""
    part = run_folder.Part(str(trained / "runs"), "contrastive", "text_encoder")
    space = joint_space.JointSpace(part.image_encoder)
    colors = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    pictures = colors.repeat(side // 4, 1).repeat(side // 4, 2)
    floats = tf.constant(pictures / 127.5 - 1.0, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(floats)
        found = space.of_images(floats)
    at_64 = np.stack([Image.fromarray(one.repeat(8, 0).repeat(8, 1)).resize(
        (64, 64), Image.Resampling.BILINEAR) for one in colors])
    np.testing.assert_allclose(found, space.read(at_64)["embeddings"], atol=0.02)  # 8 bits
    assert np.abs(tape.gradient(found, floats)).max() > 0


def test_a_damaged_text_encoder_is_exported_again_from_the_checkpoint(trained, capsys):
    shutil.copytree(trained / "runs/contrastive", trained / "runs/damaged")
    part = run_folder.Part(str(trained / "runs"), "damaged", "text_encoder")
    before = saved_parts.TextEncoder(part.saved_model).fingerprint()
    for path in (part.saved_model, part.image_encoder):
        os.truncate(os.path.join(path, "variables/variables.index"), 0)
        assert train_text_encoder.train(settings(
            trained, "damaged", text_encoder_loss="contrastive")) == 0
        assert saved_parts.is_whole(path)
    np.testing.assert_allclose(saved_parts.TextEncoder(part.saved_model).fingerprint(), before,
                               rtol=1e-5)


def test_a_text_encoder_of_another_run_brings_its_image_encoder(trained, folder):
    theirs = run_folder.Part(str(trained / "runs"), "contrastive", "text_encoder")
    ours = run_folder.Part(str(folder / "runs"), "new", "text_encoder")
    given = settings(folder, "new", text_encoder=theirs.saved_model, precomputed_embeddings=False)
    assert below.prepare_text_encoder(given, ours) == 0
    for path in ("saved_model", "image_encoder"):
        fingerprint = run_folder.Part.fingerprint_of(getattr(ours, path))
        assert fingerprint == run_folder.Part.fingerprint_of(getattr(theirs, path)) != ""
    learnt = build.load_training(settings(trained)).kept_keys
    assert {*ours.read_trained_on()} == {*theirs.read_trained_on()} == {*learnt}


def test_refusals(folder):
    for given, words in (({"embedding_dim": 0}, "--embedding_dim=0"),
                         ({"text_encoder": "some/path"}, "--text_encoder=some/path"),
                         ({"text_encoder_batch_size": 9}, "--text_encoder_batch_size=9 .* 8")):
        with pytest.raises(UserError, match=words) as caught:
            train_text_encoder.train(settings(folder, **given))
        assert "\n" not in str(caught.value)


def test_other_crops_are_other_settings(trained):
    with pytest.raises(UserError, match=r"--crop_margin=0.5 \(was 0.0625\)"):
        train_text_encoder.train(settings(trained, "contrastive", crop_margin=0.5,
                                          text_encoder_loss="contrastive",
                                          text_encoder_network="char_cnn"))


def test_a_finished_one_of_other_settings_is_not_taken_for_what_is_asked(trained):
    flags = ("--run=structured", f"--checkpoint_dir={trained}/runs", "--dataset=folder",
             f"--data_dir={trained}", "--embedding_dim=5", "--text_encoder_width=8")
    done = command_here("train", *flags, "--text_encoder_steps=9", check=False)
    assert done.returncode == 1 and "--text_encoder_steps=9 (was 4); repeat" in done.stderr
    assert not (trained / "runs/structured/stage1").exists()


def test_pictures_without_captions_are_refused():
    class Bare:
        captions = [["a"], []]

        def __len__(self):
            return 2

    with pytest.raises(UserError, match="1 of 2 pictures have no caption"):
        train_text_encoder.Data(Bare(), 2, 0, 0.0)


def test_without_a_test_split_it_is_exported_all_the_same(folder, capsys):
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    lines = [{**line, "split": "train"} for line in lines]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert train_text_encoder.train(settings(folder)) == 0
    assert "not scored" in capsys.readouterr().out
    assert embeddings_of(folder, "r").shape == (4, 5)


def test_color_is_taken_out_of_a_share_of_the_pictures():
    images = np.random.default_rng(0).integers(0, 256, (500, 2, 2, 3)).astype(np.uint8)
    made = train_text_encoder.without_color(images, 0.2, 7, 3)
    gray = (np.ptp(made, axis=-1) == 0).all((1, 2))
    assert 70 < gray.sum() < 130  # of 500: 100, five standard deviations of 9 would be 45
    np.testing.assert_array_equal(made[~gray], images[~gray])
    np.testing.assert_array_equal(made[gray, :, :, 0], images[gray].sum(-1, dtype=int) // 3)
    np.testing.assert_array_equal(train_text_encoder.without_color(images, 0.2, 7, 3), made)
    assert (train_text_encoder.without_color(images, 0.2, 7, 4) != made).any()


def test_captions_that_it_cannot_read_are_said(capsys):
    picture = np.zeros((70, 70, 3), np.uint8)
    captions = ["a red bird", "赤い鳥", "une fleur très belle", "🌸", "赤" * 300]
    examples = pipeline.Examples([{"image": picture, "captions": [c]} for c in captions], 70)
    train_text_encoder.Data(examples, 2, 0, 0.0)
    assert "warning: 3 of 5 captions" in capsys.readouterr().out
