"""The techniques of --recipe=modern, each against an answer from outside, and all together."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, TINY
from test_fast_forms import batch_of, gradients

from stackgan_tf import blocks, build, discriminator_blocks, saved_parts, train
from stackgan_tf.config import PRESETS, resolve
from stackgan_tf.presets import RECIPES
from stackgan_tf.run_folder import Part
from stackgan_tf.stackgan import StackGAN

# What of the recipe TINY's own flags would undo, and what no recipe takes.
MODERN = {"recipe": "modern", "discriminator_norm": "none", "minibatch_std": 2,
          "mode_seeking_weight": 0.05}


# Spectral norm


def kernels(shape, stride=1):
    """A SpectralConv with a random kernel of (height, width, inputs, filters)."""
    layer = blocks.SpectralConv(shape[3], shape[:2], stride, padding="same", use_bias=False)
    layer.build((None, 4, 4, shape[2]))
    rng = np.random.default_rng(0)
    layer.kernel.assign(rng.normal(size=shape))
    layer.u.assign(rng.normal(size=shape[3]))
    return layer


@pytest.mark.parametrize("shape", [(4, 4, 3, 8), (3, 3, 5, 4), (1, 1, 20, 16), (4, 4, 6, 1)])
def test_sigma_is_the_largest_singular_value(shape):
    layer = kernels(shape)
    for _ in range(500):
        layer.power_iteration()
    left, values, right = np.linalg.svd(layer.kernel.numpy().reshape(-1, shape[3]))
    with tf.GradientTape() as tape:
        sigma = layer.sigma()
    assert float(sigma) == pytest.approx(values[0], rel=1e-5)
    gradient = tf.reshape(tape.gradient(sigma, layer.kernel.value), [-1, shape[3]])
    np.testing.assert_allclose(gradient, np.outer(left[:, 0], right[0]), atol=1e-3)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 4, shape[2])), tf.float32)
    expected = tf.nn.conv2d(x, layer.kernel.value / values[0], 1, "SAME")
    np.testing.assert_allclose(layer(x), expected, atol=1e-4)


def test_u_moves_once_a_step_and_by_the_weights_before_it(tiny):
    """However often the discriminator is called in a step; checked by power iteration in NumPy."""
    config = tiny(discriminator_norm="spectral", minibatch_std=2)
    gan, _ = build.gan(config)
    layers = [layer for layer in gan.discriminator._flatten_layers()
              if isinstance(layer, blocks.SpectralConv)]
    assert len(layers) == 4  # 16x16 to 8x8 to 4x4, joint, logit
    assert not any("text" in layer.path for layer in layers)
    expected = []
    for layer in layers:
        matrix = layer.kernel.numpy().reshape(-1, layer.filters)
        u = matrix.T @ (matrix @ layer.u.numpy())
        expected.append(u / np.linalg.norm(u))
    gan.discriminator({"images": tf.zeros([2, 16, 16, 3]), "embeddings": tf.zeros([2, 8])})
    adams = [build.optimizer(config, 1e-3, m) for m in (gan.generator, gan.discriminator)]
    step = train.make_train_step(gan, *adams, None, 0.0, 0)
    step(batch_of(16), tf.constant(0, tf.int64))
    for layer, u in zip(layers, expected, strict=True):
        np.testing.assert_allclose(layer.u, u, atol=1e-5)
    names = {v.path for v in gan.discriminator.variables}
    assert {layer.u.path for layer in layers} <= names  # and so in the checkpoint
    assert not {layer.u.path for layer in layers} & {
        v.path for v in gan.discriminator.trainable_variables}


def test_sigma_of_bfloat16_is_that_of_the_weights(tiny):
    gan, _ = build.gan(tiny(discriminator_norm="spectral", precision="mixed_bfloat16"))
    layer = gan.discriminator.trunk.down[1].conv
    assert layer.u.dtype == "float32" and layer.sigma().dtype == tf.float32
    x = tf.ones([1, 8, 8, layer.kernel.shape[2]])
    expected = tf.nn.conv2d(x, layer.kernel.value / layer.sigma(), 2, "SAME")
    np.testing.assert_allclose(layer(x), expected, atol=0.02 * np.abs(expected).max())
    assert layer(x).dtype == tf.bfloat16


# The matching-aware penalty


class Quadratic(keras.Model):
    """D(x, e) = w (|x|^2 / 2 + x' M e) of pictures of 2x2x3 and embeddings of 5."""

    unconditional_head = None

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(), initializer="ones", name="w")
        self.m = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)

    def features(self, images, training=False):
        return tf.reshape(images, [-1, 12])

    def logits(self, features, embeddings, training=False):
        squares = 0.5 * tf.reduce_sum(features**2, 1)
        return self.w * (squares + tf.reduce_sum((features @ self.m) * embeddings, 1))


