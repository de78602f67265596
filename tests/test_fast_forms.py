"""The fast forms against the plain ones: batch norm, Adam, folded weights, shared fakes."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import blocks, build, saved_parts, train_step
from stackgan_tf.adam import FusedAdam


def norms(shape):
    """Ours and Keras's, with the same random weights."""
    plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    fast = blocks.BatchNorm()
    rng = np.random.default_rng(0)
    for layer in (plain, fast):
        layer.build(shape)
    for a, b in zip(plain.weights, fast.weights, strict=True):
        assert a.path.split("/")[-1] == b.path.split("/")[-1]
        value = rng.uniform(0.5, 2.0, a.shape)
        a.assign(value), b.assign(value)
    return plain, fast


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_is_keras_batch_norm(shape, training):
    x = tf.constant(np.random.default_rng(1).normal(2, 3, shape), tf.float32)
    found = []
    for layer in norms(shape):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
        found.append([y, *gradients, layer.moving_mean.value, layer.moving_variance.value])
    for plain, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())


def test_batch_norm_has_a_second_order_gradient():
    """As Keras's, for penalties on a gradient."""
    x = tf.constant(np.random.default_rng(2).normal(0, 1, (2, 3, 3, 4)), tf.float32)
    found = []
    for layer in norms(x.shape):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 3)
            penalty = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        found.append(outer.gradient(penalty, [x, layer.gamma.value]))
    for plain, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


def test_batch_norm_of_bfloat16_has_float32_statistics():
    # a sum of 4,096 numbers in bfloat16's 8 bits would stop growing at 256
    x = tf.cast(tf.reshape(tf.range(4096) % 3, [4, 32, 32, 1]), tf.bfloat16)
    layer = blocks.BatchNorm(dtype="bfloat16")
    y = layer(x, training=True)
    assert y.dtype == tf.bfloat16 and layer.moving_mean.dtype == "float32"
    values = np.arange(4096) % 3
    np.testing.assert_allclose(layer.moving_mean[0], 0.1 * values.mean(), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance[0], 0.9 + 0.1 * values.var(), rtol=1e-5)


@pytest.mark.parametrize("side, reach, stride", [(8, 4, 2), (4, 3, 1), (7, 4, 2), (4, 1, 1)])
def test_a_convolution_as_product_is_a_convolution(side, reach, stride):
    rng = np.random.default_rng(0)
    x, kernel = (tf.constant(rng.normal(size=shape), tf.float32)
                 for shape in ((2, side, side, 5), (reach, reach, 5, 3)))
    found = []
    for form in (lambda x, k: tf.nn.conv2d(x, k, stride, "SAME"),
                 lambda x, k: blocks.convolution_as_product(x, k, stride)):
        with tf.GradientTape() as outer:
            outer.watch([x, kernel])
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = form(x, kernel)
                loss = tf.reduce_sum(y**3)
            penalty = tf.reduce_sum(inner.gradient(loss, x) ** 2)
            loss += penalty
        found.append([y, penalty, *outer.gradient(loss, [x, kernel])])
    for plain, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())


def test_a_layer_chooses_the_form_by_its_sizes(monkeypatch):
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8, 6)), tf.float32)
    layer = blocks.conv(3, 4, 2)
    plain = layer(x)
    ops = []
    for channels in (7, 6):
        monkeypatch.setattr(blocks, "PRODUCT_CHANNELS", channels)
        graph = tf.function(layer).get_concrete_function(x).graph
        ops.append({op.type for op in graph.get_operations()} & {"Conv2D", "MatMul"})
    assert ops == [{"Conv2D"}, {"MatMul"}]
    np.testing.assert_allclose(layer(x), plain, rtol=1e-4, atol=1e-6)


def adams(values):
    made = []
    for kind in (keras.optimizers.Adam, FusedAdam):
        variables = [keras.Variable(np.float32(v), name=f"w{i}") for i, v in enumerate(values)]
        optimizer = kind(1e-2, 0.5, 0.999, epsilon=1e-8, name="adam")
        optimizer.build(variables)
        made.append((variables, optimizer))
    return made


