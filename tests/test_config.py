"""Flags, presets and the refusal of what cannot work."""

import dataclasses

import pytest
from conftest import command, command_here

from stackgan_tf.config import PRESETS, Config, UserError, _comments, resolve, to_flags


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("stage", [1, 2])
def test_presets_are_valid(preset, stage):
    config = resolve({"preset": preset, "stage": stage})
    assert config.image_size == {1: 64, 2: 256}[stage]
    # the paper's 76/64, but for the flowers that are centered as they are
    expected = {1: 68, 2: 272} if preset == "drawn_flowers" else {1: 76, 2: 304}
    assert config.load_size == expected[stage]
    assert (config.dataset == "reed") == (preset in ("flowers", "birds", "coco"))


def test_every_option_has_its_comment():
    assert set(_comments()) == {field.name for field in dataclasses.fields(Config)}


def test_flag_beats_stage1_beats_preset():
    assert resolve({"stage": 2, "embedding_dim": 5}, {"embedding_dim": 7}).embedding_dim == 5
    assert resolve({"stage": 2}, {"embedding_dim": 7, "batch_size": 99}).embedding_dim == 7
    assert resolve({"stage": 2}, {"batch_size": 99}).batch_size != 99  # each stage has its own
    assert resolve({"epochs": 3.0}).train_steps == 0
    assert resolve({"learning_rate_decay_epochs": 3.0}).learning_rate_decay_steps == 0


@pytest.mark.parametrize("given, words", [
    ({"stage": 3}, ["--stage=3", "1, 2"]),
    ({"preset": "cats"}, ["cats", "flowers"]),
    ({"batch_size": 1}, ["--batch_size=1", "at least 2"]),
    ({"image_size": 100}, ["--image_size=100", "power of two"]),
    ({"stage": 2, "image_size": 16}, ["--image_size=16", "stage 2"]),
    ({"train_steps": 5, "epochs": 2.0}, ["exactly one"]),
    ({"train_steps": -1}, ["--train_steps=-1"]),
    ({"loss": "mse"}, ["--loss=mse", "hinge"]),
    ({"learning_rate": 0.0}, ["--learning_rate=0.0", "above 0"]),
    ({"learning_rate": float("nan")}, ["--learning_rate=nan"]),
    ({"ema_decay": 1.0}, ["--ema_decay=1.0"]),
    ({"kl_weight": 1e308}, ["--kl_weight=1e+308", "0 to 1000000000"]),  # infinite in float32
    ({"r1_every": 2**63}, ["--r1_every=9223372036854775808", "1 to 65536"]),
    ({"run": "../up"}, ["../up"]),
    ({"run": ""}, ["--run=''"]),
    ({"generator_width": 5, "image_size": 128}, ["--generator_width=5", "multiple"]),
    ({"embedding_dim": 0, "text_encoder": "x"}, ["--text_encoder=x", "--embedding_dim=0"]),
    ({"preset": "birds", "r1_weight": 1.0}, ["--r1_weight=1.0", "--discriminator_norm=none"]),
    ({"preset": "birds", "ma_gp_weight": 2.0}, ["--ma_gp_weight=2.0", "--discriminator_norm=none"]),
    ({"recipe": "modern", "precision": "mixed_float16"}, ["--ma_gp_weight=2.0", "mixed_bfloat16"]),
    ({"recipe": "old"}, ["--recipe=old", "preset, paper, modern"]),
    ({"diff_augment": "cutout,zoom"}, ["--diff_augment=cutout,zoom", "color, translation, cutout"]),
    ({"diff_augment": "cutout,cutout"}, ["--diff_augment=cutout,cutout", "at most once"]),
    ({"minibatch_std": 1}, ["--minibatch_std=1", "give 4"]),
    ({"text_in_discriminator": "projection", "embedding_dim": 0}, ["projection has no use with"]),
    ({"epochs": float("inf")}, ["--epochs=inf"]),
    # beyond any training, and beyond what a step counter holds
    ({"epochs": 1e300}, ["--epochs=1e+300", "0 to 1000000"]),
    ({"train_steps": 2**70}, ["--train_steps=1180591620717411303424"]),
    ({"learning_rate_decay_epochs": 1e308}, ["--learning_rate_decay_epochs=1e+308"]),
    ({"learning_rate": 1e30}, ["--learning_rate=1e+30", "0 to 1"]),
    ({"text_once": True}, ["--text_once=True", "--stage=2"]),
    ({"stage1": "x"}, ["--stage1=x", "--stage=2"]),
    ({"embedding_dim": 0, "shuffle_captions": True}, ["--shuffle_captions", "--embedding_dim=0"]),
])
def test_refusals_name_the_value_and_the_remedy(given, words):
    with pytest.raises(UserError) as caught:
        resolve(given)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_stage2_takes_over_what_both_stages_must_share():
    lower = dataclasses.asdict(resolve({"conditioning_augmentation": False, "condition_dim": 9}))
    upper = resolve({"stage": 2}, lower)
    assert not upper.conditioning_augmentation and upper.condition_dim == 9


def test_flagfile_gives_the_same_config(tmp_path):
    config = resolve({"stage": 2, "conditioning_augmentation": False, "seed": 4})
    (tmp_path / "run.flags").write_text("\n".join(to_flags(config)))
    # --stage1 with stage 1 is refused after the file is read: proof that it was read
    done = command_here("train", f"--flagfile={tmp_path}/run.flags", "--stage=1", "--stage1=x",
                        "--image_size=64", check=False)
    assert done.returncode == 1 and "--stage1=x is for --stage=2" in done.stderr


def test_help_lists_the_options_with_their_comments():
    text = command("train", "--help", check=False).stdout
    assert "--[no]conditioning_augmentation" in text and "--batch_size: pictures a step" in text


def test_unknown_flag_and_argument():
    done = command_here("train", "--batchsize=3", check=False)
    assert done.returncode != 0 and "batchsize" in done.stderr and "batch_size" in done.stderr
    done = command_here("train", "stage=1", check=False)
    assert done.returncode == 2 and "'stage=1'" in done.stderr


def test_paths_that_are_no_utf8_are_refused(tmp_path):
    """As of a folder that was unpacked in Latin-1: event files and exports cannot name it."""
    done = command_here("train", "--dataset=folder", "--data_dir=B\udcfccher", check=False)
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == (
        r"error: B\udcfccher of --data_dir is no UTF-8; rename that file or folder, or have the "
        "terminal send UTF-8.")