@pytest.mark.parametrize("every", [1, 2])
def test_the_penalty_of_a_quadratic_discriminator(every):
    """dD/dx = x + M e, dD/de = M' x; and it grows with the sixth power of w, R1 with the second."""
    d, rng = Quadratic(), np.random.default_rng(1)
    game = StackGAN(None, d, {}, r1_weight=0.3, ma_gp_weight=0.7, r1_every=every)
    x, e, wrong, fakes = (0.3 * rng.normal(size=(4, n)).astype(np.float32) for n in (12, 5, 5, 12))
    batch = {"real_images": x.reshape(4, 2, 2, 3), "embeddings": e, "mismatched_embeddings": wrong}
    batch = {name: tf.constant(rows) for name, rows in batch.items()}
    with tf.GradientTape(persistent=True) as tape:
        loss, parts = game.discriminator_loss(batch, tf.constant(fakes.reshape(4, 2, 2, 3)))
        r1, penalty = parts["loss/r1"], parts["loss/ma_gp"]
        rest = loss - 0.3 * r1 - 0.7 * penalty
    by_x, by_e = ((x + e @ d.m.T)[::every] ** 2).sum(1), ((x @ d.m)[::every] ** 2).sum(1)
    expected = np.mean((by_x + by_e) ** 3)
    assert float(penalty) == pytest.approx(expected, rel=1e-4)
    assert float(r1) == pytest.approx(0.5 * by_x.mean(), rel=1e-4)
    assert float(tape.gradient(penalty, d.w.value)) == pytest.approx(6 * expected, rel=1e-4)
    assert float(tape.gradient(r1, d.w.value)) == pytest.approx(by_x.mean(), rel=1e-4)
    real, fake, mixed = (d.logits(a, b).numpy() for a, b in ((x, e), (fakes, e), (x, wrong)))
    plain = np.mean(np.log1p(np.exp(-real))) + np.mean(np.log1p(np.exp([fake, mixed])))
    assert float(rest) == pytest.approx(plain, rel=1e-4)


def test_the_unconditional_head_is_a_third_fake_and_half_of_the_real():
    """(real + real_u) / 2 + (fake + wrong + fake_u) / 3, of the generator fake + fake_u."""
    d, rng = Quadratic(), np.random.default_rng(1)
    d.unconditional_head = lambda features, training=False: tf.reduce_sum(features, 1)
    x, e, wrong, fakes = (0.3 * rng.normal(size=(4, n)).astype(np.float32) for n in (12, 5, 5, 12))
    batch = {"real_images": x.reshape(4, 2, 2, 3), "embeddings": e, "mismatched_embeddings": wrong}
    batch = {name: tf.constant(rows) for name, rows in batch.items()}
    images = tf.constant(fakes.reshape(4, 2, 2, 3))
    game = StackGAN(None, d, {}, kl_weight=0.0)
    real, fake, mixed = (d.logits(a, b).numpy() for a, b in ((x, e), (fakes, e), (x, wrong)))

    def softplus(*logits):
        return np.mean(np.log1p(np.exp(logits)))

    loss, _ = game.discriminator_loss(batch, images)
    assert float(loss) == pytest.approx(
        softplus(-real, -x.sum(1)) + softplus(fake, mixed, fakes.sum(1)), rel=1e-5)
    loss, _ = game.generator_loss(batch, {
        "images": images, "mean": tf.zeros([4, 3]), "log_sigma": tf.zeros([4, 3])})
    assert float(loss) == pytest.approx(softplus(-fake) + softplus(-fakes.sum(1)), rel=1e-5)