def test_adam_is_keras_adam():
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 4, 5), (7,)]
    (plain, plain_adam), (fast, fast_adam) = adams([rng.normal(size=s) for s in shapes])
    for _ in range(5):
        gradients = [tf.constant(rng.normal(size=s), tf.float32) for s in shapes]
        plain_adam.apply(gradients, [v.value for v in plain])
        fast_adam.apply(gradients, [v.value for v in fast])
    assert [v.path for v in fast_adam.variables] == [v.path for v in plain_adam.variables]
    for a, b in zip(plain + plain_adam.variables, fast + fast_adam.variables, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)


def test_two_replicas_compute_what_one_device_does():
    """In a process of its own: logical devices are made before TensorFlow starts."""
    code = '''
import numpy as np, tensorflow as tf, keras
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from stackgan_tf import blocks, train_step
from stackgan_tf.adam import FusedAdam
x = np.random.default_rng(0).normal(2, 3, (4, 3, 3, 5)).astype(np.float32)
found = []
for strategy in (tf.distribute.get_strategy(),
                 tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        layer = blocks.BatchNorm()
        layer.build(x.shape)
        layer.gamma.assign(np.arange(1.0, 6.0))
        adam = FusedAdam(0.1, name="adam")
        adam.build(layer.trainable_variables)
    def step(rows):
        variables = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss = tf.reduce_sum(layer(rows, training=True) ** 3) / len(x)
        adam.apply(train_step.total(tape.gradient(loss, variables)), variables)
    for _ in range(3):
        rows = iter(np.split(x, replicas))
        data = strategy.experimental_distribute_values_from_function(
            lambda _: tf.constant(next(rows)))
        tf.function(strategy.run)(step, (data,))
    found.append(np.concatenate([v.numpy() for v in layer.weights]))
print(np.abs(found[0] - found[1]).max(), np.abs(found[0]).max())
'''
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    off, scale = map(float, done.stdout.split())
    assert off < 1e-4 * scale


def randomized(model, scale):
    """Weights and statistics as after a long training, so that a difference shows."""
    rng = np.random.default_rng(5)
    for v in model.variables:
        spread = rng.uniform(0.5, 1.5, v.shape) if "norm" in v.path else scale * rng.normal(
            size=v.shape)
        v.assign(spread)
    return model


@pytest.mark.parametrize("stage", [1, 2])
def test_folded_generators_draw_the_same(tiny, stage1_path, stage):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    config = tiny(stage, condition_blocks=True, add_to_sketch=stage == 2, noise_injection=True)
    gan, _ = build.gan(config, below)
    randomized(gan.generator, {1: 0.3, 2: 0.1}[stage])  # not all pixels at -1 or 1
    folded = build.for_inference(config, gan.generator, below)
    latents = gan.draw_latents([0, 1], 4)
    embeddings = tf.random.normal([4, config.embedding_dim], seed=1)
    plain = gan.generate(latents, embeddings)["images"]
    fast = gan.generate(latents, embeddings, generator=folded)["images"]
    assert np.std(plain) > 0.05
    np.testing.assert_allclose(fast, plain, atol=1e-4)
    function = tf.function(lambda x: folded(x)).get_concrete_function(
        {**latents, "embeddings": embeddings, "stage1_images": tf.zeros([4, 16, 16, 3])})
    assert not [op for op in function.graph.get_operations() if "BatchNorm" in op.type]


def batch_of(size):
    return {"real_images": tf.random.uniform([4, size, size, 3], -1, 1, seed=0),
            "embeddings": tf.random.normal([4, 8], seed=1),
            "mismatched_embeddings": tf.random.normal([4, 8], seed=2)}


