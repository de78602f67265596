"""A run's folder: what cannot be written is said at the start, what was begun is gone on with."""

import dataclasses
import json
import os
import shutil
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import (
    attribute_judge,
    build,
    checkpoint,
    import_pytorch,
    run_folder,
    settings,
    train,
    train_text_encoder,
)
from stackgan_tf.config import REPLACED, Config, UserError
from stackgan_tf.generate import Generator
from stackgan_tf.run_folder import Part, refuse_unwritable


@pytest.fixture
def public():
    """A folder that every user can reach, unlike tmp_path."""
    path = tempfile.mkdtemp()
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("sign", ["[", pytest.param("\\", marks=pytest.mark.skipif(
    os.name == "nt", reason="it parts folders here"))])
def test_a_folder_that_tensorflow_cannot_read_from_is_refused(runs, tmp_path, sign, monkeypatch):
    """Its readers take the path for a pattern; its writers do not."""
    place = tmp_path / f"a{sign}1]"
    with pytest.raises(UserError, match="TensorFlow cannot read models from a path with"):
        refuse_unwritable(str(place / "run"))
    refuse_unwritable(str(place / "pictures"), "--output", models=False)
    shutil.copytree(os.path.join(runs, "silent"), place / "silent")
    with pytest.raises(UserError, match="or give the path from within it"):
        Generator(str(place), "silent")
    monkeypatch.chdir(place)
    refuse_unwritable("run")
    assert Generator(".", "silent").generate(None, [0]).shape == (1, 16, 16, 3)


def test_what_may_not_be_read_is_not_called_missing_or_damaged(runs, tiny, tmp_path, monkeypatch):
    part = Part(str(tmp_path), "r", "stage1")
    part.open(tiny())
    part.write_trained_on(np.array([1], np.uint64))
    forbidden = tf.errors.PermissionDeniedError(None, None, f"{part.path}; Permission denied")

    def refuse(*_):
        raise forbidden

    with monkeypatch.context() as patch:
        patch.setattr(tf.io.gfile.GFile, "read", refuse)
        for read in (part.read_config, part.read_trained_on):
            with pytest.raises(UserError, match="Permission denied.; see to the permissions"):
                read()
    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "load", refuse)
        with pytest.raises(UserError, match="Permission denied.*; see to the permissions"):
            Generator(runs, "silent")
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("stage1"))
    with pytest.raises(UserError, match="stage1 cannot be read .Permission denied"):
        run_folder.find_run(runs, "silent")


