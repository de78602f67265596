"""One test for each of the twelve known defects of other StackGAN implementations."""

import ast
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import stackgan_tf
from stackgan_tf import build, images, losses, pipeline, saved_parts, train_step
from stackgan_tf.conditioning_augmentation import ConditioningAugmentation


def batch_of(size=16, rows=4, seed=3):
    rng = np.random.default_rng(seed)
    return {"real_images": tf.constant(rng.uniform(-1, 1, (rows, size, size, 3)), tf.float32),
            "embeddings": tf.constant(rng.normal(size=(rows, 8)), tf.float32),
            "mismatched_embeddings": tf.constant(rng.normal(size=(rows, 8)), tf.float32)}


def fakes(gan, batch, rows):
    return gan.generate(gan.draw_latents([0, 0], rows), batch["embeddings"], True)["images"]


def louder(model, factor=20.0):
    """Enlarges the tiny N(0, 0.02) weights, so that a difference is no rounding matter."""
    for variable in model.trainable_variables:
        if "kernel" in variable.path:
            variable.assign(variable * factor)
    return model


def one_step(config):
    gan, average = build.gan(config)
    rate = build.learning_rate(config, 1e-3, 10)
    adams = [build.optimizer(config, rate, m) for m in (gan.generator, gan.discriminator)]
    return gan, average, train_step.make_train_step(gan, *adams, average, 0.9, config.seed)


def test_1_epsilon_differs_in_every_row(tiny):
    gan, _ = build.gan(tiny())
    epsilon = gan.draw_latents([0, 7], 64)["epsilon"].numpy()
    assert len(np.unique(epsilon[:, 0])) == 64
    same = tf.repeat(batch_of()["embeddings"][:1], 4, axis=0)
    condition, mean, _ = gan.generator.augmentation(same, tf.constant(epsilon[:4]))
    assert np.ptp(mean.numpy(), axis=0).max() < 1e-6  # one caption ...
    assert np.ptp(condition.numpy(), axis=0).min() > 1e-3  # ... four conditions


def test_2_kl_reads_mean_and_log_sigma():
    """Had both come from one slice, (1, 0) and (0, 1) could not differ as the formula says."""
    one, zero = tf.ones([1, 1]), tf.zeros([1, 1])
    assert float(losses.kl_divergence(one, zero)) == pytest.approx(0.5)
    assert float(losses.kl_divergence(zero, one)) == pytest.approx(-1 + 0.5 * (np.e**2 - 1))
    layer = ConditioningAugmentation(3)
    _, mean, log_sigma = layer(tf.random.stateless_normal([4, 8], [1, 1]))
    assert np.abs(mean - log_sigma).max() > 1e-3


def test_3_discriminator_reads_the_caption(tiny):
    gan, _ = build.gan(tiny())
    d, batch = louder(gan.discriminator), batch_of()
    features = d.features(batch["real_images"])
    right, wrong = (d.logits(features, batch[k]) for k in ("embeddings", "mismatched_embeddings"))
    assert np.abs(right - wrong).min() > 1e-4


def test_4_wrong_pairs_are_real_pictures_of_another_class(folder, tiny):
    config = tiny(dataset="folder", data_dir=folder)
    batches = pipeline.Batches(build.load_examples(config, "train"), 16, 4, 0)
    rng = np.random.default_rng(0)
    for index in range(12):
        other = batches.mismatched(np.full(200, index), rng)
        assert (batches.labels[other] != batches.labels[index]).all()
        assert len(np.unique(other)) == 8  # every picture of the two other classes
    # and the loss scores them as D(real image, wrong caption), fakes kept out of it
    gan, _ = build.gan(tiny())
    batch = batch_of()
    _, parts = gan.discriminator_loss(batch, fakes(gan, batch, 4))
    d = gan.discriminator
    expected = d.logits(d.features(batch["real_images"], True), batch["mismatched_embeddings"],
                        True)
    assert float(parts["logits/wrong"]) == pytest.approx(float(tf.reduce_mean(expected)), abs=1e-5)


def test_5_the_text_layers_learn(tiny):
    gan, _, step = one_step(tiny())
    layers = gan.discriminator.head.text, gan.generator.augmentation.dense
    before = [layer.kernel.numpy() for layer in layers]
    step(batch_of(), tf.constant(0, tf.int64))
    for layer, old in zip(layers, before, strict=True):
        assert np.abs(layer.kernel.numpy() - old).max() > 1e-5


# 6: the exact resume of both stages, Adam and learning rate included, is in test_train.py.


