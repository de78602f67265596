"""--matching_weight (AttnGAN's DAMSM loss): the image encoder shall find a fake's caption."""

import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import command_here, tiny_flags
from fake_space import Space
from test_fast_forms import batch_of

from stackgan_tf import build, losses, saved_parts, settings
from stackgan_tf.config import UserError
from stackgan_tf.run_folder import Part


def test_matching_is_minus_the_logarithm_of_a_share():
    """Two captions at right angles; a picture of one, one in between, whatever their lengths."""
    captions = np.float32([[3, 0], [0, 0.5]])
    images = np.float32([[0.2, 0], [7, 7]])
    expected = (np.log(1 + np.exp(-20)) + np.log(2)) / 2
    assert float(losses.matching_loss(images, captions, [0, 1])) == pytest.approx(expected)
    wrong = float(losses.matching_loss(images[:1], captions, [1]))
    assert wrong == pytest.approx(20 + np.log(1 + np.exp(-20)))


@pytest.mark.parametrize("stage", [1, 2])
def test_matching_leads_pictures_to_their_captions(tiny, stage1_path, stage):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    config = tiny(stage, matching_weight=0.5, kl_weight=0.0)
    gan, _ = build.gan(dataclasses.replace(config, sketch_weight=0.0), below, Space())
    batch = batch_of({1: 16, 2: 32}[stage])
    latents = gan.draw_latents(tf.constant([0, 5]), 4)
    variables, found = [v.value for v in gan.generator.trainable_variables], []
    for _ in range(3):
        with tf.GradientTape() as tape:
            output = gan.generate(latents, batch["embeddings"], training=True)
            parts = gan.generator_loss(batch, output, latents)[1]
        found.append(float(parts["loss/matching"]))
        expected = parts["loss/adversarial"] + 0.5 * parts["loss/matching"]
        assert float(parts["loss/generator"]) == pytest.approx(float(expected), rel=1e-6)
        gradients = tape.gradient(parts["loss/matching"], variables, unconnected_gradients="zero")
        for value, step in zip(variables, tf.clip_by_global_norm(gradients, 0.01)[0], strict=True):
            value.assign_sub(step)
    assert found[0] > found[1] > found[2]


def given(folder, tmp_path, **more):
    return {"stage": 1, "dataset": "folder", "data_dir": folder, "embedding_dim": 8,
            "checkpoint_dir": str(tmp_path), **more}


@pytest.mark.parametrize("changes, words", [
    ({}, "--matching_weight=2.0 needs an image encoder.*has none beside it; leave it out"),
    ({"embedding_dim": 0}, "--matching_weight=2.0 has no use with --embedding_dim=0"),
])
def test_asked_for_it_is_refused(folder, encoder, tmp_path, changes, words):
    flags = given(folder, tmp_path, text_encoder=encoder, matching_weight=2.0, **changes)
    if changes:
        del flags["text_encoder"]
    with pytest.raises(UserError, match=words):
        settings.from_flags(flags)


def test_an_image_encoder_that_can_be_had_again_is_told_how(folder, tmp_path):
    text = Part(str(tmp_path), "default", "text_encoder")
    for path in (text.saved_model, os.path.join(text.checkpoints, "step-00000001")):
        os.makedirs(path)
    (tmp_path / "default/text_encoder/saved_model/saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="--matching_weight=2.0 needs .*/image_encoder, .*give "
                       "python -m stackgan_tf.train_text_encoder once more"):
        settings.from_flags(given(folder, tmp_path, matching_weight=2.0))


def test_a_run_learns_on_the_image_encoder_that_it_trains(folder, tmp_path, no_pictures):
    flags = tiny_flags(1, checkpoint_dir=str(tmp_path), run="r", dataset="folder",
                       data_dir=folder, train_steps=2, log_steps=1, matching_weight=1.0)
    command_here("train", *flags)
    lines = (tmp_path / "r/text_encoder/metrics.jsonl").read_text().splitlines()
    assert lines and "text_encoder/loss" in json.loads(lines[0])
    (path,) = (tmp_path / "r/stage1/logs").glob("events*")
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value}
    assert "loss/matching" in tags