def test_the_penalties_are_the_slopes_by_differences(tiny):
    """On a network of ours: |g|^2 is the sum of squares of D's slopes in orthogonal directions,
    picture and caption as one vector."""
    gan, _ = build.gan(tiny(discriminator_norm="none", ma_gp_weight=1.0, r1_weight=1.0,
                            r1_every=1))
    d, batch = gan.discriminator, {name: rows[:2] for name, rows in batch_of(16).items()}
    _, parts = gan.discriminator_loss(batch, batch["real_images"])
    count = 16 * 16 * 3
    pairs = np.concatenate([tf.reshape(batch["real_images"], [2, -1]), batch["embeddings"]], 1)

    def judge(rows):
        rows = rows.astype(np.float32)
        return d.logits(d.features(rows[:, :count].reshape(-1, 16, 16, 3)), rows[:, count:]).numpy()

    slopes = []
    for pair in pairs:
        steps = 1e-3 * np.eye(len(pair))  # few kinks of leaky ReLU are crossed
        slopes.append((judge(pair + steps) - judge(pair - steps)) / 2e-3)
    squared = np.sum(np.square(slopes), 1)
    assert float(parts["loss/ma_gp"]) == pytest.approx(np.mean(squared**3), rel=0.02)
    of_pictures = np.sum(np.square(slopes)[:, :count], 1)
    assert float(parts["loss/r1"]) == pytest.approx(0.5 * np.mean(of_pictures), rel=0.01)


def test_without_text_the_penalty_is_of_the_picture(tiny):
    gan, _ = build.gan(tiny(discriminator_norm="none", ma_gp_weight=1.0, r1_weight=1.0,
                            embedding_dim=0, r1_every=2))
    images = batch_of(16)["real_images"][:1]  # and there are no others, on a device with one
    _, parts = gan.discriminator_loss({"real_images": images}, images)
    # of one picture: (2 R1)^3
    assert float(parts["loss/ma_gp"]) == pytest.approx((2 * float(parts["loss/r1"])) ** 3, rel=1e-4)


def test_without_a_penalty_the_order_stays(tiny):
    gan, _ = build.gan(tiny(r1_every=2))
    assert gan.r1_every == 1


# What the discriminator sees


class Seen(Quadratic):
    """Keeps the pictures that it is shown."""

    def features(self, images, training=False):
        self.shown = [*getattr(self, "shown", ()), images.numpy()]
        return tf.reduce_sum(tf.reshape(images, [-1, 64, 12]), 1)


@pytest.mark.parametrize("every", [1, 2])
def test_real_and_fake_pictures_are_augmented(every):
    """Each row by numbers of its own; a fake alike in both players' steps."""
    d = Seen()
    game = StackGAN(None, d, {"noise": 3}, "hinge", 0.0, None, 0.1, every, 0.1, ("translation",))
    batch = {name: rows for name, rows in batch_of(16).items()}
    batch["embeddings"] = batch["mismatched_embeddings"] = tf.zeros([4, 5])
    images, latents = batch["real_images"], game.draw_latents(tf.constant([0, 5]), 4)
    game.discriminator_loss(batch, images, latents)
    game.generator_loss(batch, {"images": images}, latents)
    *real, fake, again = d.shown
    np.testing.assert_array_equal(fake, again)
    if every == 2:
        real = [np.stack([real[0], real[1]], 1).reshape(fake.shape)]  # 0 2, then 1 3
    assert len(real) == 1 and not np.array_equal(real[0], fake)
    steps = []
    for kind, start in ((real[0], 0), (fake, 7)):
        for i in range(4):
            down, right = np.floor(latents["augmentation"][i, start + 3:start + 5].numpy() * 5) - 2
            rolled = np.roll(images[i], (int(down), int(right)), (0, 1))
            inner = slice(2, -2)  # what no shift leaves empty
            np.testing.assert_array_equal(kind[i][inner, inner], rolled[inner, inner])
            steps.append((down, right))
    assert len(set(steps)) > 4


