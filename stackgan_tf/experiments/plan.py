"""What an experiment is to do: its variants, and how many steps each trains."""

import dataclasses
import math

from stackgan_tf.config import FREE, PLACES, Config, UserError, resolve

# What the experiment itself decides, for each training.
OWN = ("stage", "run", "seed", "stage1", "train_steps", "epochs", "learning_rate_decay_epochs",
       "learning_rate_decay_steps")
# Options that Stage-I has no use for.
OF_STAGE2 = ("add_to_sketch", "sketch_weight", "unconditional_head", "text_once")
CHECKPOINTS = 8  # in the course of a training, unless --checkpoint_steps says otherwise
TEXT = "text"  # name of the run that holds the text encoder of all


@dataclasses.dataclass(frozen=True)
class Variant:
    """One training, which is done once for each seed.

    Attributes:
        name: its run is called so, and -seed0 ... behind it.
        stage: 1 or 2.
        options: {field of Config: value} that tell it from the others.
        share: of the experiment's minutes, or steps.
        below: the variant whose Stage-I this Stage-II stands on.
        row: its words in the table, one a column; None for one that only lies below others.
    """

    name: str
    stage: int
    options: dict
    share: float = 1.0
    below: "Variant | None" = None
    row: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """An experiment.

    Attributes:
        name, folder: its name, and where all of it lies.
        columns: of the table, the headings of `Variant.row`.
        variants: all, each behind the one below it.
        base: {field of Config: value} of all, the flags that were given.
        minutes: of training steps that each row has in all; or
        steps: so many in all, if not 0.
        seeds: 0 ... seeds - 1 are trained.
        chosen: the names of the variants to be trained, with what lies below; () for all.
        metrics, count, size, scoring: of evaluate, `scoring` {flag: value} of the network's flags
            that were given.
        asked: whether `metrics` were asked for, so that none may be left out.
    """

    name: str
    folder: str
    columns: tuple[str, ...]
    variants: tuple[Variant, ...]
    base: dict
    minutes: float = 20.0
    steps: int = 0
    seeds: int = 1
    chosen: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("kid",)
    count: int = 1000
    size: int = 0
    scoring: dict = dataclasses.field(default_factory=dict)
    asked: bool = False

    def options(self, variant: Variant) -> dict:
        """All options of a training but those of OWN."""
        given = self.base if variant.stage == 2 else self.of_stage1()
        if not variant.row:  # the table's pictures have the size that was asked for
            given = {name: value for name, value in given.items() if name != "image_size"}
        return {**given, **variant.options}

    def of_stage1(self) -> dict:
        """`base` as Stage-I and the text encoder take it."""
        return of_stage1(self.base)

    def config(self, variant: Variant, **more) -> Config:
        """The settings of a training; UserError for values that cannot be."""
        return resolve({**self.options(variant), "stage": variant.stage, **more})

    def trained(self) -> list[Variant]:
        """The variants to be trained, each behind the one below it; UserError for unknown ones."""
        names = {variant.name for variant in self.variants if variant.row}
        for name in self.chosen:
            if name not in names:
                raise UserError(f"--variants={name} is unknown; choose of "
                                f"{', '.join(sorted(names))}.")
        wanted = {*(self.chosen or names)}
        wanted |= {v.below.name for v in self.variants if v.name in wanted and v.below}
        return [variant for variant in self.variants if variant.name in wanted]

    def rows(self) -> list[Variant]:
        """The variants of the table."""
        return [variant for variant in self.trained() if variant.row]

    def settings(self) -> dict:
        """What decides on the numbers, as JSON: going on with other settings is refused, but for
        "scoring", and those of config.FREE and PLACES."""
        return {
            "experiment": self.name, "minutes": 0.0 if self.steps else self.minutes,
            "steps": self.steps, "base": self.base, "scoring": {
                "metrics": list(self.metrics), "asked": self.asked, "count": self.count,
                "size": self.size, **self.scoring},
            "variants": {variant.name: {
                "stage": variant.stage, "share": variant.share, "options": variant.options,
                "below": variant.below.name if variant.below else None}
                for variant in self.variants},
            # with what presets and defaults give: those of another version may be others
            "resolved": {variant.name: {
                name: value for name, value in dataclasses.asdict(self.config(variant)).items()
                if name not in {*FREE, *PLACES, *OWN}} for variant in self.trained()},
        }


def of_stage1(base: dict) -> dict:
    """Options less those that are Stage-II's alone."""
    return {name: value for name, value in base.items() if name not in OF_STAGE2}


def differences(before: dict, now: dict) -> list[str]:
    """In words, what differs between two `Plan.settings`; variants that only one has do not."""
    found = [f"--{name}={now[name]} (was {before.get(name)})"
             for name in ("experiment", "minutes", "steps") if now[name] != before.get(name)]
    for name in sorted({*before["base"], *now["base"]} - {*FREE, *PLACES}):
        was, is_now = (some["base"].get(name, "not given") for some in (before, now))
        if was != is_now:
            found.append(f"--{name}={is_now} (was {was})")
    for name in now["variants"]:
        if before["variants"].get(name, now["variants"][name]) != now["variants"][name]:
            found.append(f"what variant {name} is (it was {before['variants'][name]})")
    # Flags and variants are the same: the presets are not.
    for name, fields in now["resolved"].items() if not found else ():
        was = before.get("resolved", {}).get(name, {})
        found += [f"{name}'s --{field}={value} (was {was[field]})"
                  for field, value in fields.items() if was.get(field, value) != value]
    return found


def steps_of(plan: Plan, variant: Variant, seconds: float) -> int:
    """Steps of a training, a step of which takes so many seconds."""
    whole = plan.steps or plan.minutes * 60.0 / seconds
    return max(1, round(whole * variant.share))


def budget(plan: Plan, variant: Variant, steps: int) -> dict:
    """The options that make a training end after `steps` steps, as its preset would after its own:
    the learning rate decays over the same part of the run."""
    config = plan.config(variant)
    whole, decay = ((config.epochs, config.learning_rate_decay_epochs) if config.epochs else
                    (config.train_steps, config.learning_rate_decay_steps))
    return {"checkpoint_steps": math.ceil(steps / CHECKPOINTS), **plan.options(variant),
            "train_steps": steps, "learning_rate_decay_steps": max(1, round(steps * decay / whole))}
