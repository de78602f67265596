"""Checkpoints are complete or absent; SavedModels read in C++ and are replaced whole."""

import os
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import build, checkpoint, saved_parts
from stackgan_tf.config import Config, UserError
from stackgan_tf.run_folder import Part


def make(path, value=0.0, keep=3):
    variables = [tf.Variable([value, value], name="a"), tf.Variable(value, name="b")]
    return checkpoint.Checkpoints(str(path), {"part": variables}, keep), variables


def test_save_and_restore(tmp_path):
    first, variables = make(tmp_path, 1.0)
    first.save(5)
    variables[0].assign([2.0, 3.0])
    first.save(10)
    second, restored = make(tmp_path)
    assert second.restore() == 10
    assert restored[0].numpy().tolist() == [2.0, 3.0] and restored[1].numpy() == 1.0


def test_nothing_there_is_step_0(tmp_path):
    assert make(tmp_path / "none")[0].restore() == 0


def test_old_ones_are_removed(tmp_path):
    checkpoints, _ = make(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(step)
    assert checkpoints.steps() == [3, 4] and len(os.listdir(tmp_path)) == 2


def damage_cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def damage_flip(path):
    data = bytearray(open(path, "rb").read())
    data[len(data) // 2] ^= 0x55
    open(path, "wb").write(data)


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, os.remove])
@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001",
                                  "checkpoint.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage, name, caplog):
    checkpoints, variables = make(tmp_path, 1.0)
    checkpoints.save(1)
    variables[1].assign(9.0)
    checkpoints.save(2)
    damage(os.path.join(tmp_path, "step-00000002", name))
    again, restored = make(tmp_path)
    step = again.restore()
    assert step == 1 and restored[1].numpy() == 1.0
    assert "step-00000002" in caplog.text


def test_a_damaged_checkpoint_is_moved_out_of_the_way_of_pruning(tmp_path):
    checkpoints, _ = make(tmp_path, 1.0, keep=1)
    checkpoints.keep = 2
    checkpoints.save(1000), checkpoints.save(2000)
    os.remove(tmp_path / "step-00002000" / "variables.index")
    again, _ = make(tmp_path, keep=1)
    assert again.restore() == 1000
    again.save(1200)
    assert make(tmp_path, keep=1)[0].restore() == 1200
    assert (tmp_path / "step-00002000.bad").is_dir()


def test_a_damaged_one_that_cannot_be_renamed_costs_no_new_one(tmp_path, monkeypatch):
    checkpoints, _ = make(tmp_path, 1.0)
    checkpoints.save(1000), checkpoints.save(2000)
    os.remove(tmp_path / "step-00002000" / "variables.index")
    again, _ = make(tmp_path, keep=1)
    with monkeypatch.context() as patch:
        def refuse(*_, **__):
            raise tf.errors.PermissionDeniedError(None, None, "no")

        patch.setattr(tf.io.gfile, "rename", refuse)
        assert again.restore() == 1000
    again.save(1200), again.save(1400)
    assert again.steps() == [1400, 2000]
    assert make(tmp_path, keep=1)[0].restore() == 1400


@pytest.mark.parametrize("error", [
    tf.errors.PermissionDeniedError(None, None, "a; Permission denied"),
    tf.errors.UnavailableError(None, None, "503"), tf.errors.AbortedError(None, None, "stale"),
    tf.errors.DeadlineExceededError(None, None, "late"),
    tf.errors.ResourceExhaustedError(None, None, "a; Too many open files"),
    tf.errors.UnknownError(None, None, "a; Stale file handle"),
    OSError(24, "Too many open files"), PermissionError(13, "Permission denied")], ids=repr)
def test_what_cannot_be_read_at_present_is_not_damaged(tmp_path, monkeypatch, error):
    checkpoints, _ = make(tmp_path, 1.0)
    checkpoints.save(1), checkpoints.save(2)
    again, _ = make(tmp_path)

    def fail(_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(again._checkpoint, "read", fail)
        with pytest.raises(UserError, match="step-00000002 cannot be read at present .*, which is "
                                            "no damage"):
            again.restore()
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000002"]
    assert again.restore() == 2


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.getuid(), reason="changes the user")
@pytest.mark.parametrize("name", ["checkpoint.json", "variables.index",
                                  "variables.data-00000-of-00001"])