def test_7_stage1_stays_frozen(tiny, stage1_path):
    frozen = saved_parts.Stage1(stage1_path)
    before = [v.numpy() for v in frozen.loaded.variables]
    assert len(before) > 10
    gan, average = build.gan(tiny(2), frozen)
    config = tiny(2)
    rate = build.learning_rate(config, 1e-3, 10)
    adams = [build.optimizer(config, rate, m) for m in (gan.generator, gan.discriminator)]
    step = train_step.make_train_step(gan, *adams, average, 0.9, 0)
    for i in range(3):
        step(batch_of(32), tf.constant(i, tf.int64))
    for old, variable in zip(before, frozen.loaded.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy(), variable.name)
    mine = {id(v) for v in gan.generator.variables + gan.discriminator.variables}
    assert not mine & {id(v) for v in frozen.loaded.variables}
    # inference mode: a picture does not depend on its neighbours
    latents = gan.draw_latents([0, 0], 4)
    inputs = {**latents, "embeddings": batch_of()["embeddings"]}
    alone = frozen({name: value[:1] for name, value in inputs.items()})
    np.testing.assert_allclose(frozen(inputs)[:1], alone, atol=1e-5)


def test_8_the_moving_average_never_enters_the_live_generator(tiny):
    gan, average, step = one_step(tiny())
    step(batch_of(), tf.constant(5, tf.int64))
    live = [v.numpy() for v in gan.generator.variables]
    gan.generate(gan.draw_latents([0, 1], 2), batch_of()["embeddings"][:2], generator=average)
    for old, variable in zip(live, gan.generator.variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    assert max(np.abs(a.numpy() - b.numpy()).max() for a, b in
               zip(average.variables, gan.generator.variables, strict=True)) > 1e-6


def test_8_the_moving_average_is_the_formula(tiny):
    gan, average = build.gan(tiny())
    old = [v.numpy() for v in average.variables]
    for variable in gan.generator.variables:
        variable.assign(variable + 1.0)
    train_step.update_ema(average, gan.generator, 0.9, tf.constant(1000, tf.int64))
    for before, variable in zip(old, average.variables, strict=True):
        np.testing.assert_allclose(variable, before + 0.1, rtol=1e-4, atol=1e-5)
    names = " ".join(v.path for v in average.variables)
    assert "moving_mean" in names  # the statistics are averaged too


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_9_the_generator_aims_at_real(name):
    """A step down its loss raises D's logits of the fakes."""
    logits = tf.Variable([-0.5, 0.2])
    with tf.GradientTape() as tape:
        loss = losses.LOSSES[name][1](logits)
    assert (tape.gradient(loss, logits).numpy() < 0).all()


def test_10_second_order_and_xla_gradients(tiny):
    gan, _ = build.gan(tiny(image_size=64, generator_width=8))
    noise = gan.draw_latents([0, 0], 2)
    embeddings = batch_of(rows=2)["embeddings"]

    def penalty(z):
        with tf.GradientTape() as inner:
            inner.watch(z)
            total = tf.reduce_sum(gan.generate({**noise, "noise": z}, embeddings)["images"] ** 2)
        return tf.reduce_sum(inner.gradient(total, z) ** 2)

    def gradient(z):
        with tf.GradientTape() as outer:
            outer.watch(z)
            value = penalty(z)
        return outer.gradient(value, z)

    plain = gradient(noise["noise"])
    assert np.abs(plain).max() > 0
    compiled = tf.function(gradient, jit_compile=True)(noise["noise"])
    np.testing.assert_allclose(compiled, plain, rtol=1e-3, atol=1e-3 * np.abs(plain).max())


def test_10_no_image_resize_in_a_network():
    for name in ("blocks", "upsampling", "discriminator_blocks", "stage1", "stage2", "stackgan",
                 "conditioning_augmentation", "augment"):
        tree = ast.parse((Path(stackgan_tf.__file__).parent / f"{name}.py").read_text())
        calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        assert not [c for c in calls if c.startswith("tf.image") or "UpSampling" in c]


def test_11_sigma_can_be_below_one():
    layer = ConditioningAugmentation(2)
    layer(tf.zeros([1, 1]))
    layer.dense.set_weights([np.zeros((1, 4)), np.array([0.0, 0.0, -3.0, -3.0])])
    condition, mean, log_sigma = layer(tf.zeros([1, 1]), tf.ones([1, 2]))
    assert (log_sigma.numpy() < -0.5).all()
    np.testing.assert_allclose(condition - mean, np.exp(-0.6) * np.ones((1, 2)), rtol=1e-5)


def test_12_uint8_is_rounded():
    values = np.array([-1.0, 1.0, 0.5 / 127.5 - 1, 0.51 / 127.5 - 1, 254.4 / 127.5 - 1])
    assert images.to_uint8(values).tolist() == [0, 255, 0, 1, 254]
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(images.to_uint8(images.to_float(every)), every)