def test_numbers_are_a_function_of_the_step_and_leave_the_noise_alone():
    one, other = (StackGAN(None, None, {"noise": 3, "epsilon": 2}, diff_augment=policies)
                  for policies in ((), ("cutout",)))
    drawn = [game.draw_latents(tf.constant([1, 5]), 6) for game in (one, other, other)]
    for name in ("noise", "epsilon"):
        np.testing.assert_array_equal(drawn[0][name], drawn[1][name])
    np.testing.assert_array_equal(drawn[1]["augmentation"], drawn[2]["augmentation"])
    assert drawn[1]["augmentation"].shape == (6, 14) and "augmentation" not in drawn[0]
    later = other.draw_latents(tf.constant([1, 6]), 6)["augmentation"].numpy()
    every = np.concatenate([later, drawn[1]["augmentation"]])
    assert len(np.unique(every)) == every.size


def test_minibatch_std_is_the_numpy_form():
    x = np.random.default_rng(0).normal(size=(6, 4, 4, 5)).astype(np.float32)
    found = discriminator_blocks.append_spread(tf.constant(x), 3).numpy()
    np.testing.assert_array_equal(found[..., :5], x)
    for i in range(6):
        group = [0, 1, 2] if i < 3 else [3, 4, 5]
        np.testing.assert_allclose(found[i, ..., 5], x[group].std(0).mean(), rtol=1e-5)
    same = tf.repeat(tf.constant(x[:1]), 4, 0)
    with tf.GradientTape() as tape:
        tape.watch(same)
        value = tf.reduce_sum(discriminator_blocks.append_spread(same, 4)[..., 5])
    assert np.isfinite(tape.gradient(value, same)).all()


def test_real_and_fake_pictures_are_in_no_group_together(tiny):
    """Other fakes leave the logits of the real pictures as they are, to the bit."""
    gan, _ = build.gan(tiny(discriminator_norm="none", minibatch_std=4))
    batch = batch_of(16)
    found = [gan.discriminator_loss(batch, factor * batch["real_images"])[1] for factor in (0, 0.5)]
    assert float(found[0]["logits/real"]) == float(found[1]["logits/real"])
    assert float(found[0]["logits/fake"]) != float(found[1]["logits/fake"])


@pytest.mark.parametrize("changes", [
    {"discriminator_norm": "none", "r1_weight": 0.5, "r1_every": 2}, {**MODERN, "r1_weight": 0.5}])
def test_the_losses_of_a_batch_are_the_means_of_its_halves(tiny, changes):
    """So two devices compute them: the pictures with a penalty, and the groups, are the same."""
    gan, _ = build.gan(tiny(**changes))
    (one, other), fakes = (batch_of(16) for _ in range(2)), tf.random.uniform([8, 16, 16, 3], -1, 1)
    batch = {name: tf.concat([rows, other[name][::-1] / 2], 0) for name, rows in one.items()}
    latents = gan.draw_latents(tf.constant([0, 5]), 8)

    def losses(rows):
        cut, own = ({name: value[rows] for name, value in of.items()} for of in (batch, latents))
        output = {"images": fakes[rows], "again_images": batch["real_images"][rows][::4]}
        return {**gan.discriminator_loss(cut, fakes[rows], own)[1],
                **gan.generator_loss(cut, output, own)[1]}

    whole, *halves = map(losses, (slice(8), slice(4), slice(4, 8)))
    assert "loss/r1" in whole and "loss/generator" in whole
    for name, value in whole.items():
        first, second = (float(half[name]) for half in halves)
        assert float(value) == pytest.approx((first + second) / 2, rel=1e-4), name
    assert float(halves[0]["loss/r1"]) != pytest.approx(float(halves[1]["loss/r1"]), rel=1e-2)


