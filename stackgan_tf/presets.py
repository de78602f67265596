"""Named settings, each number with its source: what --preset=NAME gives where no flag does, and
--recipe=NAME in the preset's place."""

# hanzhanggit/StackGAN, stageI/cfg and stageII/cfg; flowers.yml and birds.yml have the same numbers.
_RELEASED = {
    "": {
        "noise_dim": 100,  # Z_DIM
        "embedding_dim": 1024,  # EMBEDDING_TYPE cnn-rnn: the size of those in the pickles
        "condition_dim": 128,  # GAN.EMBEDDING_DIM
        "generator_width": 128,  # GAN.GF_DIM
        "discriminator_width": 64,  # GAN.DF_DIM
        "captions_per_embedding": 4,  # TRAIN.NUM_EMBEDDING
        "kl_weight": 2.0,  # TRAIN.COEFF.KL
        "batch_size": 64,  # TRAIN.BATCH_SIZE
        "epochs": 600.0,  # stage 1: TRAIN.MAX_EPOCH; 2: the 1200 there less PRETRAINED_EPOCH's 600
        "learning_rate": 2e-4,  # TRAIN.GENERATOR_LR and DISCRIMINATOR_LR
        "learning_rate_schedule": "staircase",  # trainer.py halves it ...
        "learning_rate_decay": 0.5,
        "adam_beta1": 0.5,  # trainer.py
        "adam_beta2": 0.999,  # trainer.py: TensorFlow's default
    },
    1: {"learning_rate_decay_epochs": 50.0},  # ... at each stageI TRAIN.LR_DECAY_EPOCH
    2: {"learning_rate_decay_epochs": 100.0,  # ... stageII's (the paper: 100 in both)
        "image_size": 256,  # 304images.pickle, cropped at random
        "residual_blocks": 4,  # stageII/model.py
        "unconditional_head": True},  # not theirs but the PyTorch code's, in its Stage-II
}

# Each preset: settings of both stages under "", then what differs in stage 1 and 2.
PRESETS = {
    # A width that two CPU cores train. The README shows how long it takes and what comes out.
    "drawn_flowers": {
        "": {
            "embedding_dim": 128,
            "condition_dim": 128,
            "noise_dim": 64,
            "text_encoder_network": "char_cnn",  # held-out pairs of words, see docs/results.md
            "text_encoder_width": 128,
            "text_encoder_steps": 2400,
            "text_encoder_batch_size": 64,
            "text_encoder_learning_rate": 3e-3,
            "text_encoder_loss": "contrastive",
            "text_encoder_temperature": 0.05,
            "text_encoder_grayscale": 0.12,  # else color and background tell nearly all pictures
            # At the paper's loudness c's noise hides the caption for longer than this trains (given
            # the true attributes, after 1,000 steps 0.62 of the held-out colors were right; without
            # noise 0.94); without any noise all pictures of a caption are alike.
            "condition_log_sigma": -1.0,
            "kl_weight": 0.05,
            "condition_blocks": True,
            "upsampling": "bilinear",  # no lattice, see docs/results.md
            # The nearest of all but a few classes has the same color: this asks for shapes. With 8
            # colors are learnt sooner.
            "mismatch_candidates": 16,
            "crop_margin": 0.0625,  # the flowers are centered: less for the networks to learn
            # With batch norm D soon told real from fake batches by their statistics alone (its
            # loss fell to 0.1); with R1 in its place petals show after 400 steps.
            "discriminator_norm": "none",
            # Of 0.05, 0.3 and 1 the middle one: the last draws held-out colors at 0.84 instead of
            # 0.90, with the first KID is a third higher than with the last (docs/results.md).
            "r1_weight": 0.3,
            "r1_every": 4,
            "learning_rate": 5e-4,
            "adam_beta1": 0.0,
            "adam_beta2": 0.99,
            "ema_decay": 0.998,
        },
        1: {"generator_width": 32, "discriminator_width": 24, "batch_size": 16,
            "train_steps": 12000, "learning_rate_decay_steps": 5610,
            # Without, the pictures of a caption are nearly one. Short trainings pay for it
            # (docs/results.md).
            "mode_seeking_weight": 0.03},
        2: {"generator_width": 32, "discriminator_width": 12, "batch_size": 8,
            "residual_blocks": 2, "image_size": 256, "train_steps": 12000,
            "learning_rate_decay_steps": 6900, "noise_injection": True,
            # Without noise and with R1 3 it engraved and scribbled (docs/results.md); the two were
            # changed together, and 3 not tried with noise.
            "r1_weight": 0.5,
            # Redrawn freely, 0.027 of the shapes that the sketches had right were lost again.
            "sketch_weight": 20.0},
    },
    # The released settings; the data comes as --data_dir=...
    "flowers": {
        "": {"dataset": "reed", **_RELEASED[""]},
        1: _RELEASED[1],
        2: _RELEASED[2],
    },
    "birds": {
        "": {"dataset": "reed", **_RELEASED[""]},
        1: _RELEASED[1],
        2: _RELEASED[2],
    },
    "coco": {  # hanzhanggit/StackGAN-Pytorch, code/cfg/coco_s1.yml (stage 1) and coco_s2.yml (2)
        "": {
            "dataset": "reed",
            "noise_dim": 100,  # Z_DIM
            "embedding_dim": 1024,  # TEXT.DIMENSION
            "condition_dim": 128,  # GAN.CONDITION_DIM
            "generator_width": 192,  # GAN.GF_DIM
            "discriminator_width": 96,  # GAN.DF_DIM
            "captions_per_embedding": 1,  # miscc/datasets.py draws one
            "kl_weight": 2.0,  # TRAIN.COEFF.KL
            "learning_rate": 2e-4,  # TRAIN.GENERATOR_LR and DISCRIMINATOR_LR
            "learning_rate_schedule": "staircase",  # trainer.py halves it ...
            "learning_rate_decay": 0.5,
            "learning_rate_decay_epochs": 20.0,  # ... at each TRAIN.LR_DECAY_EPOCH, in both stages
            "adam_beta1": 0.5,  # trainer.py
            "adam_beta2": 0.999,  # trainer.py
        },
        1: {"batch_size": 128,  # TRAIN.BATCH_SIZE; there of each GPU
            "epochs": 120.0},  # TRAIN.MAX_EPOCH
        2: {"image_size": 256,  # IMSIZE
            "residual_blocks": 2,  # GAN.R_NUM
            "batch_size": 40,  # TRAIN.BATCH_SIZE; there of each GPU
            "epochs": 100.0,  # TRAIN.MAX_EPOCH (its README: 120)
            "unconditional_head": True},  # model.py, STAGE2_D
    },
    # No text: the two-stage GAN of the DCGAN-tensorflow lineage.
    "unconditional": {
        "": {"embedding_dim": 0, "learning_rate_decay_epochs": 20.0},
        1: {"epochs": 40.0},
        2: {"epochs": 26.0, "image_size": 256},
    },
}

