"""The presets against the numbers that the authors released, and the README against the flags."""

import dataclasses
import re
from pathlib import Path

import pytest
from conftest import ROOT

from stackgan_tf import knobs
from stackgan_tf.config import CHOICES, Config, resolve

# github.com/hanzhanggit/StackGAN, stageI/cfg/ and stageII/cfg/{flowers,birds}.yml, misc/config.py
# (COND_AUGMENTATION); R: four residual_block calls in stageII/model.py; Adam: trainer.py.
TENSORFLOW = {
    1: {"Z_DIM": 100, "BATCH_SIZE": 64, "EPOCHS": 600, "DISCRIMINATOR_LR": 2e-4,
        "GENERATOR_LR": 2e-4, "LR_DECAY_EPOCH": 50, "NUM_EMBEDDING": 4, "KL": 2.0,
        "CONDITION_DIM": 128, "DF_DIM": 64, "GF_DIM": 128, "COND_AUGMENTATION": True,
        "BETA1": 0.5, "BETA2": 0.999, "HALVED": 0.5, "IMSIZE": 64, "TEXT": 1024},
    2: {"Z_DIM": 100, "BATCH_SIZE": 64, "EPOCHS": 1200 - 600, "DISCRIMINATOR_LR": 2e-4,
        "GENERATOR_LR": 2e-4, "LR_DECAY_EPOCH": 100, "NUM_EMBEDDING": 4, "KL": 2.0,
        "CONDITION_DIM": 128, "DF_DIM": 64, "GF_DIM": 128, "COND_AUGMENTATION": True,
        "BETA1": 0.5, "BETA2": 0.999, "HALVED": 0.5, "IMSIZE": 256, "TEXT": 1024, "R_NUM": 4},
}
# github.com/hanzhanggit/StackGAN-Pytorch, code/cfg/coco_s1.yml and coco_s2.yml; one random caption:
# code/miscc/datasets.py; Adam: code/trainer.py; the head without text: code/model.py, STAGE2_D.
PYTORCH = {
    1: {"Z_DIM": 100, "BATCH_SIZE": 128, "EPOCHS": 120, "DISCRIMINATOR_LR": 2e-4,
        "GENERATOR_LR": 2e-4, "LR_DECAY_EPOCH": 20, "NUM_EMBEDDING": 1, "KL": 2.0,
        "CONDITION_DIM": 128, "DF_DIM": 96, "GF_DIM": 192, "BETA1": 0.5, "BETA2": 0.999,
        "HALVED": 0.5, "IMSIZE": 64, "TEXT": 1024},
    2: {"Z_DIM": 100, "BATCH_SIZE": 40, "EPOCHS": 100, "DISCRIMINATOR_LR": 2e-4,
        "GENERATOR_LR": 2e-4, "LR_DECAY_EPOCH": 20, "NUM_EMBEDDING": 1, "KL": 2.0,
        "CONDITION_DIM": 128, "DF_DIM": 96, "GF_DIM": 192, "BETA1": 0.5, "BETA2": 0.999,
        "HALVED": 0.5, "IMSIZE": 256, "TEXT": 1024, "R_NUM": 2, "HEAD": True},
}
OURS = {
    "Z_DIM": "noise_dim", "BATCH_SIZE": "batch_size", "EPOCHS": "epochs",
    "GENERATOR_LR": "learning_rate", "LR_DECAY_EPOCH": "learning_rate_decay_epochs",
    "NUM_EMBEDDING": "captions_per_embedding", "KL": "kl_weight", "CONDITION_DIM": "condition_dim",
    "DF_DIM": "discriminator_width", "GF_DIM": "generator_width", "BETA1": "adam_beta1",
    "BETA2": "adam_beta2", "HALVED": "learning_rate_decay", "IMSIZE": "image_size",
    "COND_AUGMENTATION": "conditioning_augmentation", "TEXT": "embedding_dim",
    "R_NUM": "residual_blocks", "HEAD": "unconditional_head",
}


@pytest.mark.parametrize("preset, released", [("flowers", TENSORFLOW), ("birds", TENSORFLOW),
                                              ("coco", PYTORCH)])
@pytest.mark.parametrize("stage", [1, 2])
def test_preset_is_what_was_released(preset, released, stage):
    config = resolve({"preset": preset, "stage": stage, "data_dir": "x"})
    for name, value in released[stage].items():
        if name == "DISCRIMINATOR_LR":
            ours = config.discriminator_learning_rate or config.learning_rate
        else:
            ours = getattr(config, OURS[name])
        assert ours == value, name
    # trainer.py of both: halved at once, after every so many epochs
    assert config.learning_rate_schedule == "staircase" and config.train_steps == 0
    assert config.learning_rate_decay_steps == 0 and config.crop_margin == 76 / 64 - 1
    assert config.discriminator_norm == "batch" and config.loss == "non_saturating"


def readme():
    return (Path(ROOT) / "README.md").read_text(encoding="utf-8")


def test_every_flag_in_the_readme_exists():
    known = {"flagfile", "help", "logdir"}  # absl's own, TensorBoard's and TensorFlow Serving's
    known |= {"enable_batching", "batching_parameters_file", *knobs.NAMES}
    for field in dataclasses.fields(Config):
        known |= {field.name, f"no{field.name}"} if field.type is bool else {field.name}
    for path in (p for folder in ("stackgan_tf", "benchmarks")
                 for p in (Path(ROOT) / folder).rglob("*.py")):
        known |= set(re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", path.read_text()))
    named = set(re.findall(r"(?<![\w-])--([a-z]\w*)", readme()))
    assert len(named) > 20
    assert not named - known


def test_values_of_choices_in_the_readme_exist():
    for name, value in re.findall(r"--(\w+)=(\w+)", readme()):
        if name in CHOICES and name != "stage":
            assert value in CHOICES[name], f"--{name}={value}"


def test_every_name_of_the_other_codes_is_in_the_table():
    text = readme().split("## Coming from another StackGAN")[1].split("\n## ")[0]
    names = set(re.findall(r"`([\w.]+)`", text))
    assert names >= {  # every key of the released .yml files and every flag of the Oxford-102 port
        "DATASET_NAME", "EMBEDDING_TYPE", "CONFIG_NAME", "GPU_ID", "Z_DIM", "TRAIN.FLAG",
        "TRAIN.PRETRAINED_MODEL", "TRAIN.PRETRAINED_EPOCH", "TRAIN.BATCH_SIZE", "TRAIN.NUM_COPY",
        "TRAIN.MAX_EPOCH", "TRAIN.SNAPSHOT_INTERVAL", "TRAIN.DISCRIMINATOR_LR",
        "TRAIN.GENERATOR_LR", "TRAIN.LR_DECAY_EPOCH", "TRAIN.NUM_EMBEDDING", "TRAIN.COEFF.KL",
        "TRAIN.COND_AUGMENTATION", "TRAIN.B_WRONG", "TRAIN.FINETUNE_LR", "GAN.EMBEDDING_DIM",
        "GAN.DF_DIM", "GAN.GF_DIM", "GAN.NETWORK_TYPE", "TEXT.DIMENSION", "GAN.CONDITION_DIM",
        "GAN.R_NUM", "STAGE", "NET_G", "NET_D", "STAGE1_G", "DATA_DIR", "IMSIZE", "WORKERS",
        "VIS_COUNT", "CUDA", "manualSeed", "image_size1", "image_size2", "z_dim", "embed_dim",
        "D1_dim", "G2_dim", "data_dir", "image_dir", "epochs1", "epochs2", "batch_size", "lrG1",
        "lrG2", "lrD1", "lrD2", "beta1", "beta2"}
