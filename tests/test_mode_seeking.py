"""--mode_seeking_weight (MSGAN): pictures of one caption shall differ."""

import numpy as np
import pytest
import tensorflow as tf
from test_fast_forms import batch_of

from stackgan_tf import build, losses, saved_parts


@pytest.mark.parametrize("stage", [1, 2])
def test_mode_seeking_draws_some_captions_again(tiny, stage1_path, stage):
    """Each fourth, with other latents; the others stay as they are."""
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    gan, _ = build.gan(tiny(stage, mode_seeking_weight=0.5), below)
    plain, _ = build.gan(tiny(stage), below)
    assert losses.AGAIN_EVERY == 4
    seed = tf.constant([0, 5])
    latents = gan.draw_latents(seed, 6)
    text = tf.random.normal([6, 8], seed=2)
    output = gan.generate(latents, text)
    for name, value in plain.draw_latents(seed, 6).items():
        np.testing.assert_array_equal(value, latents[name])
    noise, epsilon = latents["again"][::4, :5], latents["again"][::4, 5:]
    assert abs(float(noise[0, 0] - latents["noise"][0, 0])) > 1e-3
    second = plain.generate({"noise": noise, "epsilon": epsilon}, text[::4])["images"]
    np.testing.assert_allclose(output["again_images"], second, atol=1e-5)
    first = plain.generate({name: latents[name] for name in ("noise", "epsilon")}, text)
    assert sorted(output) == sorted([*first, "again_images"])
    for name, value in first.items():
        np.testing.assert_allclose(output[name], value, atol=1e-5)


def test_mode_seeking_drives_pictures_of_a_caption_apart(tiny):
    gan, _ = build.gan(tiny(mode_seeking_weight=1.0, kl_weight=0.0))
    batch = batch_of(16)
    latents = gan.draw_latents(tf.constant([0, 5]), 4)
    variables, found = [v.value for v in gan.generator.trainable_variables], []
    for _ in range(3):
        with tf.GradientTape() as tape:
            output = gan.generate(latents, batch["embeddings"], training=True)
            parts = gan.generator_loss(batch, output, latents)[1]
        found.append(float(parts["loss/mode_seeking"]))
        expected = parts["loss/adversarial"] + parts["loss/mode_seeking"]
        assert float(parts["loss/generator"]) == pytest.approx(float(expected), rel=1e-6)
        for value, gradient in zip(variables, tape.gradient(
                parts["loss/mode_seeking"], variables), strict=True):
            value.assign_sub(1e-3 * gradient)
    assert found[0] > found[1] > found[2]


def test_mode_seeking_without_text(tiny):
    gan, _ = build.gan(tiny(embedding_dim=0, mode_seeking_weight=0.5))
    latents = gan.draw_latents(tf.constant([0, 5]), 4)
    assert sorted(latents) == ["again", "noise"]
    output = gan.generate(latents)
    assert output["again_images"].shape == (1, 16, 16, 3)
    distance = np.abs(output["images"][0] - output["again_images"][0]).mean()
    found = float(gan.generator_loss({}, output, latents)[1]["loss/mode_seeking"])
    assert found == pytest.approx(1 / (distance + 0.01), rel=1e-4)
