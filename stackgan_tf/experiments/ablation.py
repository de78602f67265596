"""The paper's ablation (StackGAN, arXiv:1612.03242, Sec. 4.3) in one command.

    python -m stackgan_tf.experiments.ablation
    python -m stackgan_tf.experiments.ablation --run=birds-ablation --preset=birds --data_dir=DIR \
        --minutes=3000 --seeds=3

trains Stage-I alone, for 64x64 and for 256x256 pictures, and StackGANs of 128x128 and of 256x256:
with and without conditioning augmentation (CA), with the caption read by both stages or by Stage-I
only. Each row of the table has the same time: before all, the steps of all variants are timed in
turn, and each training gets the number of steps that fill its --minutes, whatever else the machine
does later (--steps: the same number instead). A StackGAN's Stage-I has a third of its row's. The
learning rate decays over that part of a training that its stage's preset has. Stage-I at 256x256
has the batch, the discriminator's width and the penalty of Stage-II, and ends as wide.

All of it lies in checkpoints/ablation: table.md, table.png, contact_sheet.png (each variant's
pictures of the same held-out captions), results.json, and an ordinary run for each variant, for
TensorBoard and `sample`. Any other flag of train is for all trainings. All pictures are compared at
256x256, smaller ones enlarged. The same command goes on where it was stopped or killed. The
defaults are three hours of training steps, besides starts, scores and the text encoder.
"""

from stackgan_tf.config import resolve, run_cli
from stackgan_tf.experiments import command_line
from stackgan_tf.experiments.plan import Variant

NAME, COLUMNS = "ablation", ("method", "CA", "text")
MINUTES = 20.0
STAGE1 = 1 / 3  # a StackGAN's Stage-I has this part of its time, as in the default preset
VARIED = ("conditioning_augmentation", "text_once", "image_size")
METRICS = ("kid", "diversity", "r_precision", "attribute_accuracy")
# What Stage-I takes over from Stage-II when its pictures are as large.
OF_STAGE2 = ("batch_size", "discriminator_width", "r1_weight", "r1_every", "mismatch_candidates")


def variants(base: dict) -> list[Variant]:
    """The rows of the paper's table, and the two Stage-I that lie under the StackGANs."""
    stage2 = resolve({**base, "stage": 2})
    # Gf of Stage-I is halved once more often: so its last maps have Stage-II's Gf/4 channels
    large = {**{name: getattr(stage2, name) for name in OF_STAGE2},
             "generator_width": 2 * stage2.generator_width}
    both = {"no_ca": False, "ca": True}
    below = {word: Variant(f"sketch-{word}", 1, {"conditioning_augmentation": ca}, STAGE1)
             for word, ca in both.items()}
    made = [*below.values()]
    for size, more in ((64, {}), (256, {"image_size": 256, **large})):
        for word, ca in both.items():
            options = {"conditioning_augmentation": ca, **more}
            made.append(Variant(f"stage1-{size}-{word}", 1, options, row=(
                f"{size}x{size} Stage-I", "yes" if ca else "no", "once")))
    for size, more in ((128, {"residual_blocks": 2}), (256, {})):  # the paper's for 128x128
        for word, times in (("ca", "once"), ("no_ca", "twice"), ("ca", "twice")):
            options = {"image_size": size, "conditioning_augmentation": both[word],
                       "text_once": times == "once", **more}
            made.append(Variant(
                f"stackgan-{size}-{word}-{times}", 2, options, 1 - STAGE1, below[word],
                (f"{size}x{size} StackGAN", "yes" if both[word] else "no", times)))
    return made


def main(_):
    return command_line.run(NAME, COLUMNS, variants, VARIED, METRICS, size=256)


if __name__ == "__main__":
    command_line.define_own_flags(NAME, MINUTES)
    run_cli(main)