def test_another_user_s_checkpoint_is_not_damaged(name):
    with tempfile.TemporaryDirectory() as path:  # which others can reach, unlike pytest's
        make(path, 1.0)[0].save(1)
        os.chmod(os.path.join(path, "step-00000001", name), 0)
        os.chmod(path, 0o777)
        again, _ = make(path)
        os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(UserError, match="cannot be read at present .*ermission denied"):
                again.restore()
        finally:
            os.setresuid(0, 0, 0)
        assert os.listdir(path) == ["step-00000001"]


def test_damaged_twice_at_the_same_step(tmp_path):
    """What was put aside the first time is in the way the second time."""
    for _ in range(2):
        checkpoints, _ = make(tmp_path, 1.0, keep=3)
        checkpoints.save(1000), checkpoints.save(2000)
        os.remove(tmp_path / "step-00002000" / "variables.index")
        assert make(tmp_path)[0].restore() == 1000
    assert sorted(os.listdir(tmp_path)) == ["step-00001000", "step-00002000.bad"]


def test_only_damaged_ones_are_not_started_over(tmp_path):
    checkpoints, _ = make(tmp_path)
    checkpoints.save(1)
    os.remove(tmp_path / "step-00000001" / "variables.index")
    with pytest.raises(UserError, match="no checkpoint in .* can be read"):
        make(tmp_path)[0].restore()


def test_what_is_not_finite_is_not_saved(tmp_path):
    checkpoints, variables = make(tmp_path, 1.0)
    checkpoints.save(1)
    variables[0].assign([3.0, float("nan")])
    with pytest.raises(UserError, match="^a:0 not finite at step 2.*checkpoint of step 1 is kept"):
        checkpoints.save(2)
    assert os.listdir(tmp_path) == ["step-00000001"]


def test_notes_come_back_with_their_checkpoint(tmp_path):
    checkpoints, _ = make(tmp_path)
    for step in (1, 2):
        checkpoints.save(step, {"skipped": [7, step]})
    again, _ = make(tmp_path)
    assert again.restore() == 2 and again.notes == {"skipped": [7, 2]}
    os.remove(tmp_path / "step-00000002" / "variables.index")
    assert again.restore() == 1 and again.notes == {"skipped": [7, 1]}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux what is synced")
def test_all_is_on_disk_before_the_rename_that_makes_it_count(tmp_path, monkeypatch):
    done, sync, rename = [], os.fsync, tf.io.gfile.rename
    monkeypatch.setattr(os, "fsync", lambda handle: (
        done.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)))
    monkeypatch.setattr(tf.io.gfile, "rename", lambda old, new, **more: (
        done.append(f"rename {old}"), rename(old, new, **more)))
    make(tmp_path / "ckpt")[0].save(1)
    temporary = f"{tmp_path}/ckpt/step-00000001.tmp"
    place = done.index(f"rename {temporary}")
    names = ("checkpoint.json", "variables.index", "variables.data-00000-of-00001")
    assert done[:2] == [str(tmp_path), f"{tmp_path}/ckpt"]  # where ckpt/ and the new one stand
    assert set(done[2:place]) == {temporary, *(f"{temporary}/{name}" for name in names)}
    assert done[place + 1:] == [f"{tmp_path}/ckpt"]  # the rename itself
    done.clear()
    Part(str(tmp_path), "run", "stage1").open(Config())
    path = f"{tmp_path}/run/stage1/config.json.tmp"
    assert done == [str(tmp_path), f"{tmp_path}/run", path, f"rename {path}",
                    f"{tmp_path}/run/stage1"]


def test_what_killed_processes_leave_is_removed(tmp_path):
    make(tmp_path)[0].save(4)
    os.makedirs(tmp_path / "step-00000002.tmp" / "variables_temp")
    make(tmp_path)[0].save(6)
    assert sorted(os.listdir(tmp_path)) == ["step-00000004", "step-00000006"]


def test_another_network_is_refused(tmp_path):
    make(tmp_path)[0].save(1)
    other = checkpoint.Checkpoints(str(tmp_path), {"part": [tf.Variable(0.0, name="c")]})
    with pytest.raises(UserError, match="other variables"):
        other.restore()