def test_a_link_in_the_place_of_a_savedmodel_is_replaced(tmp_path):
    """The link goes, and what it led to stays."""
    for number in range(3):
        made = tmp_path / "made"
        (made / "inner").mkdir(parents=True)
        (made / "number").write_text(str(number))
        checkpoint.replace_directory(str(made), str(tmp_path / "model"))
        assert (tmp_path / "model/number").read_text() == str(number)
        assert not os.path.lexists(tmp_path / f"model{REPLACED}")
        if not number:
            (tmp_path / "model").rename(tmp_path / "elsewhere")
            (tmp_path / "model").symlink_to(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere/number").read_text() == "0"


@pytest.mark.skipif(not hasattr(os, "setreuid"), reason="no users here")
def test_a_read_only_folder_is_refused(public):
    below = os.path.join(public, "run", "stage1")
    refuse_unwritable(below)
    os.chmod(public, 0o555)
    root = os.getuid() == 0
    if root:  # who may write anywhere; os.access asks for the real user
        os.setreuid(65534, 0)
    try:
        with pytest.raises(UserError, match=f"{public} is read-only.*another --checkpoint_dir"):
            refuse_unwritable(below)
        with pytest.raises(UserError, match=f"{public} is read-only.*copy the run to a place"):
            refuse_unwritable(public)  # another folder has nothing to score, or to go on from
    finally:
        if root:
            os.setreuid(0, 0)
    assert os.listdir(public) == []


COMMANDS = {
    "train": lambda path, config, patch: (
        patch.setattr(settings, "from_flags", lambda _: config), train.main(None)),
    "train_text_encoder": lambda path, config, patch: train_text_encoder.train(config),
    "import_pytorch": lambda path, config, patch: import_pytorch.import_weights(
        "none.pth", path, "new"),
    "evaluate": lambda path, config, patch: attribute_judge.Judge(path, "/none"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_the_way_is_said_before_anything_is_read(name, tiny, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("kept")
    monkeypatch.setattr(build, "load_examples", None)  # the pictures of all these commands
    config = tiny(checkpoint_dir=str(path), dataset="folder", data_dir="/none")
    with pytest.raises(UserError, match=f"{path} is no folder; choose another --checkpoint_dir"):
        COMMANDS[name](str(path), config, monkeypatch)
    assert path.read_text() == "kept"


@pytest.mark.parametrize("error, refused", [(BlockingIOError(), True), (OSError(37, "no"), False)])
def test_a_file_system_without_locks_is_gone_on_with(tmp_path, monkeypatch, error, refused):
    def flock(*_):
        raise error

    monkeypatch.setattr(run_folder.fcntl, "flock", flock)
    if refused:
        with pytest.raises(UserError, match="^taken$"):
            run_folder.lock(str(tmp_path / "lock"), "taken")
    else:
        run_folder.lock(str(tmp_path / "lock"), "taken").close()


def test_what_a_killed_process_left_is_put_away(tiny, tmp_path):
    part = Part(str(tmp_path), "run", "stage1")
    for name in ("saved_model.being-replaced", "saved_model.tmp", "stage1",
                 "stage1.being-replaced", "saved_model.old", "samples",
                 "ckpt/step-00000003", "ckpt/step-00000003.being-replaced",
                 "ckpt/step-00000006.being-replaced"):
        os.makedirs(os.path.join(part.path, name))
    for name in ("saved_model.being-replaced/kept", "stage1/kept", "samples/step-1.png",
                 "samples/step-2.png.tmp"):
        open(os.path.join(part.path, name), "w").close()
    with open(part.settings, "w") as file:
        json.dump(dataclasses.asdict(tiny()), file)
    part.open(tiny())
    left = {name for _, folders, files in os.walk(part.path) for name in folders + files}
    assert left == {"saved_model", "saved_model.old", "stage1", "kept", "samples", "step-1.png",
                    "config.json", "lock",  # .old is the user's own
                    "ckpt", "step-00000003", "step-00000006"}  # which was being replaced
    assert os.listdir(part.saved_model) == ["kept"]  # it was being replaced: there was no other


def test_leftovers_that_are_another_user_s_stop_nobody(tiny, tmp_path, monkeypatch):
    part = Part(str(tmp_path), "run", "stage1")
    os.makedirs(part.saved_model + ".tmp")

    def refuse(path):
        raise tf.errors.PermissionDeniedError(None, None, f"{path}; Permission denied")

    monkeypatch.setattr(tf.io.gfile, "rmtree", refuse)
    part.open(tiny())
    assert os.path.exists(part.settings)


def test_the_settings_of_an_older_version_are_a_config(tiny, tmp_path):
    """It knew fewer fields, and one that is gone."""
    part, written = Part(str(tmp_path), "run", "stage1"), tiny(crop_margin=0.25, image_size=32)
    assert part.config() is None
    os.makedirs(part.path)
    kept = {name: value for name, value in dataclasses.asdict(written).items() if name in (
        "stage", "crop_margin", "image_size", "generator_width")}
    with open(part.settings, "w") as file:
        json.dump({**kept, "forgotten": 3}, file)
    assert part.config() == Config(**kept) and part.config("crop_margin") == part.config()
    assert part.config("crop_margin", "dataset") is None
    part.open(written)
    assert part.config("dataset") == written


def test_an_option_that_an_older_version_did_not_know_was_off(tiny, tmp_path):
    """A run that was begun before --sketch_weight is not gone on with by another loss."""
    part, config = Part(str(tmp_path), "run", "stage2"), tiny(2, sketch_weight=0.0)
    os.makedirs(os.path.join(part.checkpoints, "step-1"))
    kept = dataclasses.asdict(config)
    del kept["sketch_weight"], kept["recipe"]
    with open(part.settings, "w") as file:
        json.dump(kept, file)
    assert part.check(config) == kept
    with pytest.raises(UserError, match=r"--sketch_weight=20.0 \(was 0.0\); repeat those"):
        part.check(dataclasses.replace(config, sketch_weight=20.0))


def test_another_spelling_of_a_path_is_no_other_setting(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    part, config = Part(str(tmp_path), "run", "stage1"), tiny(text_encoder="te", data_dir="here/")
    os.makedirs(os.path.join(part.checkpoints, "step-00000003"))
    os.symlink("te", "link")
    with open(part.settings, "w") as file:
        json.dump(dataclasses.asdict(config), file)
    for same in ("te", "./te", str(tmp_path / "te"), "link"):
        part.check(dataclasses.replace(config, text_encoder=same, data_dir=str(tmp_path / "here")))
    for other in ("te2", "", "gs://te"):
        with pytest.raises(UserError, match=rf"--text_encoder={other} \(was te\)"):
            part.check(dataclasses.replace(config, text_encoder=other))


OLD = "12 pictures, captions and classes 01234567"  # as versions before wrote it


@pytest.mark.parametrize("noted, now, moves, warns", [
    (OLD, OLD, True, False), (OLD, OLD + ", names 1, pixels at 76 2", True, False),
    (OLD + ", names 1, pixels at 76 2", OLD, True, False),
    (OLD + ", names 1, pixels at 76 2", OLD + ", names 1, pixels at 304 5", True, False),
    (OLD + ", names 1, pixels at 76 2", OLD + ", names 1, pixels at 76 3", True, True),
    (OLD + ", names 1", OLD + ", names 2", False, True),
    (OLD, OLD[:-1] + "8, names 2", False, True), (OLD, "13" + OLD[2:] + ", names 1", False, True),
    ("40 captions, prepared.json 1234", "40 captions, prepared.json 5678", False, True),
    (OLD, None, True, False), (None, OLD, False, False), (7, OLD, False, True)])
def test_data_is_compared_in_what_both_notes_tell(tiny, tmp_path, capsys, noted, now, moves, warns):
    part, config = Part(str(tmp_path), "run", "stage1"), tiny(data_dir="here")
    os.makedirs(os.path.join(part.checkpoints, "step-00000003"))
    with open(part.settings, "w") as file:
        json.dump({**dataclasses.asdict(config), **({"data": noted} if noted else {})}, file)
    part.check(config, data=now)
    assert ("warning: the data is not what" in capsys.readouterr().out) == warns
    elsewhere = dataclasses.replace(config, data_dir="there")
    if moves:
        part.check(elsewhere, data=now)
    else:
        with pytest.raises(UserError, match=r"--data_dir=there \(was here\)") as caught:
            part.check(elsewhere, data=now)
        assert ("made with other data" in str(caught.value)) == bool(noted)


@pytest.mark.parametrize("name", ["step-00000003.tmp", "step-00000003.bad", "notes"])
def test_what_is_no_complete_checkpoint_is_not_gone_on_from(tiny, tmp_path, name):
    part = Part(str(tmp_path), "run", "stage1")
    part.open(tiny())
    os.makedirs(os.path.join(part.checkpoints, name))
    part.check(tiny(seed=5))  # killed before its first one: it binds nobody
    os.makedirs(part.saved_model)
    open(os.path.join(part.saved_model, "saved_model.pb"), "w").close()
    with pytest.raises(UserError, match="no checkpoint to go on from"):
        part.refuse_without_checkpoint()
    os.makedirs(os.path.join(part.checkpoints, "step-00000003"))
    part.refuse_without_checkpoint()