# What --recipe=NAME changes in any preset: how the game is played, not on what nor for how long.
RECIPES = {
    # StackGAN's, on data and sizes of another preset.
    "paper": {
        "": {
            "loss": "non_saturating",
            "discriminator_norm": "batch",
            "r1_weight": 0.0,
            "ma_gp_weight": 0.0,
            "mode_seeking_weight": 0.0,
            "diff_augment": "",
            "minibatch_std": 0,
            "text_in_discriminator": "concat",
            "condition_blocks": False,
            "upsampling": "nearest",
            "noise_injection": False,
            "condition_log_sigma": 0.0,
            "kl_weight": 2.0,  # TRAIN.COEFF.KL
            "mismatch_candidates": 1,
            "learning_rate": 2e-4,  # TRAIN.GENERATOR_LR and DISCRIMINATOR_LR
            "discriminator_learning_rate": 0.0,
            "adam_beta1": 0.5,  # trainer.py
            "adam_beta2": 0.999,  # trainer.py
            "ema_decay": 0.0,
        },
        2: {"add_to_sketch": False, "sketch_weight": 0.0},
    },
    # What was learnt since. DF-GAN (arXiv:2008.05865) and its released code, but where it says so.
    "modern": {
        "": {
            "loss": "hinge",
            "discriminator_norm": "none",
            "r1_weight": 0.0,  # the next one has it in itself
            "ma_gp_weight": 2.0,  # k
            "r1_every": 2,  # theirs: each; half of them cost half
            "diff_augment": "translation,cutout",  # DiffAugment; its color contradicts captions
            "minibatch_std": 4,  # StyleGAN
            "text_in_discriminator": "projection",  # Miyato & Koyama 2018
            "condition_blocks": True,
            "upsampling": "bilinear",  # StyleGAN
            "learning_rate": 1e-4,
            "discriminator_learning_rate": 4e-4,
            "adam_beta1": 0.0,
            "adam_beta2": 0.9,
            "ema_decay": 0.999,
        },
        2: {"add_to_sketch": True, "noise_injection": True},  # the latter after StyleGAN
    },
}