def test_what_a_killed_process_leaves_is_no_checkpoint(tmp_path):
    checkpoints, _ = make(tmp_path, 1.0)
    checkpoints.save(1)
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002.tmp")
    again, _ = make(tmp_path)
    assert again.restore() == 1
    again.save(2)
    assert sorted(os.listdir(tmp_path)) == ["step-00000001", "step-00000002"]


def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch):
    checkpoints, _ = make(tmp_path, 1.0)
    checkpoints.save(1)

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(checkpoints._checkpoint, "write", full)
    with pytest.raises(UserError, match="No space left on device.*step 1"):
        checkpoints.save(2)
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert make(tmp_path)[0].restore() == 1


def test_what_cannot_be_tidied_hides_no_message(tmp_path, monkeypatch):
    checkpoints, _ = make(tmp_path, 1.0)
    checkpoints.save(1)

    def fail(error):
        def raised(*_, **__):
            raise error(None, None, "x; the words")
        return raised

    monkeypatch.setattr(tf.io.gfile, "rmtree", fail(tf.errors.PermissionDeniedError))
    monkeypatch.setattr(checkpoints._checkpoint, "write", fail(tf.errors.ResourceExhaustedError))
    with pytest.raises(UserError, match="could not be written: x; the words.*step 1"):
        checkpoints.save(2)
    monkeypatch.setattr(tf.io.gfile, "copy", fail(tf.errors.ResourceExhaustedError))
    with pytest.raises(UserError, match="could not be copied to .*: x; the words"):
        checkpoint.copy_directory(str(tmp_path / "step-00000001"), str(tmp_path / "copy"))


def test_write_errors_of_the_system_are_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(UserError, match="could not be written") as caught:
        make(file / "ckpt")[0].save(1)
    assert "\n" not in str(caught.value)


def test_layers_in_lists_are_all_stored(tmp_path, tiny):
    gan, _ = build.gan(tiny())
    variables = gan.discriminator.variables
    checkpoints = checkpoint.Checkpoints(str(tmp_path), {"d": variables})
    checkpoints.save(1)
    kept = [v.numpy() for v in variables]
    for variable in variables:
        variable.assign(tf.zeros_like(variable) - 1.0)
    checkpoints.restore()
    for variable, value in zip(variables, kept, strict=True):
        np.testing.assert_array_equal(variable, value, variable.path)


def read_in_v1(path, feeds):
    """Through the loader that TF Serving uses, in a graph and session of its own."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = meta.signature_def["serving_default"]
        return session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs[name].name: value for name, value in feeds.items()})


def test_export_reads_in_the_cpp_loader(stage1_path, tmp_path):
    moved = str(tmp_path / "moved")
    shutil.copytree(stage1_path, moved)
    rng = np.random.default_rng(0)
    for rows in (1, 3):
        feeds = {"noise": rng.normal(size=(rows, 5)), "epsilon": rng.normal(size=(rows, 6)),
                 "embeddings": rng.normal(size=(rows, 8))}
        feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
        images = read_in_v1(moved, feeds)["images"]
        np.testing.assert_allclose(images, saved_parts.Stage1(stage1_path)(feeds), atol=1e-5)


def test_export_replaces_whole(tmp_path):
    path = str(tmp_path / "model")
    for factor in (2.0, 3.0):
        spec = [tf.TensorSpec([None], tf.float32, "x")]
        checkpoint.export(path, [], {"serve": (lambda x, f=factor: {"y": f * x}, spec)},
                          step=int(factor))
    loaded = tf.saved_model.load(path)
    assert loaded.signatures["serving_default"](x=tf.constant([2.0]))["y"].numpy() == [6.0]
    assert os.listdir(tmp_path) == ["model"]
    assert checkpoint.exported_step(path) == 3
    assert checkpoint.exported_step(str(tmp_path / "none")) is None


def test_the_second_export_of_a_training_has_its_own_weights(tiny, tmp_path):
    config = tiny()
    gan, _ = build.gan(config)
    written = checkpoint.StageExport(config, gan)
    inputs = {**gan.draw_latents([0, 1], 2), "embeddings": tf.ones([2, config.embedding_dim])}
    for turn in range(2):
        for variable in gan.generator.variables:
            variable.assign(variable * 1.5 + 0.1)
        path = str(tmp_path / str(turn))
        written.write(path, gan.generator)
        np.testing.assert_allclose(saved_parts.Stage1(path)(inputs),
                                   gan.generator(inputs)["images"], atol=1e-5)
