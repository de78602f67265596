"""Training recipes compared at equal time: the paper's, the preset's, the modern one, and each of
their parts alone.

    python -m stackgan_tf.experiments.recipes --seeds=3
    python -m stackgan_tf.experiments.recipes --stage=2 --run=recipes-2 --minutes=45
    python -m stackgan_tf.experiments.recipes --run=mine-recipes --dataset=folder --data_dir=DIR

The parts are added one by one to the preset's recipe (--onto=paper: to the paper's); one that it
has already is taken away from it instead. Some bring or take others along: penalties need a
discriminator without batch norm, MA-GP takes R1's place, TTUR comes with DF-GAN's Adam; below the
table stands what each row changes. --stage=1 compares Stage-I; --stage=2 compares Stage-II,
on one Stage-I that the preset's recipe has trained for half of --minutes; --stage=both gives each
variant a Stage-I of its own recipe, for a third of its time.

Each row of the table has the same time: before all, the steps of all variants are timed in turn,
and each training gets the number of steps that fill its --minutes, whatever else the machine does
later (--steps: the same number instead). --variants=paper,preset,modern trains only these.
Everything lies in checkpoints/recipes, as of `ablation`; the same command goes on where it was
stopped or killed. With the defaults that is some four hours of training steps a seed, besides
starts, scores and the text encoder.
"""

import functools
import math

from absl import flags

from stackgan_tf.config import resolve, run_cli
from stackgan_tf.experiments import command_line
from stackgan_tf.experiments.plan import Variant, of_stage1
from stackgan_tf.presets import RECIPES

NAME, COLUMNS = "recipes", ("recipe",)
MINUTES = 15.0
STAGE1 = 1 / 3  # of the time, with --stage=both
METRICS = ("kid", "r_precision", "attribute_accuracy")
VARIED = ("recipe", "mode_seeking_weight", *RECIPES["modern"][""], *RECIPES["modern"][2])
PENALTIES = {"r1_weight": 0.0, "ma_gp_weight": 0.0}


def parts(base: dict, stage: int) -> dict[str, tuple[dict, dict]]:
    """{part of the modern recipe: (options with it, options without it)}.

    Penalties need a discriminator without batch norm, so that goes and comes with them.
    """
    preset, paper = (resolve({**base, "stage": stage, "recipe": name})
                     for name in ("preset", "paper"))
    modern = RECIPES["modern"][""]
    # it must divide both sets that --r1_every makes of the batch
    apart = -(-preset.batch_size // preset.r1_every)
    alike = math.gcd(modern["minibatch_std"], apart, preset.batch_size - apart)
    unnormed = {"discriminator_norm": "none"}
    made = {
        "hinge": {"loss": "hinge"},
        "BN-free D": unnormed,
        "spectral norm": {"discriminator_norm": "spectral"},
        "R1": {**unnormed, "r1_weight": preset.r1_weight or 1.0, "r1_every": preset.r1_every},
        "MA-GP": {**unnormed, **{name: modern[name] for name in (
            "r1_weight", "ma_gp_weight", "r1_every")}},
        "DiffAugment": {"diff_augment": modern["diff_augment"]},
        "minibatch std": {"minibatch_std": alike},
        "projection": {"text_in_discriminator": "projection"},
        "conditional norm": {"condition_blocks": True},
        "bilinear": {"upsampling": "bilinear"},
        "noise injection": {"noise_injection": True},
        "mode seeking": {"mode_seeking_weight": preset.mode_seeking_weight or 0.03},
        "TTUR": {name: modern[name] for name in (
            "learning_rate", "discriminator_learning_rate", "adam_beta1", "adam_beta2")},
        "EMA": {"ema_decay": preset.ema_decay or modern["ema_decay"]},
    }
    if alike == 1:  # no such groups in this batch
        del made["minibatch std"]
    if stage == 2:
        made["add to sketch"] = {"add_to_sketch": True}
    without = {name: {field: getattr(paper, field) for field in options}
               for name, options in made.items()}
    without["R1"] = {"r1_weight": 0.0}
    for name in ("BN-free D", "spectral norm"):
        without[name] |= PENALTIES
    return {name: (options, without[name]) for name, options in made.items()}


def recipes(base: dict, stage: int, onto: str) -> dict[str, dict]:
    """{label: options of a stage} of all variants."""
    made = {name: {"recipe": name} for name in ("paper", "preset", "modern")}
    begun = resolve({**base, "stage": stage, "recipe": onto})
    for name, (with_it, without) in parts(base, stage).items():
        has = all(getattr(begun, field) == value for field, value in with_it.items())
        made[f"{onto} {'without' if has else 'with'} {name}"] = {
            "recipe": onto, **(without if has else with_it)}
    return made


def variants(base: dict, stage: str, onto: str) -> list[Variant]:
    """One a recipe, each behind the Stage-I that it stands on."""
    lower = base if stage == "1" else of_stage1(base)
    made_of_stage1, below, share = recipes(lower, 1, onto), {}, 1.0
    if stage == "1":
        return [Variant(_name(label), 1, options, row=(label,))
                for label, options in made_of_stage1.items()]
    of_stage2 = recipes(base, 2, onto)
    if stage == "2":
        below = dict.fromkeys(of_stage2, Variant("sketch", 1, {"recipe": "preset"}, 0.5))
    else:
        below, share = {label: Variant(f"sketch-{_name(label)}", 1, options, STAGE1)
                        for label, options in made_of_stage1.items()}, 1 - STAGE1
    # a part of Stage-II alone lies on the Stage-I of the recipe that it is added to
    made = [Variant(_name(label), 2, options, share, below.get(label, below[onto]), (label,))
            for label, options in of_stage2.items()]
    return [*{variant.below.name: variant.below for variant in made}.values(), *made]


def _name(label):
    return label.replace(" ", "_")


def main(_):
    values = flags.FLAGS
    make = functools.partial(variants, stage=values.stage, onto=values.onto)
    return command_line.run(NAME, COLUMNS, make, VARIED, METRICS, size=0)


if __name__ == "__main__":
    command_line.define_own_flags(NAME, MINUTES)
    flags.DEFINE_enum("stage", "1", ["1", "2", "both"], "whose recipes are compared")
    flags.DEFINE_enum("onto", "preset", ["preset", "paper"], "the recipe that each part is added "
                      "to, or taken away from where it has it")
    run_cli(main)
