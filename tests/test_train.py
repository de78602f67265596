"""The training command, as its user types it, on tiny networks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import command, command_here, tiny_flags
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_tf import build, checkpoint, devices, saved_parts, settings, train
from stackgan_tf.below import check_text_encoder, prepare_text_encoder
from stackgan_tf.config import Config, UserError, resolve
from stackgan_tf.generate import Generator
from stackgan_tf.logs import Logs
from stackgan_tf.run_folder import Part


@pytest.fixture(scope="module")
def runs(tmp_path_factory, folder, encoder):
    """A run of both stages, six steps each, undisturbed: (checkpoint_dir, flags of a stage)."""
    checkpoints = str(tmp_path_factory.mktemp("checkpoints"))

    def flags(stage, run, **changes):
        return tiny_flags(stage, **{"checkpoint_dir": checkpoints, "run": run, "dataset": "folder",
                                    "data_dir": folder, "text_encoder": encoder, **changes})

    for stage in (1, 2):
        command_here("train", *flags(stage, "straight"))
    return checkpoints, flags


def variables(checkpoints, run, stage, step):
    reader = tf.train.load_checkpoint(
        os.path.join(checkpoints, run, f"stage{stage}", "ckpt", f"step-{step:08d}", "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if "CHECKPOINTABLE" not in name and "save_counter" not in name}


@pytest.mark.parametrize("stage", [1, 2])
def test_six_steps_are_three_and_three_in_a_new_process(runs, stage):
    checkpoints, flags = runs
    run = f"halves{stage}"
    shutil.copytree(os.path.join(checkpoints, "straight"), os.path.join(checkpoints, run))
    shutil.rmtree(os.path.join(checkpoints, run, f"stage{stage}", "ckpt", "step-00000006"))
    done = command("train", *flags(stage, run))
    assert "going on from the checkpoint of step 3" in done.stdout
    straight, halves = (variables(checkpoints, name, stage, 6) for name in ("straight", run))
    assert straight.keys() == halves.keys() and len(straight) > 50
    for name, value in straight.items():
        np.testing.assert_array_equal(value, halves[name], name)
    # Adam's moments, its count of steps, and the moving average are among them
    assert any("generator_optimizer" in name for name in straight)
    assert any("ema_generator" in name for name in straight)
    at_three = variables(checkpoints, run, stage, 3)
    assert any(np.abs(value - straight[name]).max() > 0 for name, value in at_three.items())


def test_many_steps_a_call_are_the_same_steps(runs, make_trainer, no_pictures, tmp_path):
    """A call of six steps; then four and two in a new start, which is the same bit for bit."""
    every = {"steps_per_call": 10, "log_steps": 20, "checkpoint_steps": 20}
    make_trainer(run="calls", **every).run()
    straight, calls = (variables(folder, run, 1, 6) for folder, run in (
        (runs[0], "straight"), (str(tmp_path), "calls")))
    assert straight.keys() == calls.keys() and len(straight) > 50
    for name, value in straight.items():
        np.testing.assert_allclose(calls[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    for steps in (4, 6):
        make_trainer(run="cut", train_steps=steps, **every).run()
    for name, value in variables(str(tmp_path), "cut", 1, 6).items():
        np.testing.assert_array_equal(calls[name], value, name)


def test_what_lands_on_disk(runs):
    checkpoints, _ = runs
    for stage, size in ((1, 16), (2, 32)):
        part = os.path.join(checkpoints, "straight", f"stage{stage}")
        assert json.load(open(os.path.join(part, "config.json")))["stage"] == stage
        assert sorted(os.listdir(os.path.join(part, "ckpt"))) == ["step-00000003", "step-00000006"]
        for step in (3, 6):
            Image.open(os.path.join(part, "samples", f"step-{step:08d}.png")).verify()
        model = saved_parts.Stage1(os.path.join(part, "saved_model"))
        assert set(model.inputs) == {"noise", "epsilon", "embeddings"} and model.size == size
        inputs = {name: tf.zeros([3, model.dim(name)]) for name in model.inputs}
        images = model(inputs).numpy()
        assert images.shape == (3, size, size, 3) and np.abs(images).max() <= 1


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A text encoder of the words' lengths, where `encoder` counts hashed words."""
    def serve(captions):
        words = tf.strings.length(tf.strings.split(captions)).to_tensor(-1)
        return {"embeddings": tf.reduce_sum(tf.one_hot(words, 8), 1)}

    path = str(tmp_path_factory.mktemp("other") / "lengths")
    checkpoint.export(path, [], {"serve": (serve, [tf.TensorSpec([None], tf.string, "captions")])})
    return path