def gradients(config, stage1=None, **options):
    """{network: gradients} of the first step, twice Adam's first moments after it."""
    gan, average = build.gan(config, stage1)
    adams = [build.optimizer(config, build.learning_rate(config, 1e-3, 10), m)
             for m in (gan.generator, gan.discriminator)]
    step = train_step.make_train_step(gan, *adams, average, 0.9, config.seed, **options)
    step(batch_of(config.image_size), tf.constant(0, tf.int64))
    return [m.numpy() for adam in adams for m in getattr(adam, "inner_optimizer", adam)._momentums]


def test_r1_on_every_other_image_is_that_of_those_images(tiny):
    """And whatever else the discriminator says of the batch is not touched."""
    every, all_ = (build.gan(tiny(discriminator_norm="none", r1_weight=1.0, r1_every=k))[0]
                   for k in (2, 1))
    batch = batch_of(16)
    fakes = tf.random.uniform([4, 16, 16, 3], -1, 1, seed=3)
    parts, plain = (gan.discriminator_loss(batch, fakes)[1] for gan in (every, all_))
    halved = {name: value[::2] for name, value in batch.items()}
    penalty = all_.discriminator_loss(halved, fakes[::2])[1]["loss/r1"]
    np.testing.assert_allclose(parts["loss/r1"], penalty, rtol=1e-5)
    assert abs(plain["loss/r1"] / penalty - 1) > 1e-3  # the other images have another
    for name in set(plain) - {"loss/r1", "loss/discriminator"}:
        np.testing.assert_allclose(parts[name], plain[name], atol=1e-5)


@pytest.mark.parametrize("stage, changes", [
    # as in the default: the penalty differentiates twice
    (1, {"discriminator_norm": "none", "r1_weight": 0.5, "r1_every": 2, "noise_injection": True}),
    pytest.param(2, {"discriminator_norm": "none", "r1_weight": 0.5, "r1_every": 2},
                 marks=pytest.mark.slow),
    pytest.param(2, {"add_to_sketch": True}, marks=pytest.mark.slow)])
def test_xla_compiles_the_whole_step(tiny, stage1_path, stage, changes):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    config = tiny(stage, condition_blocks=True, **changes)
    plain, compiled = (gradients(config, below, jit_compile=jit) for jit in (False, True))
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-4 * np.abs(a).max())


def test_float16_scales_the_loss_and_not_the_update(tiny):
    """Its gradients are those of float32, roughly; not unscaled they would be 32,768 times that."""
    exact = gradients(tiny(discriminator_norm="none"))
    scaled = gradients(tiny(discriminator_norm="none", precision="mixed_float16"))
    for a, b in zip(exact, scaled, strict=True):
        assert np.abs(b).sum() == pytest.approx(np.abs(a).sum(), rel=0.1, abs=1e-6)


def test_one_set_of_fakes_gives_the_gradients_of_two(tiny):
    """Against the plain form: the generator runs anew for each of the two losses."""
    config = tiny(discriminator_norm="none", ema_decay=0.0)
    batch, found = batch_of(16), []
    for plain in (True, False):
        gan, _ = build.gan(config)
        g, d = gan.generator, gan.discriminator
        adams = [build.optimizer(config, 1e-3, m) for m in (g, d)]
        if plain:
            latents = gan.draw_latents(tf.constant([config.seed, 0]), 4)
            losses = [lambda: gan.discriminator_loss(batch, tf.stop_gradient(
                          gan.generate(latents, batch["embeddings"], True)["images"]))[0],
                      lambda: gan.generator_loss(
                          batch, gan.generate(latents, batch["embeddings"], True))[0]]
            for loss, model, adam in zip(losses, (d, g), reversed(adams)):
                variables = [v.value for v in model.trainable_variables]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(variables)
                    value = loss()
                adam.apply(tape.gradient(value, variables), variables)
        else:
            step = train_step.make_train_step(gan, *adams, None, 0.0, config.seed)
            step(batch, tf.constant(0, tf.int64))
        # after one step Adam's first moment is half the gradient, and no rounding is magnified
        found.append([v.numpy() for adam in adams for v in adam._momentums])
    for two, one in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(two).max())