# How it reads the caption


@pytest.mark.parametrize("norm", ["batch", "none", "spectral"])
def test_projection_is_the_formula(norm):
    """psi(phi(x)) + e' V phi(x) / sqrt(channels), phi the mean over the places."""
    head = discriminator_blocks.MatchingHead(2, 7, norm, projection=True)
    rng = np.random.default_rng(0)
    maps, text = (tf.constant(rng.normal(size=s), tf.float32) for s in ((3, 4, 4, 5), (3, 6)))
    logits = head(maps, text)
    joint = head.joint(maps)
    assert joint.shape == (3, 4, 4, 16)
    projected = text.numpy() @ head.text.kernel.numpy() + head.text.bias.numpy()
    expected = np.ravel(head.logit(joint)) + np.sum(
        projected * joint.numpy().mean((1, 2)), 1) / 4
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_blocks_of_stage2_that_read_the_condition_begin_as_plain_ones(tiny, stage1_path):
    below = saved_parts.Stage1(stage1_path)
    plain, conditional = (build.gan(tiny(2, condition_blocks=c), below)[0] for c in (False, True))
    same = [v for v in conditional.generator.variables if "modulate" not in v.path]
    assert len(conditional.generator.variables) == len(same) + 6
    for value, given in zip(plain.generator.variables, same, strict=True):
        given.assign(value)
    latents = plain.draw_latents([0, 0], 2)
    np.testing.assert_array_equal(*(gan.generate(latents, tf.ones([2, 8]), training=True)["images"]
                                    for gan in (plain, conditional)))


# All together


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_changes_any_preset(preset, stage, recipe):
    plain, config = (resolve({"preset": preset, "stage": stage, **more})
                     for more in ({}, {"recipe": recipe}))
    named = {**RECIPES[recipe][""], **RECIPES[recipe].get(stage, {})}
    if not config.embedding_dim:
        assert config.text_in_discriminator == "concat"
        named.pop("text_in_discriminator")
    for name, value in named.items():
        assert getattr(config, name) == value, name
    for name in ("image_size", "batch_size", "train_steps", "epochs", "dataset", "noise_dim"):
        assert getattr(config, name) == getattr(plain, name), name


def test_a_flag_beats_the_recipe_and_stage2_takes_it_over():
    config = resolve({"recipe": "modern", "loss": "non_saturating", "learning_rate": 3e-4})
    assert (config.loss, config.learning_rate) == ("non_saturating", 3e-4)
    assert config.discriminator_learning_rate == 4e-4 and config.diff_augment
    above = resolve({"stage": 2}, {"recipe": "modern"})
    assert above.add_to_sketch and above.loss == "hinge"
    assert resolve({"stage": 2, "recipe": "paper"}, {"recipe": "modern"}).loss == "non_saturating"


class Straight(train.Trainer):
    """Can go back to a checkpoint of its own."""

    def weights(self):
        return {f"{name}/{i}": v.numpy() for name, part in self.checkpoints._parts.items()
                for i, v in enumerate(part)}

    def again(self, start, end):
        self.checkpoints.read(start)
        batches, step = self._batches(start), start
        while step < end:
            step, _ = self._steps(batches, step)
        return self.weights()


@pytest.mark.parametrize("stage, more", [
    (1, {"discriminator_norm": "spectral"}), pytest.param(2, {}, marks=pytest.mark.slow)])