def test_stage2_refuses_another_text_encoder_of_the_same_size(runs, other, monkeypatch):
    checkpoints, flags = runs
    below = os.path.join(checkpoints, "straight", "stage1", "saved_model")
    values = dict(flag[2:].split("=", 1) for flag in flags(2, "swapped"))
    given = {name: type(getattr(Config, name))(value) for name, value in values.items()}
    config = resolve({**given, "stage1": below, "text_encoder": other,
                      "precomputed_embeddings": False})
    monkeypatch.setattr(settings, "from_flags", lambda _: config)
    monkeypatch.setattr(build, "load_batches", None)  # it comes before the data
    with pytest.raises(UserError, match=f"text encoder {other} is not the one that Stage-I {below} "
                                        "was trained with; give that one as --text_encoder"):
        train.main(None)
    assert not os.path.exists(os.path.join(checkpoints, "swapped"))


def test_a_trained_stage1_refuses_another_text_encoder_of_the_same_size(runs, other, monkeypatch):
    checkpoints, flags = runs
    run = os.path.join(checkpoints, "replaced")
    shutil.copytree(os.path.join(checkpoints, "straight"), run)
    text = os.path.join(run, "text_encoder", "saved_model")
    monkeypatch.setattr(build, "load_batches", None)  # it comes before the data
    shutil.rmtree(text)
    none = command_here("train", *flags(1, "replaced", text_encoder=""), check=False)
    shutil.copytree(other, text)
    another = command_here("train", *flags(1, "replaced"), check=False)
    for done, what in ((none, "there"), (another, text)):
        assert done.returncode == 1
        assert f"was trained with is not {what}; put it back as {text}, or" in done.stderr


def test_a_stage1_that_names_no_text_encoder_is_taken_with_a_warning(
        stage1_path, encoder, tiny, tmp_path, capsys):
    config = tiny(2, stage1=stage1_path, text_encoder=encoder, precomputed_embeddings=False)
    check_text_encoder(config, stage1_path, Part(str(tmp_path), "new", "text_encoder"))
    assert f"warning: Stage-I {stage1_path} does not say which" in capsys.readouterr().out


def test_a_stage1_that_reads_captions_is_not_taken_with_a_fresh_text_encoder(
        stage1_path, tiny, tmp_path):
    """As an imported one would be: it names no text encoder, and its run has none."""
    config = tiny(2, precomputed_embeddings=False)
    with pytest.raises(UserError, match=f"Stage-I {stage1_path} reads embeddings of 8 numbers, and "
                       "which text encoder makes them is not known; .* as --text_encoder=PATH"):
        check_text_encoder(config, stage1_path, Part(str(tmp_path), "new", "text_encoder"))


def test_stage2_holds_its_stage1(runs):
    checkpoints, _ = runs
    lower, upper = (tf.saved_model.load(os.path.join(checkpoints, "straight", part, "saved_model"))
                    for part in ("stage1", "stage2"))
    rng = np.random.default_rng(0)
    inputs = {name: tf.constant(rng.normal(size=(2, *spec.shape[1:])), tf.float32) for name, spec in
              lower.signatures["serving_default"].structured_input_signature[1].items()}
    np.testing.assert_allclose(lower.signatures["serving_default"](**inputs)["images"],
                               upper.signatures["stage1"](**inputs)["images"], atol=1e-6)


