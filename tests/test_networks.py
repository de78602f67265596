"""Shapes, parameter counts by the paper's tables, and the two forms of the up-sampling block."""

import statistics

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import build, devices, saved_parts, stage1, stage2, upsampling
from stackgan_tf.conditioning_augmentation import ConditioningAugmentation


def parameters(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def zeros(batch=2, **dims):
    return {name: tf.zeros([batch, dim]) for name, dim in dims.items()}


def test_stage1_generator_at_paper_sizes():
    generator = stage1.Stage1Generator()
    output = generator(zeros(noise=100, epsilon=128, embeddings=1024))
    assert output["images"].shape == (2, 64, 64, 3)
    assert parameters(generator) == 10_301_248


def test_stage2_generator_at_paper_sizes():
    generator = stage2.Stage2Generator()
    output = generator({"stage1_images": tf.zeros([1, 64, 64, 3]),
                        **zeros(1, epsilon=128, embeddings=1024)})
    assert output["images"].shape == (1, 256, 256, 3)
    assert parameters(generator) == 26_290_080


def test_stage2_generator_at_coco_sizes():
    generator = stage2.Stage2Generator(width=192, residual_blocks=2)
    generator({"stage1_images": tf.zeros([1, 64, 64, 3]), **zeros(1, epsilon=128,
                                                                   embeddings=1024)})
    assert parameters(generator) == 37_130_480


def test_blocks_that_read_the_condition():
    """Each adds a layer of condition_dim to two numbers a channel; from zero it changes nothing."""
    plain, conditional = (stage1.Stage1Generator(width=8, condition_dim=6, condition_blocks=c)
                          for c in (False, True))
    inputs = {name: tf.random.normal([3, dim], seed=dim)
              for name, dim in {"noise": 5, "epsilon": 6, "embeddings": 9}.items()}
    plain(inputs), conditional(inputs)
    channels = 32 + 16 + 8 + 4
    assert parameters(conditional) - parameters(plain) == (6 + 1) * 2 * channels
    added = [v for v in conditional.variables if "modulate" in v.path]
    same = [v for v in conditional.variables if "modulate" not in v.path]
    for value, given in zip(plain.variables, same, strict=True):
        given.assign(value)
    np.testing.assert_array_equal(plain(inputs)["images"], conditional(inputs)["images"])
    assert len(added) == 8
    for value in added[-2:]:  # of the last block, whose 4 scales and 4 shifts are all at -1:
        value.assign(-tf.ones_like(value) if value.path.endswith("bias") else value)
    # (1 - 1) x - 1 < 0, so its ReLU lets nothing through
    np.testing.assert_array_equal(conditional(inputs)["images"], 0)


def test_bilinear_doubling_is_tensorflows():
    """Doubling, a convolution and `smooth` are tf.image.resize's bilinear doubling and then the
    convolution: away from the border, where one repeats before the convolution and one after."""
    layer = upsampling.UpsampleConv(5)
    x = tf.random.stateless_normal([2, 8, 8, 3], [1, 2])
    y = upsampling.smooth(layer(x))
    enlarged = tf.image.resize(x, [16, 16], "bilinear")
    expected = tf.nn.conv2d(enlarged, layer.kernel.value, 1, "SAME")
    np.testing.assert_allclose(y[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=1e-4, atol=1e-6)


def test_smoothing_takes_alternation_away_and_nothing_from_flat_maps():
    """(1 2 1) / 4 lets cos(w x) through by (1 + cos w) / 2: 1 at w = 0, 0 at w = pi."""
    flat = np.full([1, 6, 6, 2], [3.0, -1.0], np.float32)
    np.testing.assert_allclose(upsampling.smooth(tf.constant(flat)), flat, rtol=1e-6)
    columns = np.float32(np.tile([1.0, -1.0], 3)[None, None, :, None])
    smoothed = upsampling.smooth(tf.constant(flat * columns)).numpy()
    np.testing.assert_allclose(smoothed[:, :, 1:-1], 0, atol=1e-6)


@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
@pytest.mark.parametrize("stage", [1, 2])
def test_upsampling_reaches_every_block(tiny, stage1_path, stage, kind):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    generator = build.gan(tiny(stage, upsampling=kind), below)[0].generator
    assert {layer.bilinear for layer in generator.up} == {kind == "bilinear"}


def test_grain_is_one_map_shifted_by_the_noise():
    """As far as the normal distribution says: 0 by half a side, +-3 by next to nothing."""
    noise = np.float32([[0.0, 0.0, 5.0], [-3.0, 3.0, 0.0], [0.7, -0.3, 1.0]])
    maps = upsampling.grain(tf.constant(noise), 16).numpy()[..., 0]
    cdf = np.vectorize(statistics.NormalDist().cdf)
    for drawn, shift in zip(maps, np.floor(16 * cdf(noise[:, :2])).astype(int), strict=True):
        fixed = np.roll(drawn, shift, (0, 1))
        np.testing.assert_array_equal(fixed, np.roll(maps[0], (8, 8), (0, 1)))
    assert not np.array_equal(maps[0], maps[2])
    np.testing.assert_allclose([maps[0].mean(), maps[0].std()], [0, 1], atol=0.2)
    one, other = upsampling.grain(tf.constant([[0.0], [1.0]]), 16)  # --noise_dim=1
    assert not np.array_equal(one, other)


def test_grain_is_the_same_in_16_bits(tiny):
    """But for rounding: were the noise itself rounded, many maps would be shifted otherwise."""
    noise = tf.random.normal([256, 5], seed=0)
    made = []
    for precision in ("float32", "mixed_bfloat16"):
        config = tiny(noise_injection=True, condition_blocks=False, precision=precision)
        generator = build.gan(config)[0].generator
        block = generator.up[-1]
        block.noise_strength.assign(tf.ones_like(block.noise_strength))
        x = tf.zeros([256, 8, 8, block.conv.kernel.shape[-2]], block.compute_dtype)
        made.append(tf.cast(block(x, noise=noise), tf.float32))
    np.testing.assert_allclose(made[1], made[0], atol=0.02)
    assert np.std(made[0]) > 0.1


@pytest.mark.parametrize("stage", [1, 2])
def test_noise_injection_reaches_every_block_and_begins_at_nothing(tiny, stage1_path, stage):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    plain, grained = (build.gan(tiny(stage, noise_injection=on), below)[0] for on in (False, True))
    strengths = [v for v in grained.generator.variables if "noise_strength" in v.path]
    others = [v for v in grained.generator.variables if "noise_strength" not in v.path]
    assert [v.shape for v in strengths] == [block.conv.kernel.shape[-1:]
                                            for block in plain.generator.up]
    for value, given in zip(plain.generator.variables, others, strict=True):
        given.assign(value)
    latents, embeddings = plain.draw_latents([0, 1], 4), tf.random.normal([4, 8], seed=1)
    without = plain.generate(latents, embeddings)["images"]
    np.testing.assert_array_equal(grained.generate(latents, embeddings)["images"], without)
    for strength in strengths:
        strength.assign(tf.ones_like(strength))
        assert np.abs(grained.generate(latents, embeddings)["images"] - without).max() > 1e-4
        strength.assign(tf.zeros_like(strength))


def _head(channels, width):  # text layer, 1x1 joint with batch norm, 4x4 logit
    return (1024 * 128 + 128) + ((channels + 128) * 8 * width + 2 * 8 * width) + 16 * 8 * width


def test_stage1_discriminator_by_hand():
    df = 64
    trunk = 16 * 3 * df
    for inner, outer in ((df, 2 * df), (2 * df, 4 * df), (4 * df, 8 * df)):
        trunk += 16 * inner * outer + 2 * outer
    discriminator = stage1.Stage1Discriminator()
    logits = discriminator({"images": tf.zeros([2, 64, 64, 3]), **zeros(embeddings=1024)})
    assert logits.shape == (2,)
    assert parameters(discriminator) == trunk + _head(8 * df, df) == 3_225_472


def test_stage2_discriminator_by_hand():
    df = 64
    trunk = 16 * 3 * df
    for i in range(5):  # to 2, 4, 8, 16, 32 Df
        trunk += 16 * (df * 2**i) * (df * 2 ** (i + 1)) + 2 * df * 2 ** (i + 1)
    trunk += 9 * 32 * df * 16 * df + 2 * 16 * df + 9 * 16 * df * 8 * df + 2 * 8 * df
    discriminator = stage2.Stage2Discriminator(unconditional=True)
    discriminator({"images": tf.zeros([1, 256, 256, 3]), **zeros(1, embeddings=1024)})
    assert parameters(discriminator) == trunk + _head(8 * df, df) + 16 * 8 * df
    assert trunk + _head(8 * df, df) == 68_770_688


def test_without_text():
    """No caption anywhere: no augmentation, no text layer, and Stage-II halves only once."""
    generator = stage1.Stage1Generator(16, 4, condition_dim=0)
    assert set(generator(zeros(noise=5))) == {"images"}
    upper = stage2.Stage2Generator(64, 256, 4, condition_dim=0, residual_blocks=1, halvings=1)
    assert upper({"stage1_images": tf.zeros([1, 64, 64, 3])})["images"].shape == (1, 256, 256, 3)
    assert upper.side == 32 and len(upper.up) == 3
    discriminator = stage1.Stage1Discriminator(16, 4, text_dim=0)
    assert discriminator({"images": tf.zeros([2, 16, 16, 3])}).shape == (2,)


@pytest.mark.parametrize("changes, missing", [
    ({"conditioning_augmentation": False}, "epsilon"), ({"embedding_dim": 0}, "epsilon")])
def test_ablations_leave_out_the_latent(tiny, changes, missing):
    gan, _ = build.gan(tiny(1, **changes))
    assert missing not in gan.latent_dims


def test_without_augmentation_there_is_no_kl_on_a_stage1_that_has_it(tiny, stage1_path):
    gan, _ = build.gan(tiny(2, conditioning_augmentation=False), saved_parts.Stage1(stage1_path))
    assert "epsilon" in gan.latent_dims  # the Stage-I below reads it
    batch = {"embeddings": tf.ones([2, 8]), "real_images": tf.zeros([2, 32, 32, 3])}
    _, parts = gan.generator_loss(
        batch, gan.generate(gan.draw_latents([0, 0], 2), batch["embeddings"], True))
    assert "loss/kl" not in parts


def test_moving_average_starts_as_the_generator(tiny):
    gan, average = build.gan(tiny())
    for a, b in zip(gan.generator.variables, average.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_follow_from_the_seed(tiny):
    first, again, other = (build.gan(tiny(seed=seed))[0].generator.variables[0].numpy()
                           for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_upsampling_forms_agree():
    """One transposed convolution against doubling and a 3x3 convolution: values, gradients."""
    layer = upsampling.UpsampleConv(5)
    x = tf.random.stateless_normal([2, 6, 6, 3], [1, 2])
    layer(x)
    kernel = layer.kernel.value
    # a third way: repeat, then the convolution as a sum over its nine taps
    big = np.pad(np.repeat(np.repeat(x.numpy(), 2, 1), 2, 2), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(np.einsum("bhwc,cf->bhwf", big[:, i:i + 12, j:j + 12], kernel.numpy()[i, j])
                   for i in range(3) for j in range(3))
    gradients = []
    for form in (layer.plain, layer.fused):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = form(x, kernel)
            loss = tf.reduce_sum(y**3)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-6)
        gradients.append(tape.gradient(loss, [x, kernel]))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_enlarging_is_bilinear():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    np.testing.assert_allclose(upsampling.enlarge(tf.constant(x), 32),
                               tf.image.resize(x, (32, 32), "bilinear"), atol=1e-6)


def test_adding_to_the_sketch_starts_from_it():
    """With nothing added, it is the sketch at 0.9 of its contrast, enlarged before the tanh."""
    generator = stage2.Stage2Generator(16, 64, 8, 6, residual_blocks=1, add_to_sketch=True)
    sketch = tf.random.uniform([2, 16, 16, 3], -1, 1, seed=0)
    inputs = {"stage1_images": sketch, **zeros(epsilon=6, embeddings=9)}
    generator(inputs)
    generator.to_rgb.kernel.assign(tf.zeros_like(generator.to_rgb.kernel))
    expected = tf.tanh(tf.image.resize(tf.atanh(0.9 * sketch), (64, 64), "bilinear"))
    np.testing.assert_allclose(generator(inputs)["images"], expected, atol=1e-5)


def test_conditioning_augmentation_by_hand():
    layer = ConditioningAugmentation(1)
    layer(tf.zeros([1, 2]))
    layer.dense.set_weights([np.array([[1.0, 0.5], [0.0, 1.0]]), np.array([0.0, -1.0])])
    condition, mean, log_sigma = layer(tf.constant([[2.0, -4.0]]), tf.constant([[3.0]]))
    assert float(mean[0, 0]) == pytest.approx(2.0)  # 2 * 1
    assert float(log_sigma[0, 0]) == pytest.approx(-0.8)  # 0.2 * (2*0.5 - 4 - 1)
    assert float(condition[0, 0]) == pytest.approx(2.0 + 3.0 * np.exp(-0.8), rel=1e-5)
    assert float(layer(tf.constant([[2.0, -4.0]]))[0][0, 0]) == pytest.approx(2.0)
    # of an embedding unlike any other sigma would be e^200, which is no float32
    assert float(layer(tf.constant([[0.0, 201.0]]), tf.constant([[3.0]]))[0][0, 0]) == (
        pytest.approx(3.0 * np.exp(8), rel=1e-5))
    quieter = ConditioningAugmentation(1, log_sigma=-1.5)
    quieter(tf.zeros([1, 2]))
    quieter.dense.set_weights(layer.dense.get_weights())
    _, mean, log_sigma = quieter(tf.constant([[2.0, -4.0]]))
    assert (float(mean[0, 0]), float(log_sigma[0, 0])) == pytest.approx((2.0, -0.8 - 1.5))


@pytest.mark.parametrize("stage", [1, 2])
def test_both_stages_begin_with_the_given_sigma(tiny, stage1_path, stage):
    below = saved_parts.Stage1(stage1_path) if stage == 2 else None
    gan, _ = build.gan(tiny(stage, condition_log_sigma=-1.25), below)
    output = gan.generate(gan.draw_latents([0, 0], 2), tf.zeros([2, 8]))
    np.testing.assert_allclose(output["log_sigma"], -1.25)  # the layer gives 0 for zeros


@pytest.mark.parametrize("flags, expected", [
    ("fpu amx_bf16 amx_tile", "mixed_bfloat16"), ("fpu avx512_bf16", "mixed_bfloat16"),
    ("fpu avx512f", "float32")])
def test_auto_precision_follows_the_cpu(tiny, monkeypatch, flags, expected):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU decides here, not the CPU")
    monkeypatch.setattr(devices, "_cpu_flags", flags.split)
    assert devices.precision(tiny(precision="auto")) == expected
    assert devices.precision(tiny(precision="float32")) == "float32"


def test_mixed_bfloat16_keeps_weights_and_results_in_float32(tiny):
    try:
        gan, _ = build.gan(tiny(precision="mixed_bfloat16"))
        assert {v.dtype for v in gan.generator.variables} == {"float32"}
        latents = gan.draw_latents([0, 0], 2)
        images = gan.generate(latents, tf.ones([2, 8]))["images"]
        assert images.dtype == tf.float32
        logits = gan.discriminator({"images": images, "embeddings": tf.ones([2, 8])})
        assert logits.dtype == tf.float32
    finally:
        build.gan(tiny())  # sets the policy back
