"""The count of operations, the PyTorch twin and the command of benchmarks/throughput.py."""

import dataclasses
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from benchmarks import flops, op_profile, processes, throughput
from stackgan_tf import build, checkpoint, saved_parts
from stackgan_tf.config import UserError, resolve


def paper(stage, **changes):
    return resolve({"preset": "birds", "stage": stage, "precision": "float32", **changes})


def part(layers, name):
    return sum(layer.forward for layer in layers if layer.name == name)


def test_stage2_generator_by_hand():
    layers = flops.stage2_generator(paper(2))
    # side^2 * kernel^2 * inner * outer multiply-adds, two operations each
    assert part(layers, "residual") == 2 * 8 * 16**2 * 9 * 512 * 512  # 9.7 GFLOP
    assert part(layers, "joint") == 2 * 16**2 * 9 * (512 + 128) * 512  # 1.5
    assert part(layers, "encoder") == 2 * (
        64**2 * 9 * 3 * 128 + 32**2 * 16 * 128 * 256 + 16**2 * 16 * 256 * 512)  # 2.2
    # each doubling has four times the places and a quarter of the products
    assert part(layers, "up") == 4 * 2 * 32**2 * 9 * 512 * 256  # 9.7
    assert flops.forward(layers) == pytest.approx(23.1e9, rel=0.01)


def test_discriminator_by_hand():
    config = paper(2)
    down = 128**2 * 16 * 3 * 64 + 5 * 64**2 * 16 * 64 * 128  # five of equal work
    narrow = 4**2 * 9 * (2048 * 1024 + 1024 * 512)
    assert flops.forward(flops.trunk(config)) == 2 * (down + narrow)  # 6.2 GFLOP
    matching, unconditional = flops.heads(config)
    assert flops.forward(matching) == 2 * (1024 * 128 + 16 * 640 * 512 + 16 * 512)
    assert flops.forward(unconditional) == 2 * 16 * 512


def test_stage1_by_hand():
    config = paper(1)
    up = 4 * 8**2 * 9 * 1024 * 512
    assert flops.inference(config) == 2 * (
        1024 * 256 + 228 * 16 * 1024 + up + 64**2 * 9 * 64 * 3)
    assert flops.forward(flops.trunk(config)) == 2 * (32**2 * 16 * 3 * 64 + 3 * 16**2 * 16 * 64
                                                      * 128)


def test_a_step_counts_each_pass():
    """By passes: two forward and two backward of D on its own, one and a half in G's step."""
    config = paper(2)
    g, d = 23.13, 6.22
    below = 2.44  # Stage-I, forward only
    expected = below + g + 2 * g + 2 * 3 * d + 2 * d
    assert flops.training_step(config) / 1e9 == pytest.approx(expected, rel=0.005)


def test_backward_leaves_out_what_nobody_needs():
    layers = [flops.dense("first", 3, 5, leaf=True), flops.dense("second", 5, 7)]
    assert flops.forward(layers) == 2 * (15 + 35)
    assert flops.backward(layers) == 2 * (15 + 2 * 35)


def tiny(stage, **changes):
    return paper(stage, **{"generator_width": 4, "discriminator_width": 2, "embedding_dim": 8,
                           "noise_dim": 5, "condition_dim": 6, "residual_blocks": 1,
                           "image_size": {1: 64, 2: 128}[stage], **changes})


# keras path -> PyTorch name; what is not in it has the same name
NAMES = ((r"^[^/]*/", ""), (r"stage2_discriminator/", ""), (r"trunk/|^head/(?=text|joint)", ""),
         (r"^head/logit", "logit"), (r"^unconditional_head/logit", "unconditional"),
         (r"_(\d+)/", r"/\1/"), (r"/(kernel|gamma)$", "/weight"), (r"/beta$", "/bias"),
         (r"moving_mean", "running_mean"), (r"moving_variance", "running_var"), (r"/", "."))