def test_exported_is_the_moving_average(runs):
    checkpoints, _ = runs
    path = os.path.join(checkpoints, "straight", "stage1")
    loaded = tf.saved_model.load(os.path.join(path, "saved_model"))
    stored = variables(checkpoints, "straight", 1, 6)

    def last_layer(named):  # to three colors; the others have a batch norm folded in
        (value,) = [v for _, v in named if v.ndim == 4 and v.shape[3] == 3]
        return value

    exported = last_layer((v.name, v.numpy()) for v in loaded.variables)
    average, live = (last_layer((name, v) for name, v in stored.items()
                                if name.startswith(part + "/"))
                     for part in ("ema_generator", "generator"))
    np.testing.assert_array_equal(exported, average)
    assert np.abs(exported - live).max() > 1e-5


def test_tensorboard(runs):
    checkpoints, _ = runs
    logs = EventAccumulator(os.path.join(checkpoints, "straight", "stage2", "logs"),
                            size_guidance={"tensors": 0}).Reload()
    tags = set(logs.Tags()["tensors"])
    assert {"loss/discriminator", "loss/generator", "loss/adversarial", "loss/kl", "logits/real",
            "logits/wrong", "logits/fake", "learning_rate", "images_per_second", "samples",
            "samples/captions", "samples/variety", "gradient/generator",
            "gradient/discriminator"} <= tags
    assert [e.step for e in logs.Tensors("loss/kl")] == [2, 3, 4, 6]
    rates = [float(tf.make_ndarray(e.tensor_proto)) for e in logs.Tensors("learning_rate")]
    # 12 pictures, 4 a step: halved every 30 steps (10 epochs), exponentially
    np.testing.assert_allclose(rates, [2e-4 * 0.5 ** (step / 30) for step in (2, 3, 4, 6)],
                               rtol=1e-5)


@pytest.mark.parametrize("stored, used, said", [
    ("mixed_bfloat16", "mixed_bfloat16", True), ("float32", "float32", False),
    ("auto", "auto", False), (None, "float32", False)])
def test_a_run_that_moves_to_another_machine_keeps_its_type(
        tiny, tmp_path, monkeypatch, capsys, stored, used, said):
    monkeypatch.setattr(devices, "precision", lambda config: "float32")  # here
    part = Part(str(tmp_path), "run", "stage1")
    if stored:
        part.open(tiny(precision=stored))
        os.makedirs(os.path.join(part.checkpoints, "step-00000001"))
    assert settings.settle_precision(tiny(precision="auto"), part).precision == used
    assert ("going on in mixed_bfloat16" in capsys.readouterr().out) == said
    explicit = tiny(precision="mixed_float16")
    assert settings.settle_precision(explicit, part) is explicit


def logged(folder, tag):
    """{step: value} of a scalar in the logs below a folder."""
    logs = EventAccumulator(os.path.join(folder, "logs"), size_guidance={"tensors": 0}).Reload()
    return {e.step: float(tf.make_ndarray(e.tensor_proto)) for e in logs.Tensors(tag)}


def test_steps_that_float16_leaves_out_do_not_lower_the_learning_rate(make_trainer):
    trainer = make_trainer(precision="mixed_float16", learning_rate_decay_steps=1,
                           learning_rate_decay=0.5, train_steps=3, log_steps=1, checkpoint_steps=9)
    trainer.generator_adam.dynamic_scale.assign(2.0**126)  # gradients overflow: steps 1 and 2 ...
    adam, scale = trainer.generator_adam, trainer.generator_adam.dynamic_scale
    trainer.train_step = lambda batch, step, real=trainer.train_step: (
        scale.assign(1.0) if step == 2 else None, real(batch, step))[1]  # ... and not step 3
    trainer.run()
    assert int(adam.inner_optimizer.iterations) == 1
    rates = logged(trainer.part.path, "learning_rate")
    assert rates == pytest.approx({1: 2e-4, 2: 2e-4, 3: 1e-4})