def test_a_run_goes_on_bit_for_bit(tmp_path, folder, encoder, stage1_path, stage, more):
    config = resolve({**TINY, **MODERN, "stage": stage, "image_size": {1: 16, 2: 32}[stage],
                      "checkpoint_dir": str(tmp_path), "dataset": "folder", "data_dir": folder,
                      "precomputed_embeddings": False, "train_steps": 4, "checkpoint_steps": 2,
                      **more})
    assert config.diff_augment and config.ma_gp_weight and config.loss == "hinge"
    part, text = (Part(str(tmp_path), "default", name) for name in (f"stage{stage}", "text"))
    text.saved_model = encoder
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    trainer = Straight(config, part, text, build.load_batches(config), below)
    assert trainer.run() == 0
    straight = trainer.weights()
    assert all(np.isfinite(value).all() for value in straight.values())
    assert saved_parts.Stage1(part.saved_model).size == config.image_size
    for name, value in trainer.again(2, 4).items():
        np.testing.assert_array_equal(value, straight[name], name)
    assert any(np.any(value != straight[name]) for name, value in trainer.again(2, 3).items())


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_xla_compiles_the_whole_recipe(tiny, stage1_path, stage):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    config = tiny(stage, **MODERN)
    plain, compiled = (gradients(config, below, jit_compile=jit) for jit in (False, True))
    for a, b in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-3 * np.abs(a).max())


@pytest.mark.slow
def test_the_recipe_in_bfloat16_has_float32s_gradients_roughly(tiny):
    exact, rounded = (np.concatenate([np.ravel(g) for g in gradients(tiny(
        **{**MODERN, "discriminator_norm": "spectral", "precision": precision}))])
        for precision in ("float32", "mixed_bfloat16"))
    likeness = exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert likeness > 0.98


TWO_REPLICAS = '''
import json, sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from stackgan_tf import build, train_step
from stackgan_tf.config import resolve
config = resolve(json.loads(sys.argv[1]))
rng, rows, ends = np.random.default_rng(0), config.batch_size, []
images = rng.uniform(-1, 1, (rows, 16, 16, 3)).astype(np.float32)
texts = rng.normal(size=(2, rows, 8)).astype(np.float32)
batch = {"real_images": images, "embeddings": texts[0], "mismatched_embeddings": texts[1]}
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    count = strategy.num_replicas_in_sync
    mine = [{k: tf.constant(v[i * rows // count:(i + 1) * rows // count])
             for k, v in batch.items()} for i in range(count)]
    with strategy.scope():
        gan, average = build.gan(config)
        adams = [build.optimizer(config, 1e-3, m) for m in (gan.generator, gan.discriminator)]
        step = train_step.make_train_step(gan, *adams, average, 0.9, config.seed)
        for i in range(3):
            data = strategy.experimental_distribute_values_from_function(
                lambda context: mine[context.replica_id_in_sync_group]) if count > 1 else mine[0]
            step(data, tf.constant(i, tf.int64))
    locals_ = [[np.ravel(local.numpy()) for local in strategy.experimental_local_results(v.value)]
               for v in gan.discriminator.variables + gan.generator.variables]
    ends.append([np.concatenate([one[i] for one in locals_]) for i in range(count)])
print(json.dumps({"between replicas": float(np.abs(ends[1][0] - ends[1][1]).max()),
                  "to one": float(np.abs(ends[1][0] - ends[0][0]).max())}))
'''


@pytest.mark.slow
def test_two_replicas_agree_with_one_device_and_with_each_other():
    """u included, which each replica moves by itself."""
    config = {**TINY, **MODERN, "discriminator_norm": "spectral", "image_size": 16,
              "batch_size": 8}
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS, json.dumps(config)], text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": ROOT})
    assert not done.returncode, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["between replicas"] == 0.0
    assert found["to one"] < 1e-4, found