def copy_weights(keras_model, module):
    """Puts a Keras model's weights, made uneven, into its twin; every one must find its place."""
    import torch

    rng = np.random.default_rng(0)
    state = {name: value for name, value in module.state_dict().items()
             if not name.endswith("num_batches_tracked")}
    for variable in keras_model.variables:
        value = variable.numpy()
        if re.search("gamma|beta|bias|moving", variable.path):  # or many are 0 or 1
            value = (value + rng.uniform(0, 0.5, value.shape)).astype(np.float32)
            variable.assign(value)
        name = variable.path
        for pattern, text in NAMES:
            name = re.sub(pattern, text, name)
        if name.startswith("fc"):  # Keras: 4x4 places of channels; PyTorch: channels of places
            value = np.moveaxis(value.reshape(*value.shape[:-1], 4, 4, -1), -1, -3)
            value = value.reshape(*variable.shape[:-1], -1)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        target = state.pop(name)
        assert target.shape == value.shape, name
        target.copy_(torch.tensor(value))
    assert not state


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """{stage: (config, our game, the twin)} with equal weights."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine
    from benchmarks import torch_stackgan as twin

    made, below = {}, None
    for stage in (1, 2):
        config = tiny(stage)
        game, _ = build.gan(config, below)
        if stage == 1:
            generator, stage1 = twin.Stage1Generator(config, 64), None
        else:
            generator = twin.Stage2Generator(config)
            stage1 = twin.Stage1Generator(made[1][0])
            stage1.load_state_dict(made[1][2].generator.state_dict())
            stage1.eval()
        discriminator = twin.Discriminator(config)
        copy_weights(game.generator, generator)
        copy_weights(game.discriminator, discriminator)
        made[stage] = config, game, twin.Game(generator, discriminator, stage1)
        if stage == 1:
            path = str(tmp_path_factory.mktemp("twins") / "stage1")
            checkpoint.StageExport(config, game).write(path, game.generator)
            below = saved_parts.Stage1(path)
    return made


def inputs(config, count=3):
    rng = np.random.default_rng(1)
    latents = {"noise": rng.normal(size=(count, config.noise_dim)),
               "epsilon": rng.normal(size=(count, config.condition_dim))}
    batch = {"real_images": rng.uniform(-1, 1, (count, config.image_size, config.image_size, 3)),
             "embeddings": rng.normal(size=(count, config.embedding_dim)),
             "mismatched_embeddings": rng.normal(size=(count, config.embedding_dim))}
    return ({name: value.astype(np.float32) for name, value in given.items()}
            for given in (latents, batch))


def as_torch(values):
    import torch

    return {name: torch.tensor(value.transpose(0, 3, 1, 2) if value.ndim == 4 else value)
            for name, value in values.items()}


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_the_twin_computes_the_same(twins, stage, training):
    import torch

    config, game, twin = twins[stage]
    latents, batch = inputs(config)
    ours = game.generate(latents, batch["embeddings"], training)["images"].numpy()
    twin.generator.train(training), twin.discriminator.train(training)
    with torch.no_grad():
        theirs = twin.generate(as_torch(latents), as_torch(batch)["embeddings"])[0]
        real = as_torch(batch)["real_images"]
        logits = twin.discriminator(real, as_torch(batch)["embeddings"])
    assert ours.std() > 1e-3
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-4)
    features = game.discriminator.features(batch["real_images"], training)
    expected = [game.discriminator.logits(features, batch["embeddings"], training)]
    if stage == 2:
        expected.append(game.discriminator.unconditional_head(features))
    for a, b in zip(expected, logits, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_twin_plays_the_same_game(twins, stage):
    """Both losses, and the gradient of the generator's by its last layer."""
    config, game, twin = twins[stage]
    latents, batch = inputs(config)
    twin.generator.train(), twin.discriminator.train()
    made = twin.generate(as_torch(latents), as_torch(batch)["embeddings"])
    theirs = [twin.discriminator_loss(as_torch(batch), made[0]),
              twin.generator_loss(as_torch(batch), made)]
    kernel = game.generator.to_rgb.kernel.value
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    with tf.GradientTape() as tape:
        output = game.generate(latents, tensors["embeddings"], training=True)
        g_loss = game.generator_loss(tensors, output)[0]
    ours = [game.discriminator_loss(tensors, output["images"])[0], g_loss]
    np.testing.assert_allclose(ours, [loss.item() for loss in theirs], rtol=1e-4)
    theirs[1].backward()
    gradient = twin.generator.to_rgb.weight.grad.numpy().transpose(2, 3, 1, 0)
    assert np.abs(gradient).max() > 1e-6
    np.testing.assert_allclose(tape.gradient(g_loss, kernel), gradient,
                               atol=1e-3 * np.abs(gradient).max())


