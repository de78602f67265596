"""Generators of the PyTorch code in our networks: the same pictures, complete or not at all.

A model built here after the released one's names and shapes is the oracle for the pictures.
"""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from conftest import command_here
from pytorch_writer import WRITERS, write_legacy, write_zip
from test_reed import write_split

from stackgan_tf import build, checkpoint, import_pytorch, sample, saved_parts
from stackgan_tf.below import find_stage1
from stackgan_tf.conditioning_augmentation import ConditioningAugmentation
from stackgan_tf.config import UserError, resolve
from stackgan_tf.run_folder import Part

SMALL = {"text": 6, "condition": 3, "noise": 5, "width": 8, "blocks": 1}
OTHER = {"text": 10, "condition": 4, "noise": 7, "width": 12, "blocks": 3}


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def shapes(stage, **sizes):
    names = {1: ("text", "condition", "noise", "width"), 2: ("text", "condition", "width",
                                                             "blocks")}[stage]
    layers = import_pytorch.LAYERS[stage](**{name: sizes[name] for name in names})
    return {name: shape for name, (_, shape) in layers.items()}


def weights(stage, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    return {name: (rng.uniform(0.5, 1.5, shape) if name.endswith("running_var")
                   else rng.normal(size=shape)).astype(np.float32)
            for name, shape in shapes(stage, **sizes).items()}


def both(**sizes):
    below = {f"STAGE1_G.{name}": value for name, value in weights(1, 1, **sizes).items()}
    return {**below, **weights(2, 2, **sizes)}


def test_names_and_shapes_of_the_released_models():
    """COCO's: Gf 192, 2 residual blocks, text 1024, condition 128, noise 100."""
    coco = {"text": 1024, "condition": 128, "noise": 100, "width": 192, "blocks": 2}
    one, two = shapes(1, **coco), shapes(2, **coco)
    assert len(one) == 28 and len(two) == 59
    for name, shape in {
            "ca_net.fc.weight": (256, 1024), "ca_net.fc.bias": (256,), "fc.0.weight": (24576, 228),
            "fc.1.running_var": (24576,), "upsample1.1.weight": (768, 1536, 3, 3),
            "upsample3.2.running_mean": (192,), "upsample4.1.weight": (96, 192, 3, 3),
            "upsample4.2.bias": (96,), "img.0.weight": (3, 96, 3, 3)}.items():
        assert one[name] == shape
    for name, shape in {
            "ca_net.fc.weight": (256, 1024), "encoder.0.weight": (192, 3, 3, 3),
            "encoder.2.weight": (384, 192, 4, 4), "encoder.3.bias": (384,),
            "encoder.5.weight": (768, 384, 4, 4), "encoder.6.running_mean": (768,),
            "hr_joint.0.weight": (768, 896, 3, 3), "hr_joint.1.weight": (768,),
            "residual.1.block.3.weight": (768, 768, 3, 3), "residual.0.block.4.bias": (768,),
            "upsample1.1.weight": (384, 768, 3, 3), "upsample4.1.weight": (48, 96, 3, 3),
            "upsample4.2.running_var": (48,), "img.0.weight": (3, 48, 3, 3)}.items():
        assert two[name] == shape
    # with their moving statistics, what our networks of these sizes have (test_networks.py)
    statistics = sum(np.prod(s) for name, s in two.items() if "running" in name)
    assert sum(np.prod(s) for s in two.values()) - statistics == 37_130_480


def test_every_variable_gets_its_value_once():
    frozen = SimpleNamespace(size=64, dim={"noise": 7, "epsilon": 4, "embeddings": 10}.get)
    for stage in (1, 2):
        config = import_pytorch.settings(stage, OTHER, "x", "y", None)
        generator = build.generator_alone(config, frozen if stage == 2 else None).generator
        pairs = list(import_pytorch.placed(generator, config, weights(stage, **OTHER)))
        assert sorted(v.path for v, _ in pairs) == sorted(v.path for v in generator.variables)
        assert all(tuple(variable.shape) == value.shape for variable, value in pairs)


def test_a_stage1_of_any_recipe_makes_it_no_other_network(tmp_path):
    below = Part(str(tmp_path), "birds", "stage1")
    below.open(resolve({"preset": "birds", "recipe": "modern"}))
    config = import_pytorch.settings(2, OTHER, str(tmp_path), "birds", below)
    assert config.recipe == "modern" and not config.add_to_sketch


def torch_model(torch, stage, tensors, blocks=0):
    """forward(picture or noise, embeddings, epsilon) as the released model's names act.

    In double precision: what differs is our rounding alone.
    """
    f = torch.nn.functional
    t = {name: torch.from_numpy(value).double() for name, value in tensors.items()}

    def norm(x, name):
        return f.batch_norm(x, t[f"{name}.running_mean"], t[f"{name}.running_var"],
                            t[f"{name}.weight"], t[f"{name}.bias"], False, 0.1, 1e-5)

    def condition(embeddings, epsilon):
        x = f.relu(f.linear(embeddings, t["ca_net.fc.weight"], t["ca_net.fc.bias"]))
        mean, log_variance = x.chunk(2, 1)
        return mean + torch.exp(0.5 * log_variance) * epsilon

    def conv(x, name, stride=1):
        return f.conv2d(x, t[f"{name}.weight"], stride=stride, padding=1)

    def forward(x, embeddings, epsilon):
        c = condition(embeddings, epsilon)
        if stage == 1:
            x = f.relu(norm(f.linear(torch.cat([x, c], 1), t["fc.0.weight"]), "fc.1"))
            x = x.view(len(x), -1, 4, 4)
        else:
            x = f.relu(conv(x, "encoder.0"))
            x = f.relu(norm(conv(x, "encoder.2", 2), "encoder.3"))
            x = f.relu(norm(conv(x, "encoder.5", 2), "encoder.6"))
            c = c[:, :, None, None].expand(-1, -1, 16, 16)
            x = f.relu(norm(conv(torch.cat([x, c], 1), "hr_joint.0"), "hr_joint.1"))
            for k in range(blocks):
                y = f.relu(norm(conv(x, f"residual.{k}.block.0"), f"residual.{k}.block.1"))
                x = f.relu(x + norm(conv(y, f"residual.{k}.block.3"), f"residual.{k}.block.4"))
        for k in range(1, 5):
            x = f.interpolate(x, scale_factor=2, mode="nearest")
            x = f.relu(norm(conv(x, f"upsample{k}.1"), f"upsample{k}.2"))
        return torch.tanh(conv(x, "img.0"))

    return forward


def lively(tensors):
    """Scales random kernels so that signals keep their size, and pictures use all of [-1, 1]."""
    for name, value in tensors.items():
        if value.ndim > 1:
            value *= np.sqrt(2 / np.prod(value.shape[1:])).astype(np.float32)
        elif name.endswith(".bias") and "ca_net" not in name:
            np.abs(value, out=value)  # else narrow layers may be cut off whole
    return tensors


@pytest.mark.parametrize("sizes, form", [(SMALL, "legacy"), (OTHER, "zip")])
def test_the_pictures_are_those_of_pytorch(sizes, form, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    tensors = lively(both(**sizes))
    path = WRITERS[form](tmp_path / "netG.pth", tensors)
    import_pytorch.import_weights(path, str(tmp_path), "run")
    rng = np.random.default_rng(5)
    inputs = {"noise": rng.normal(size=(3, sizes["noise"])), "embeddings": rng.normal(
        size=(3, sizes["text"])), "epsilon": rng.normal(size=(3, sizes["condition"]))}
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    noise, embeddings, epsilon = (torch.from_numpy(inputs[name]).double()
                                  for name in ("noise", "embeddings", "epsilon"))
    below = {name[9:]: value for name, value in tensors.items() if name.startswith("STAGE1_G.")}
    sketch = torch_model(torch, 1, below)(noise, embeddings, epsilon)
    picture = torch_model(torch, 2, tensors, sizes["blocks"])(sketch, embeddings, epsilon)
    for stage, expected in ((1, sketch), (2, picture)):
        expected = expected.numpy().transpose(0, 2, 3, 1)
        assert 0.2 < expected.std() and np.abs(expected).max() > 0.7  # there is something to see
        saved = saved_parts.SavedPart(Part(str(tmp_path), "run", f"stage{stage}").saved_model, "it")
        ours = saved({name: tf.constant(value) for name, value in inputs.items()})["images"]
        assert ours.shape == expected.shape == (3, 64 * 4**(stage - 1), 64 * 4**(stage - 1), 3)
        difference = np.abs(ours - expected).max()
        print(f"stage {stage}, width {sizes['width']}: {difference:.2g}")
        assert difference < 1e-4


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A checkpoint_dir with the run `one`, a Stage-I, and the files it and a Stage-II come from."""
    root = tmp_path_factory.mktemp("imported")
    write_zip(root / "one.pth", {f"module.{n}": v for n, v in lively(weights(1, **SMALL)).items()})
    extra = {"encoder.3.num_batches_tracked": np.int64(7)}
    write_legacy(root / "two.pth", {**lively(weights(2, **SMALL)), **extra})
    import_pytorch.import_weights(str(root / "one.pth"), str(root), "one")
    np.save(root / "vectors.npy", np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32))
    return root


def tree(path):
    return sorted((str(p.relative_to(path)), p.stat().st_mtime_ns) for p in path.rglob("*"))


def test_an_imported_stage1_draws_and_carries_a_stage2(imported, tmp_path):
    paths = sample.sample(str(imported), "one", count=1, output=str(tmp_path / "out"),
                          embeddings=str(imported / "vectors.npy"))
    assert len(paths) == 3
    with pytest.raises(UserError, match="a sentence cannot be drawn; give vectors"):
        sample.sample(str(imported), "one", ["a red bird"])
    # train --stage=2 takes it over: its condition and embedding sizes, not its ReLU
    part = Part(str(imported), "one", "stage1")
    config = resolve({"stage": 2, "run": "one", "checkpoint_dir": str(imported),
                      "generator_width": 4, "discriminator_width": 2, "residual_blocks": 1,
                      "image_size": 128, "precision": "float32"}, part.read_config())
    assert (config.embedding_dim, config.condition_dim, config.relu_condition) == (6, 3, False)
    source = find_stage1(config, Part(str(imported), "one", "stage2"))
    gan, _ = build.gan(config, saved_parts.Stage1(source))
    made = gan.generate(gan.draw_latents([0, 0], 2), tf.zeros([2, 6]))["images"]
    assert made.shape == (2, 128, 128, 3)


def test_a_stage2_file_goes_on_top_of_it(imported, capsys):
    before = tree(imported / "one" / "stage1")
    import_pytorch.import_weights(str(imported / "two.pth"), str(imported), "one")
    assert "embeddings of 6 numbers" in capsys.readouterr().out
    assert tree(imported / "one" / "stage1") == before
    paths = sample.sample(str(imported), "one", count=1, embeddings=str(imported / "vectors.npy"))
    assert [p[-10:] for p in paths[1:3]] == ["stage1.png", "stage2.png"]
    before = tree(imported / "one")
    for name in ("one.pth", "two.pth"):  # both are there now
        with pytest.raises(UserError, match="is not written over; choose another --to"):
            import_pytorch.import_weights(str(imported / name), str(imported), "one")
    assert tree(imported / "one") == before


def test_training_does_not_write_over_it(imported, tmp_path):
    write_split(tmp_path / "train", pickled=(76,))
    before = tree(imported / "one" / "stage1")
    done = command_here("train", "--stage=1", "--run=one", f"--checkpoint_dir={imported}",
                        f"--data_dir={tmp_path}", "--preset=coco", check=False)
    assert done.returncode == 1 and "no checkpoint to go on from" in done.stderr
    assert tree(imported / "one" / "stage1") == before


def test_command_line(imported):
    done = command_here("import_pytorch", f"--weights={imported}/one.pth", "--to=again",
                        f"--checkpoint_dir={imported}")
    assert "Stage-I (text 6, condition 3, width 8, noise 5)" in done.stdout
    assert "python -m stackgan_tf.sample --run=again --checkpoint_dir=" in done.stdout


def without(tensors, name):
    return {n: value for n, value in tensors.items() if n != name}


ONE_STAGE, TWO_STAGES = weights(1, **SMALL), both(**SMALL)


@pytest.mark.parametrize("tensors, words", [
    (without(ONE_STAGE, "upsample2.2.running_var"), "Stage-I lacks upsample2.2.running_var;"),
    (without(TWO_STAGES, "STAGE1_G.fc.0.weight"), "Stage-I lacks fc.0.weight;"),
    (without(TWO_STAGES, "residual.0.block.4.bias"), "Stage-II lacks residual.0.block.4.bias;"),
    ({**ONE_STAGE, "upsample5.1.weight": np.zeros(3)}, "has the unknown upsample5.1.weight;"),
    (without({**ONE_STAGE, "fc.1.wait": np.zeros(3)}, "fc.1.weight"),
     "lacks fc.1.weight and has the unknown fc.1.wait;"),
    ({**ONE_STAGE, "upsample2.1.weight": np.zeros((16, 32, 3, 4))},
     "upsample2.1.weight has the shape (16, 32, 3, 4); (16, 32, 3, 3) would fit"),
    ({**ONE_STAGE, "ca_net.fc.weight": np.zeros(6)}, "ca_net.fc.weight has the shape (6,); (6, 0)"),
    ({**TWO_STAGES, "STAGE1_G.img.0.weight": np.zeros((1, 4, 3, 3))},
     "img.0.weight has the shape (1, 4, 3, 3); (3, 4, 3, 3) would"),
    ({**ONE_STAGE, "fc.1.bias": np.full(1024, np.nan)}, "fc.1.bias has numbers that are not"),
    ({**ONE_STAGE, "fc.1.running_var": np.full(1024, -1)}, "fc.1.running_var has -1, and no var"),
    ({"encode_img.0.weight": np.zeros((4, 3, 4, 4))}, "it has no ca_net.fc.weight but encode_img"),
    ({**ONE_STAGE, "module.fc.1.bias": np.zeros(1024)}, "has 'fc.1.bias' twice"),
    (weights(2, **SMALL), "is a Stage-II without its Stage-I"),
    ({**TWO_STAGES, **weights(2, **{**SMALL, "text": 9})}, "size of the text, 6 and 9"),
    ({**TWO_STAGES, **weights(2, **{**SMALL, "width": 6})}, "netG.pth: its Stage-II (text 6, "
     "condition 3, width 6, blocks 1) cannot be taken: --generator_width=6 must be a"),
    ({"a": np.zeros(3)}, "is no StackGAN generator"),
])
def test_what_does_not_fit_is_named_and_nothing_is_left(tensors, words, tmp_path, no_torch):
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}
    path = write_zip(tmp_path / "netG.pth", tensors)
    with pytest.raises(UserError) as caught:
        import_pytorch.import_weights(path, str(tmp_path / "runs"), "run")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_weights_that_draw_nothing_are_not_imported(tmp_path, no_torch):
    shape = ONE_STAGE["upsample4.2.weight"].shape  # 1e38 / sqrt(1e-5) is infinite
    tensors = {**ONE_STAGE, "upsample4.2.weight": np.full(shape, 1e38),
               "upsample4.2.running_var": np.zeros(shape)}
    path = write_zip(tmp_path / "netG.pth", {n: v.astype(np.float32) for n, v in tensors.items()})
    with pytest.raises(UserError, match="Stage-I draws no finite picture; .* Nothing was imported"):
        import_pytorch.import_weights(path, str(tmp_path / "runs"), "run")
    assert os.listdir(tmp_path / "runs") == []


def test_a_failure_halfway_leaves_nothing(tmp_path, monkeypatch, no_torch):
    def fail(*_):
        assert list((tmp_path / "runs").iterdir())  # it was begun, beside
        raise UserError("the disk is full")

    path = write_zip(tmp_path / "netG.pth", both(**SMALL))
    monkeypatch.setattr(saved_parts, "Stage1", fail)  # Stage-I is written, Stage-II about to be
    with pytest.raises(UserError, match="the disk is full"):
        import_pytorch.import_weights(path, str(tmp_path / "runs"), "run")
    assert not list((tmp_path / "runs").iterdir())


def test_a_run_made_meanwhile_is_not_written_over(tmp_path, monkeypatch, no_torch):
    path, publish = write_zip(tmp_path / "netG.pth", ONE_STAGE), checkpoint.publish

    def late(temporary, final):
        os.makedirs(final)
        (tmp_path / "runs/run/mine").write_text("kept")
        publish(temporary, final)

    monkeypatch.setattr(checkpoint, "publish", late)
    with pytest.raises(UserError, match="runs/run could not be made: it is there already"):
        import_pytorch.import_weights(path, str(tmp_path / "runs"), "run")
    assert [p.name for p in (tmp_path / "runs").rglob("*")] == ["run", "mine"]


def test_sigterm_leaves_nothing(tmp_path, monkeypatch, no_torch, sigterm):
    path = write_zip(tmp_path / "netG.pth", ONE_STAGE)
    monkeypatch.setattr(checkpoint, "publish", sigterm)  # all is there, beside
    done = command_here("import_pytorch", f"--weights={path}", "--to=run",
                        f"--checkpoint_dir={tmp_path}/runs", check=False)
    assert done.returncode == 143 and not list((tmp_path / "runs").iterdir())


def test_a_stage1_of_another_size_stays_without(tmp_path, stage1_path, no_torch):
    checkpoint.copy_directory(stage1_path, Part(str(tmp_path), "run", "stage1").saved_model)
    path = write_zip(tmp_path / "netG.pth", weights(2, **SMALL))
    with pytest.raises(UserError, match="makes pictures of 16 pixels; .* reads 64"):
        import_pytorch.import_weights(path, str(tmp_path), "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["stage1"]


def test_missing_files_and_bad_names(tmp_path, no_torch):
    with pytest.raises(UserError, match="none.pth cannot be read: No such file"):
        import_pytorch.import_weights(str(tmp_path / "none.pth"), str(tmp_path), "run")
    path = write_zip(tmp_path / "netG.pth", ONE_STAGE)
    with pytest.raises(UserError, match="'../up' is no folder name"):
        import_pytorch.import_weights(path, str(tmp_path), "../up")


def test_relu_condition():
    """ReLU: sigma is never below 1; leaky, the default, goes below."""
    embeddings = tf.random.stateless_normal([64, 8], [0, 1])
    log_sigmas = [ConditioningAugmentation(5, relu)(embeddings)[2].numpy() for relu in (0, 1)]
    assert log_sigmas[0].min() < -0.05 and log_sigmas[1].min() == 0 < log_sigmas[1].max()
    for given in ({"embedding_dim": 0}, {"stage": 2, "text_once": True}):
        with pytest.raises(UserError, match="--relu_condition has no use with --"):
            resolve({**given, "relu_condition": True})