def test_a_log_that_cannot_be_written_costs_nothing(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    logs, done = Logs(str(tmp_path / "file" / "logs")), []
    for step in range(3):
        with logs.writing():
            tf.summary.scalar("a", 1.0, step)
        done.append(step)
    assert done == [0, 1, 2]
    said = capsys.readouterr().out
    assert said.count("could not be written") == 1 and said.count("\n") == 1
    os.remove(tmp_path / "file")
    with logs.writing():
        tf.summary.scalar("a", 1.0, 3)
    assert logged(str(tmp_path / "file"), "a") == {3: 1.0}


def test_the_mean_of_the_texts_is_kept_and_an_older_run_gets_it(runs, folder, encoder):
    checkpoints, flags = runs
    with open(os.path.join(folder, "captions.jsonl")) as file:
        captions = [caption for line in file for caption in json.loads(line)["captions"]]
    mean = np.mean(saved_parts.TextEncoder(encoder)(captions).numpy(), 0)
    shutil.copytree(os.path.join(checkpoints, "straight"), os.path.join(checkpoints, "older"))
    for stage in (1, 2):
        saved = os.path.join(checkpoints, "older", f"stage{stage}", "saved_model")
        np.testing.assert_allclose(checkpoint.text_mean(saved), mean, rtol=1e-6)
    saved = os.path.join(checkpoints, "older", "stage1", "saved_model")
    before = Generator(checkpoints, "older", 1)
    os.remove(os.path.join(saved, "assets.extra", "text_mean.json"))
    with pytest.raises(UserError, match="the command that trained it, once more, adds that"):
        Generator(checkpoints, "older", 1).generate(["red"], [0], text_strength=2.0)
    assert "already trained for 6 steps" in command_here("train", *flags(1, "older")).stdout
    np.testing.assert_allclose(checkpoint.text_mean(saved), mean, rtol=1e-6)
    drawn, again = (g.generate(["a red square"] * 9, range(9)) for g in (
        before, Generator(checkpoints, "older", 1)))
    np.testing.assert_array_equal(drawn, again)


def test_training_again_changes_nothing(runs):
    checkpoints, flags = runs
    path = os.path.join(checkpoints, "straight", "stage1", "saved_model", "saved_model.pb")
    before = os.stat(path).st_mtime_ns
    done = command_here("train", *flags(1, "straight"))
    assert "already trained for 6 steps" in done.stdout
    assert os.stat(path).st_mtime_ns == before


def test_a_damaged_savedmodel_is_exported_again_from_the_checkpoint(runs):
    checkpoints, flags = runs
    shutil.copytree(os.path.join(checkpoints, "straight"), os.path.join(checkpoints, "damaged"))
    before = Generator(checkpoints, "straight", 1).generate(["a red square"], [0])
    os.truncate(os.path.join(checkpoints, "damaged/stage1/saved_model/variables/variables.index"),
                0)
    with pytest.raises(UserError, match="cannot be loaded .*--stage=1, .* exports it again"):
        Generator(checkpoints, "damaged", 1)
    assert "already trained for 6 steps" in command_here("train", *flags(1, "damaged")).stdout
    again = Generator(checkpoints, "damaged", 1).generate(["a red square"], [0])
    np.testing.assert_array_equal(again, before)


def test_other_settings_are_listed_and_refused(runs):
    _, flags = runs
    done = command_here("train", *flags(1, "straight", batch_size=5, seed=3), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "--batch_size=5 (was 4)" in line and "--seed=3 (was 0)" in line and "--run" in line


def test_data_may_move_and_other_data_is_no_data_that_moved(runs, folder, tmp_path):
    checkpoints, flags = runs
    moved = str(shutil.copytree(folder, tmp_path / "moved"))
    shutil.copytree(os.path.join(checkpoints, "straight"), os.path.join(checkpoints, "moved"))
    for stage in (1, 2):
        done = command_here("train", *flags(stage, "moved", data_dir=moved))
        assert "already trained for 6 steps" in done.stdout and "warning" not in done.stdout
    manifest = tmp_path / "moved/captions.jsonl"
    manifest.write_text(manifest.read_text().replace("a red square", "a crimson square"))
    done = command_here("train", *flags(1, "straight", data_dir=moved), check=False)
    assert done.returncode == 1 and f"--data_dir={moved} (was {folder})" in done.stderr
    done = command_here("train", *flags(1, "moved", data_dir=moved))  # changed where it was
    assert "warning: the data is not what" in done.stdout and "12 pictures" in done.stdout
    assert "warning" not in command_here("train", *flags(1, "moved", data_dir=moved)).stdout


def test_stage2_takes_over_the_data_of_stage1(runs):
    """Only the run is named: data, encoder and sizes of the captions come from its Stage-I."""
    checkpoints, flags = runs
    own = [flag for flag in flags(2, "straight") if not flag.startswith(
        ("--dataset", "--data_dir", "--text_encoder", "--embedding_dim"))]
    assert "already trained for 6 steps" in command_here("train", *own).stdout


@pytest.mark.parametrize("changes, words", [
    ({"stage": 2}, ["--stage=2 needs a Stage-I", "--stage=1 --run=new", "--stage1=PATH"]),
    ({"stage": 2, "stage1": "/none"}, ["/none", "saved_model.pb"]),
    ({"stage": 1, "batch_size": 13}, ["--batch_size=13", "12 pictures"]),
    ({"stage": 1, "data_dir": "/none"}, ["/none"]),
    ({"stage": 1, "text_encoder": "/none"}, ["/none", "saved_model.pb"]),
    ({"stage": 1, "embedding_dim": 9}, ["--embedding_dim=9", "gives 8"]),
])
def test_refused_before_anything_starts(runs, changes, words):
    _, flags = runs
    changes = dict(changes)
    # the same run for all: what was refused must not bind the next attempt
    done = command_here("train", *flags(changes.pop("stage"), "new", **changes), check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and all(word in line for word in words), line


@pytest.mark.parametrize("changes", [
    {"conditioning_augmentation": False, "text_once": True, "unconditional_head": True},
    {"discriminator_norm": "none", "r1_weight": 0.1, "learning_rate_schedule": "staircase",
     "loss": "hinge", "ema_decay": 0.0, "precision": "mixed_bfloat16", "captions_per_embedding": 2},
])
def test_ablations_train(runs, changes):
    checkpoints, flags = runs
    name, stage = "-".join(changes), 2 if "text_once" in changes else 1
    if stage == 2:
        below = os.path.join(checkpoints, "straight", "stage1", "saved_model")
        changes = {**changes, "stage1": below}
    command_here("train", *flags(stage, name, train_steps=1, **changes))
    model = saved_parts.Stage1(os.path.join(checkpoints, name, f"stage{stage}", "saved_model"))
    inputs = {n: tf.ones([2, model.dim(n)]) for n in model.inputs}
    assert np.isfinite(model(inputs)).all()


def all_for_training(folder, path, captions):
    """A copy of the folder without a test split, its pictures with their captions or without."""
    shutil.copytree(folder, path)
    lines = [json.loads(line) for line in (path / "captions.jsonl").read_text().splitlines()]
    for line in lines:
        line["split"] = "train"
        if not captions:
            del line["captions"]
    (path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


def test_without_text(runs, folder, tmp_path):
    """No captions are asked for."""
    checkpoints, _ = runs
    data = all_for_training(folder, tmp_path / "data", captions=False)
    for stage in (1, 2):
        flags = tiny_flags(stage, checkpoint_dir=checkpoints, run="no_text", dataset="folder",
                           data_dir=data, embedding_dim=0, train_steps=1)
        command_here("train", *flags)
    model = saved_parts.Stage1(os.path.join(checkpoints, "no_text", "stage2", "saved_model"))
    assert set(model.inputs) == {"noise"}
    text = os.path.join(checkpoints, "no_text", "text_encoder")
    assert not os.path.exists(text)
    shutil.copytree(os.path.join(checkpoints, "straight", "text_encoder"), text)  # nor looked at
    assert "already trained for 1 steps" in command_here("train", *flags).stdout


def test_training_may_be_the_only_split(runs, folder, tmp_path):
    _, flags = runs
    data = all_for_training(folder, tmp_path / "data", captions=True)
    command_here("train", *flags(1, "one_split", data_dir=data, train_steps=1))


def test_a_grid_that_cannot_be_written_costs_no_checkpoint(runs):
    checkpoints, flags = runs
    part = os.path.join(checkpoints, "no_grid", "stage1")
    os.makedirs(part)
    open(os.path.join(part, "samples"), "w").close()  # in the way of the folder
    done = command_here("train", *flags(1, "no_grid", train_steps=1))
    assert "warning: " in done.stdout and "could not be written" in done.stdout
    assert os.listdir(os.path.join(part, "ckpt")) == ["step-00000001"]


def test_a_reader_of_the_output_that_goes_costs_no_step(make_trainer, no_pictures, monkeypatch):
    """`train | tee log`: Ctrl-C ends tee as well, and the next line that is printed this."""
    def gone(self, step, values=None):
        if step == 3:
            raise BrokenPipeError

    monkeypatch.setattr("stackgan_tf.progress.Progress.update", gone)
    trainer = make_trainer()
    with pytest.raises(BrokenPipeError):
        trainer.run()
    assert trainer.checkpoints.steps() == [3]


def test_a_closed_terminal_leaves_a_checkpoint(make_trainer, no_pictures, hang_up, monkeypatch):
    def close(self, step, values=None):
        if step == 2:
            for _ in range(2):  # the shell's and the system's
                hang_up()

    monkeypatch.setattr("stackgan_tf.progress.Progress.update", close)
    trainer = make_trainer()
    assert trainer.run() == 128 + signal.SIGHUP
    assert trainer.checkpoints.steps() == [3]


def test_text_encoder_is_trained_first(runs, folder, no_pictures):
    checkpoints, _ = runs
    flags = tiny_flags(1, checkpoint_dir=checkpoints, run="own_text", dataset="folder",
                       data_dir=folder, train_steps=1, precision="auto")
    done = command_here("train", *flags)
    with open(os.path.join(checkpoints, "own_text", "stage1", "config.json")) as file:
        assert json.load(file)["precision"] == devices.precision(Config())  # what auto was
    assert "training it first" in done.stdout
    encoder = saved_parts.TextEncoder(os.path.join(checkpoints, "own_text", "text_encoder",
                                             "saved_model"))
    assert encoder.dim == 8 and np.isfinite(encoder(["a red square", ""])).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_text_encoder_s_process_starts_is_no_traceback(
        tiny, tmp_path, monkeypatch, capfd, hang_up, number):
    def start(_, **options):
        child = subprocess.Popen(  # Python that is busy, as with importing TensorFlow
            [sys.executable, "-uc", "import time; print(); time.sleep(60)"],
            stdout=subprocess.PIPE, **options)
        child.stdout.readline()
        threading.Timer(0.1, os.kill, [os.getpid(), number]).start()
        return child

    monkeypatch.setattr("stackgan_tf.processes.subprocess", types.SimpleNamespace(Popen=start))
    part = Part(str(tmp_path), "run", "text_encoder")
    assert prepare_text_encoder(tiny(precomputed_embeddings=False), part) == 128 + number
    out, err = capfd.readouterr()
    assert "training it first" in out and "Traceback" not in err