def test_folded_batch_norm_draws_the_same(twins):
    import copy

    import torch

    from benchmarks.torch_stackgan import ConvNorm

    config, _, game = twins[2]
    latents, batch = (as_torch(values) for values in inputs(config))
    folded = copy.deepcopy(game.generator).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    assert len(folded.state_dict()) < len(game.generator.state_dict())
    sketch = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        a, b = (g(sketch, latents["epsilon"], batch["embeddings"])[0]
                for g in (game.generator.eval(), folded))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_parameters_of_the_twin():
    torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
    from benchmarks import torch_stackgan as twin

    with torch.device("meta"):  # no memory is taken
        made = [twin.Stage1Generator(paper(1)), twin.Discriminator(paper(1)),
                twin.Stage2Generator(paper(2)),
                twin.Discriminator(paper(2, unconditional_head=False))]
    counts = [sum(p.numel() for p in network.parameters()) for network in made]
    assert counts == [10_301_248, 3_225_472, 26_290_080, 68_770_688]


def test_the_twin_learns():
    """A step moves both networks; the average follows; D's gradient stays out of G's step."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install torch")
    from benchmarks import torch_stackgan as twin

    config = tiny(1)
    torch.manual_seed(0)
    networks = [twin.Stage1Generator(config), twin.Stage1Generator(config),
                twin.Discriminator(config)]
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]
    batch = as_torch(list(inputs(config))[1])
    trainer = twin.Trainer(twin.Game(networks[0], networks[2]), networks[1], config, 1e-3)
    gradients = []
    d_step = trainer.d_adam.step
    trainer.d_adam.step = lambda: (d_step(), gradients.append(networks[2].logit.weight.grad))
    losses = trainer.step(batch)
    assert np.isfinite(losses).all()
    for network, old in zip(networks, before):
        assert all((p != q).any() for p, q in zip(network.parameters(), old))
    assert networks[2].logit.weight.grad is gradients[0] and len(gradients) == 1
    # the first step's decay is 1 / 10, as in stackgan_tf/train_step.py
    old, new = before[1][-1], networks[0].to_rgb.weight
    torch.testing.assert_close(networks[1].to_rgb.weight, 0.1 * old + 0.9 * new)


def test_timing_counts_whole_calls():
    called = []
    assert processes.timed(lambda: called.append(0), 0.0)[0] == len(called) == 1
    calls, seconds = processes.timed(lambda: called.append(0), 0.02)
    assert calls == len(called) - 2 and 0.02 <= seconds < 1.0  # the one that warms up is not in


def test_peak_memory_sees_what_was_given_back():
    size = 200 * 2**20
    before = processes.peak_memory(lambda: None, 1)
    assert processes.peak_memory(lambda: np.ones(size, np.uint8).sum(), 1) > before + 0.8 * size


def test_profile_names_what_takes_the_time():
    """Nearly all work is the large product's, which stands beside a small one."""
    a, b = tf.ones([1500, 1500]), tf.ones([8, 8])

    @tf.function
    def products(a, b):
        return tf.matmul(a, a, name="large"), tf.linalg.matmul(b, b, name="small")

    products(a, b)
    rows, passed = op_profile.record(lambda: products(a, b),
                                     lambda: products.get_concrete_function(a, b))
    kind, name, shape, seconds = rows[0]
    assert "MatMul" in kind and name.startswith("large") and shape == "1500x1500"
    assert 0 < seconds < 2 * passed + 0.1
    assert any(row[1].startswith("small") and row[3] < seconds for row in rows)


def test_operations_inside_of_others_count_once():
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    plane = xplane_pb2.XPlane()
    line = plane.lines.add()
    for i, (name, start, length) in enumerate(
            [("outer:Call", 0, 10), ("inner:MatMul", 2, 3), ("Executor::Process", 2, 4),
             ("second:MatMul", 6, 4), ("after:Add", 10, 5)]):
        plane.event_metadata[i].name = name
        line.events.add(metadata_id=i, offset_ps=start * 10**12, duration_ps=length * 10**12)
    found = {name: own for _, name, own in op_profile._operations(plane, line)}
    assert found == {"outer": 3, "inner": 3, "second": 4, "after": 5}


def test_types_add_up():
    rows = [("Conv2D", "a", "", 2.0), ("Add", "b", "", 1.5), ("Conv2D", "c", "", 0.5)]
    assert throughput.by_type(rows) == [("Conv2D", 2.5, 2), ("Add", 1.5, 1)]


class Scripted:
    """A child process that answers with the given rates, one a round."""

    def __init__(self, **rates):
        self.rates = {name: iter(values) for name, values in rates.items()}

    def ask(self, method, name, *_):
        if method == "load_matmul":
            return 10**9
        if method == "run":
            return next(self.rates[name.replace(" ", "_").replace("-", "_")]), 1.0


def values(**changes):
    return types.SimpleNamespace(**{"width": 16, "torch": True, "compile": False, "rounds": 3,
                                    "seconds": 1.0, "memory": False, **changes})


def test_ratios_are_those_of_the_medians_and_of_the_rounds(capsys):
    made = throughput.Comparison(1, "train", ["float32"], [8], values())
    ours = Scripted(float32_8=[10, 30, 20], matmul_float32=[4, 4, 8])
    made.measure({"ours": ours, "matmul": ours, "torch": Scripted(
        float32_8=[8, 1, 1], float32_channels_last_8=[10, 10, 4])})
    made.auto = "float32"
    made.report(8)
    said = capsys.readouterr().out
    # the medians: 20 to 10 and 20 to 1; round by round 10/10, 30/10, 20/4 and 10/8, 30, 20
    assert "ours to 'torch float32 channels-last': 2.00 (1.00 to 5.00)" in said
    assert "auto precision, float32, ours to 'torch float32': 20.00 (1.25 to 30.00)" in said
    assert "matrix product, float32: 4 GFLOP/s (4 to 8)" in said
    work = flops.training_step(throughput.settings(1, "float32", 16)) / 1e9
    line = re.search(r"stackgan_tf float32 +20 \(10 to 30\) +([\d.]+) +(\d+)%", said)
    assert float(line[1]) == pytest.approx(20 * work, abs=0.1)
    assert int(line[2]) == round(100 * 2.5 * work)  # 10/4, 30/4, 20/8


def test_scale_changes_one_thing_at_a_time(monkeypatch, capsys):
    seen = []

    def point(config, batch_size, _):
        seen.append((config.image_size, config.generator_width, batch_size, config.stage))
        if config.image_size == 512:
            raise processes.ChildEnded("no memory")
        return [2.0, 1.0, 4.0], 3 * 10**9

    monkeypatch.setattr(throughput, "scale_point", point)
    throughput.scale(["float32"], [4, 8], values(width=32))
    assert seen == [(256, 32, 4, 2), (256, 32, 8, 2), (64, 32, 4, 1), (128, 32, 4, 2),
                    (512, 32, 4, 2), (256, 8, 4, 2), (256, 16, 4, 2), (256, 48, 4, 2)]
    said = capsys.readouterr().out.splitlines()
    assert said[2].split()[-7:-2] == ["2", "(1", "to", "4)", "4.00"]  # 8 pictures in 2 s
    assert said[5].endswith("none: no memory") and len(said) == 9


def command(*flags):
    return subprocess.run([sys.executable, "-m", "benchmarks.throughput", *flags], cwd=ROOT,
                          capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_command_prints_a_table():
    done = command("--stages=2", "--modes=train", "--precisions=float32", "--batch_sizes=2",
                   "--width=4", "--rounds=1", "--seconds=0.01", "--nomemory")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"stackgan_tf float32 +([\d.e+]+) \(([\d.e+]+) to ", done.stdout)
    assert len(found) == 1 and all(float(rate) > 0 for rate in found[0])
    assert "matrix product, float32" in done.stdout


def test_our_side_draws_with_what_is_exported(tmp_path):
    from benchmarks.tf_side import Side

    side = Side(str(tmp_path))
    side.load("one", dataclasses.asdict(tiny(2)), 2, "inference", throughput.LEARNING_RATE)
    images, seconds = side.run("one", 0.0)
    assert images == 2 and seconds > 0 and side.peak("one", 1) > 10**7
    pictures = side.cases["one"][0]()
    assert pictures.shape == (2, 128, 128, 3) and pictures.std() > 0
    rows, passed = side.profile("one")
    assert passed > 0 and any("Conv2D" in kind for kind, *_ in rows)


@pytest.mark.parametrize("flag, said", [
    ("--stages=3", "--stages=3 is unknown"), ("--batch_sizes=1", "--batch_sizes=1: batch norm"),
    ("--batch_sizes=x", "no whole number"), ("--compile", "--compile is for --torch"),
    ("--width=6", "must be a multiple of 4")])
def test_mistakes_are_told_in_one_line(flag, said):
    done = command(flag)
    assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1


def test_sizes_are_the_papers():
    config = throughput.settings(2, "float32", 128)
    assert (config.discriminator_width, config.residual_blocks, config.embedding_dim,
            config.image_size, config.discriminator_norm, config.r1_weight,
            config.condition_blocks) == (64, 4, 1024, 256, "batch", 0.0, False)
    with pytest.raises(UserError, match="generator_width"):
        throughput.settings(2, "float32", 6)
