"""Experiments: budgets and tables by hand, resumption with commands that only pretend, and one
whole experiment of tiny networks."""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from conftest import TINY, command_here
from PIL import Image

from stackgan_tf import caption_files, features, presets
from stackgan_tf.config import UserError
from stackgan_tf.experiments import (
    ablation,
    command_line,
    plan,
    recipes,
    runner,
    step_times,
    table,
)
from stackgan_tf.experiments.plan import Plan, Variant
from stackgan_tf.feature_networks import efficientnet_lite0

SKETCH = Variant("sketch", 1, {}, 1 / 3)
PLAN = Plan("test", "", ("method", "CA"), (
    SKETCH, Variant("small", 1, {"kl_weight": 0.5}, row=("64x64", "no")),
    Variant("large", 2, {}, 2 / 3, SKETCH, ("256x256", "yes"))), {"seed": 0}, minutes=10.0)


# ------------------------------------------------------------------ budgets


def test_steps_fill_the_share_of_the_minutes_or_of_the_steps():
    assert plan.steps_of(PLAN, PLAN.variants[1], 0.5) == 1200  # 600 s
    assert plan.steps_of(PLAN, SKETCH, 0.5) == 400
    assert plan.steps_of(PLAN, PLAN.variants[2], 0.8) == 500  # 400 s
    fixed = Plan("", "", (), PLAN.variants, {}, steps=900)
    assert [plan.steps_of(fixed, v, 123.0) for v in fixed.variants] == [300, 900, 600]
    assert plan.steps_of(PLAN, SKETCH, 1e6) == 1


def test_learning_rate_decays_over_the_same_part_of_the_run():
    # drawn_flowers: 1400 of 3000 steps; flowers: 50 of 600 epochs in Stage-I, 100 in Stage-II
    assert plan.budget(PLAN, SKETCH, 600)["learning_rate_decay_steps"] == 280
    flowers = Plan("", "", (), PLAN.variants, {"preset": "flowers"})
    stage1, stage2 = (flowers.config(v, **plan.budget(flowers, v, 1200)) for v in (
        SKETCH, PLAN.variants[2]))
    assert (stage1.train_steps, stage1.epochs, stage1.learning_rate_decay_steps) == (1200, 0, 100)
    assert stage2.learning_rate_decay_steps == 200


def test_ablation_is_the_papers_table_in_equal_time():
    made = ablation.variants({})
    rows = [variant for variant in made if variant.row]
    # arXiv:1612.03242, the table of Sec. 4.3: method, CA, text twice
    assert [variant.row for variant in rows] == [
        ("64x64 Stage-I", "no", "once"), ("64x64 Stage-I", "yes", "once"),
        ("256x256 Stage-I", "no", "once"), ("256x256 Stage-I", "yes", "once"),
        ("128x128 StackGAN", "yes", "once"), ("128x128 StackGAN", "no", "twice"),
        ("128x128 StackGAN", "yes", "twice"), ("256x256 StackGAN", "yes", "once"),
        ("256x256 StackGAN", "no", "twice"), ("256x256 StackGAN", "yes", "twice")]
    whole = Plan("", "", (), tuple(made), {})
    for variant in rows:
        below, config = variant.below, whole.config(variant)
        assert variant.share + (below.share if below else 0) == pytest.approx(1.0)
        size, ca = int(variant.row[0].split("x")[0]), variant.row[1] == "yes"
        assert (config.image_size, config.conditioning_augmentation) == (size, ca)
        assert config.text_once == (variant.stage == 2 and variant.row[2] == "once")
        if below:
            assert whole.config(below).conditioning_augmentation == ca
            assert whole.config(below).image_size == 64
    large = whole.config(rows[2])
    # its last maps have Stage-II's Gf / 4 channels: 8 Gf halved at 8, 16, 32, 64, 128 and 256
    assert 8 * large.generator_width / 2**6 == whole.config(rows[-1]).generator_width / 4
    assert large.batch_size == whole.config(rows[-1]).batch_size


@pytest.mark.parametrize("preset", ["drawn_flowers", "flowers"])
@pytest.mark.parametrize("stage", ["1", "2", "both"])
@pytest.mark.parametrize("onto", ["preset", "paper"])
def test_a_recipe_differs_by_its_part_alone(preset, stage, onto):
    base = {"preset": preset}
    made = recipes.variants(base, stage, onto)
    whole = Plan("", "", ("recipe",), tuple(made), base)
    assert len({variant.name for variant in made}) == len(made)
    by_label = {variant.row[0]: variant for variant in made if variant.row}
    assert list(by_label)[:3] == ["paper", "preset", "modern"]
    stages = 1 if stage == "1" else 2
    parts = recipes.parts(base, stages)
    assert len(by_label) == 3 + len(parts)
    begun = dataclasses.asdict(whole.config(by_label[onto]))
    for name, (with_it, without) in parts.items():
        label, = (text for text in by_label if text in (f"{onto} with {name}",
                                                        f"{onto} without {name}"))
        changed = {field for field, value in dataclasses.asdict(
            whole.config(by_label[label])).items() if value != begun[field]}
        assert changed and changed <= {*with_it, *without}, label
    for variant in by_label.values():
        below = variant.below.share if stage == "both" else 0.0
        assert variant.stage == stages and variant.share + below == pytest.approx(1.0)


def test_a_part_that_the_preset_has_is_taken_away():
    made = recipes.recipes({}, 1, "preset")  # drawn_flowers: its own moving average, and R1
    assert made["preset without EMA"] == {"recipe": "preset", "ema_decay": 0.0}
    assert made["preset without R1"] == {"recipe": "preset", "r1_weight": 0.0}
    assert made["preset with minibatch std"]["minibatch_std"] == 4  # of 16: 4 with R1, 12 without
    # 3 and 9, 3 and 7: no size of groups but 1 divides both
    for batch_size in (12, 10):
        assert "minibatch std" not in recipes.parts({"batch_size": batch_size}, 1)


def test_what_lies_below_a_chosen_variant_is_trained_too():
    some = Plan("", "", (), PLAN.variants, {}, chosen=("large",))
    assert [variant.name for variant in some.trained()] == ["sketch", "large"]
    assert [variant.name for variant in some.rows()] == ["large"]
    with pytest.raises(UserError, match="--variants=sketch is unknown; choose of large, small"):
        Plan("", "", (), PLAN.variants, {}, chosen=("sketch",)).trained()


def test_step_times_are_taken_in_turn_and_of_equal_settings_once(monkeypatch):
    order = []

    class Fake:
        def __init__(self, config, below):
            self.name = config.kl_weight

        def seconds_per_step(self, seconds):
            order.append(self.name)
            return self.name * len(order)

    monkeypatch.setattr(step_times, "Timed", Fake)
    one, other = PLAN.config(SKETCH, kl_weight=1.0), PLAN.config(SKETCH, kl_weight=2.0)
    found = step_times.measure({"a": one, "b": other, "c": one}, {}, rounds=3)
    assert order == [1.0, 2.0] * 3
    assert found == {"a": [1.0, 3.0, 5.0], "b": [4.0, 8.0, 12.0], "c": [1.0, 3.0, 5.0]}


# ------------------------------------------------------------------ tables


def record(metric, name, value, reach, **more):
    return {"metric": metric, "stage": 1, "step": 5, "count": 100, "real_count": 80, "seed": 0,
            name: value, f"{name}/low": value - reach, f"{name}/high": value + reach,
            "split": "test", "size": 64, **more}


def scored(variant, seed, kid, accuracy=None):
    records = [record("kid_net", "kid_net", kid, 0.01)]
    if accuracy is not None:
        records.append({**record("attribute_accuracy", "accuracy/mean", accuracy, 0.1),
                        **record("attribute_accuracy", "accuracy/petal_color", accuracy, 0.1),
                        "chance/mean": 0.2, "chance/petal_color": 0.1,
                        "classifier_accuracy": {"mean": 0.9, "petal_color": 1.0}})
    return {"variant": variant, "seed": seed, "trained": True, "steps": 1200,
            "step_seconds": 0.5, "records": records}


def test_table_of_one_seed_has_the_bootstrap_of_several_their_range():
    runs = {"small-seed0": scored("small", 0, 0.05, 0.5),
            "sketch-seed0": {"variant": "sketch", "seed": 0, "steps": 400, "step_seconds": 0.25}}
    text = table.markdown(PLAN, runs).splitlines()
    assert "| 64x64 | no | 1,200 | 0.500 | 0.0500 (0.0400 to 0.0600) | 0.500 (0.400 to 0.600) |" \
        in text
    assert "| real pictures |  |  |  |  | 0.900 |" in text
    assert "| chance |  |  |  |  | 0.200 |" in text
    assert "| 64x64 | no | 0.500 (0.400 to 0.600) |" in text  # petal color, in the second table
    assert "- 256x256, yes: 1 of 1 not made yet" in text

    three = Plan("test", "", PLAN.columns, PLAN.variants, {}, seeds=3)
    runs = {f"small-seed{i}": scored("small", i, kid) for i, kid in enumerate((0.05, 0.02, 0.08))}
    runs["large-seed0"] = {"variant": "large", "seed": 0, "steps": 800, "step_seconds": 1.0,
                           "errors": {"train": "train: out of memory"}}
    runs["sketch-seed0"] = {"variant": "sketch", "seed": 0, "steps": 400, "step_seconds": 0.25}
    text = table.markdown(three, runs).splitlines()
    assert "| 64x64 | no | 1,200 | 0.500 | 0.0500 (0.0200 to 0.0800) |" in text
    assert "| 256x256 | yes | 400 + 800 | 0.250 + 1.000 |  |" in text
    assert "- 256x256, yes: seed 0 failed: train: out of memory; 2 of 3 not made yet" in text
    assert text[-3:] == ["", "- 64x64, no: kl_weight=0.5", "- 256x256, yes: nothing"]


def test_what_the_intervals_are_is_said_of_the_seeds_that_are_shown():
    runs = {f"small-seed{i}": scored("small", i, kid) for i, kid in enumerate((0.05, 0.02, 0.08))}
    runs["large-seed0"] = scored("large", 0, 0.03)

    def lines(seeds):
        return table.markdown(Plan("test", "", PLAN.columns, PLAN.variants, {}, seeds=seeds),
                              runs).splitlines()

    assert "| 64x64 | no | 1,200 | 0.500 | 0.0500 (0.0400 to 0.0600) |" in lines(1)  # as it was
    assert any(line.startswith("One seed; the intervals are of 95 %") for line in lines(1))
    text = lines(3)
    assert "Mean of 3 seeds; the intervals go from the smallest to the largest." in text
    assert any(line.startswith("Of other rows one seed; the intervals are") for line in text)


def test_picture_of_the_table_puts_the_larger_number_to_the_right():
    runs = {"small-seed0": scored("small", 0, 0.02), "large-seed0": scored("large", 0, 0.08)}
    picture = table.draw(PLAN, runs)
    blue = np.abs(picture.astype(int) - (0x1f, 0x5f, 0xa8)).sum(-1) < 9
    rows = np.flatnonzero(blue.any(1))
    first, second = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    small, large = (np.flatnonzero(blue[one].any(0)).mean() for one in (first, second))
    # 0.02 +- 0.01 and 0.08 +- 0.01 on a scale from 0.01 to 0.09, which is 82 pixels wide
    assert large - small == pytest.approx(82 * 6 / 8, abs=1.5)


# ------------------------------------------------------------------ resumption


class Pretended:
    """The commands' traces on the disk, and what was called.

    Args:
        stop_at: at this call it is as if Ctrl-C had come.
        failing: (command, a part of the run's name) that ends with 1.
        too_small_for: metrics that the data has too little for.
    """

    def __init__(self, stop_at=None, failing=(None, ""), too_small_for=()):
        self.calls, self.stop_at, self.failing = [], stop_at, failing
        self.too_small_for = too_small_for

    def __call__(self, module, flags, log):
        values = dict(flag[2:].split("=", 1) for flag in flags)
        self.calls.append((module, values.get("run"), values))
        if len(self.calls) == self.stop_at:
            if module == "sample":
                os.makedirs(values["output"])  # half of it
            raise runner.Stopped(130)
        if module == self.failing[0] and self.failing[1] in values["run"]:
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "w") as file:
                file.write("step 1\nerror: no more paint\nbye\n")
            return 1
        folder = os.path.join(values["checkpoint_dir"], values["run"])
        part = os.path.join(folder, f"stage{values.get('stage')}")
        if module == "experiments.step_times":
            with open(os.path.join(folder, "experiment.json")) as file:
                stored = json.load(file)
            names, scoring = stored["variants"], stored["scoring"]
            left = [name for name in scoring["metrics"] if name not in self.too_small_for]
            write(os.path.join(folder, "metrics.json"), json.dumps(
                {"scoring": scoring, "metrics": left}))
            write(os.path.join(folder, "step_times.json"), json.dumps(
                {name: {"seconds": 0.5 + i} for i, name in enumerate(names)}))
            write(os.path.join(folder, "captions.txt"), "a red flower\na blue flower\n")
        elif module.startswith("train"):
            part = part if module == "train" else os.path.join(folder, "text_encoder")
            write(os.path.join(part, "saved_model/saved_model.pb"), "")
        elif module == "evaluate":
            line = record("kid_net", "kid_net", 0.1, 0.01)
            write(os.path.join(part, "metrics.jsonl"), json.dumps(line) + "\n")
        elif module == "sample":
            os.makedirs(values["output"])
            for i in range(2):
                Image.new("RGB", (16, 16)).save(
                    f"{values['output']}/{i}_0_stage{values['stage']}.png")
            Image.new("RGB", (16, 16)).save(f"{values['output']}/grid.png")
        return 0

    def names(self):
        return [(module, run) for module, run, _ in self.calls]


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def planned(folder, **changes):
    return Plan(**{**{field: getattr(PLAN, field) for field in PLAN.__dataclass_fields__},
                   "folder": str(folder / "test"), "base": {}, **changes})


WHOLE = [("train_text_encoder", "text"), ("experiments.step_times", "test"),
         ("train", "sketch-seed0"), ("train", "small-seed0"), ("evaluate", "small-seed0"),
         ("sample", "small-seed0"), ("train", "large-seed0"), ("evaluate", "large-seed0"),
         ("sample", "large-seed0")]


def test_whole_experiment_is_done_once(tmp_path, capsys):
    first = Pretended()
    assert runner.Runner(planned(tmp_path), first).run() == 0
    assert first.names() == WHOLE
    by_run = {(module, run): values for module, run, values in first.calls}
    large = by_run["train", "large-seed0"]
    # the third variant's step takes 2.5 s, and it has two thirds of ten minutes
    assert large["train_steps"] == "160" and large["stage"] == "2" and large["seed"] == "0"
    assert large["stage1"] == str(tmp_path / "test/sketch-seed0/stage1/saved_model")
    assert large["text_encoder"] == str(tmp_path / "test/text/text_encoder/saved_model")
    assert by_run["train", "small-seed0"]["kl_weight"] == "0.5"
    for name in ("table.md", "table.png", "contact_sheet.png", "results.json"):
        assert (tmp_path / "test" / name).stat().st_size > 0
    assert "[2/7] small-seed0: train stage 1, 400 steps, 10 min" in capsys.readouterr().out

    again = Pretended()
    assert runner.Runner(planned(tmp_path), again).run() == 0 and again.calls == []
    more = Pretended()
    assert runner.Runner(planned(tmp_path, seeds=2), more).run() == 0
    assert more.names() == [("train", "sketch-seed1"), ("train", "small-seed1"), (
        "evaluate", "small-seed1"), ("train", "large-seed1"), ("evaluate", "large-seed1")]


def test_the_time_that_is_left_counts_what_steps_do_not(tmp_path, capsys, monkeypatch):
    now, pretended = [0.0], Pretended()
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])

    def slow(module, flags, log):
        code = pretended(module, flags, log)
        # of ten minutes the sketch has 200 s, the large one 400, the small one all
        steps = {"sketch": 200, "small": 600, "large": 400}.get(
            pretended.calls[-1][1].partition("-")[0], 0)
        now[0] += {"train": steps + 30, "evaluate": 96, "sample": 12}.get(module, 0)
        return code

    assert runner.Runner(planned(tmp_path, seeds=2), slow).run() == 0
    said = capsys.readouterr().out
    # 230 + 630 + 96 + 430 + 96 s, 430 + 96 s
    assert "[8/12] sketch-seed1: train stage 1, 400 steps, 3 min; 25 min left in all" in said
    assert "[11/12] large-seed1: train stage 2, 160 steps, 7 min; 9 min left in all" in said


@pytest.mark.parametrize("stop_at", range(1, len(WHOLE) + 1))
def test_stopped_anywhere_it_goes_on_there(tmp_path, stop_at):
    first, second = Pretended(stop_at), Pretended()
    assert runner.Runner(planned(tmp_path), first).run() == 130
    assert runner.Runner(planned(tmp_path), second).run() == 0
    assert first.names()[:-1] + second.names() == WHOLE


def test_failure_leaves_out_what_stands_on_it_and_the_rest_goes_on(tmp_path, capsys):
    failing = Pretended(failing=("train", "sketch"))
    assert runner.Runner(planned(tmp_path), failing).run() == 1
    assert failing.names() == WHOLE[:6]
    said = capsys.readouterr().out
    assert "sketch-seed0: train: failed, no more paint (" in said
    text = (tmp_path / "test/table.md").read_text()
    assert "256x256, yes: seed 0 failed: sketch-seed0, its Stage-I, is not trained" in text
    assert "| 64x64 | no | 400 | 1.500 | 0.1000 (0.0900 to 0.1100) |" in text

    mended = Pretended()
    assert runner.Runner(planned(tmp_path), mended).run() == 0
    assert mended.names() == [WHOLE[2], *WHOLE[6:]]
    assert "failed" not in (tmp_path / "test/table.md").read_text()


def test_only_what_was_asked_for_has_failed(tmp_path, capsys):
    assert runner.Runner(planned(tmp_path), Pretended(failing=("train", "large"))).run() == 1
    capsys.readouterr()
    assert runner.Runner(planned(tmp_path, chosen=("small",)), Pretended()).run() == 0
    done = capsys.readouterr().out.splitlines()[-1]
    assert done == f"done: {tmp_path}/test/table.md, table.png, contact_sheet.png"


def test_the_classifier_that_is_there_is_taken(tmp_path):
    (tmp_path / "attribute_classifier").mkdir()
    (tmp_path / "attribute_classifier/card").write_text("theirs")
    assert runner.Runner(planned(tmp_path), Pretended()).run() == 0
    assert (tmp_path / "test/attribute_classifier/card").read_text() == "theirs"


def test_scores_that_fail_are_reported_though_pictures_are_made_afterwards(tmp_path):
    failing = Pretended(failing=("evaluate", "small"))
    assert runner.Runner(planned(tmp_path), failing).run() == 1
    assert failing.names() == WHOLE
    text = (tmp_path / "test/table.md").read_text()
    assert "64x64, no: seed 0 failed: evaluate: no more paint" in text

    mended = Pretended()
    assert runner.Runner(planned(tmp_path), mended).run() == 0
    assert mended.names() == [WHOLE[4]]
    assert "failed" not in (tmp_path / "test/table.md").read_text()


def test_other_scores_are_made_of_the_same_trainings(tmp_path, capsys):
    assert runner.Runner(planned(tmp_path), Pretended()).run() == 0
    again = Pretended()
    assert runner.Runner(planned(tmp_path, count=50, scoring={"resize": "tf1"}), again).run() == 0
    assert again.names() == [WHOLE[1], WHOLE[4], WHOLE[7]]
    assert again.calls[1][2]["count"] == "50" and again.calls[1][2]["resize"] == "tf1"
    assert "the scores are made again" in capsys.readouterr().out


def test_what_the_data_is_too_small_for_is_not_measured(tmp_path, capsys):
    asked = planned(tmp_path, metrics=("kid", "r_precision"))
    small = Pretended(too_small_for=("r_precision",))
    assert runner.Runner(asked, small).run() == 0
    assert {values["metrics"] for module, _, values in small.calls if module == "evaluate"} == {
        "kid"}
    assert "not measured, for the data is too small" in capsys.readouterr().out


def test_metrics_of_a_small_folder(folder, tiny, capsys):
    config = tiny(dataset="folder", data_dir=folder, precomputed_embeddings=False)
    scoring = {"metrics": ["kid", "r_precision"], "asked": False, "count": 90}
    assert step_times.metrics(scoring, config) == ["kid"]
    assert "r_precision is left out: it needs 99 different captions" in capsys.readouterr().out
    with pytest.raises(UserError, match="--metrics=r_precision needs 99 different captions"):
        step_times.metrics({**scoring, "asked": True}, config)


def test_captions_of_several_lines_are_a_line_each(tmp_path, encoder, tiny):
    (tmp_path / "data").mkdir()
    rows = [{"file": f"{i}.png", "captions": [f"a red\n\nbird {i}"]} for i in range(2)]
    for row in rows:
        Image.new("RGB", (20, 20)).save(tmp_path / "data" / row["file"])
    (tmp_path / "data/captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = tiny(dataset="folder", data_dir=str(tmp_path / "data"), text_encoder=encoder,
                  precomputed_embeddings=False)
    step_times.write_captions(config, str(tmp_path))
    lines = caption_files.read_lines(tmp_path / "captions.txt")
    assert {*lines} == {"a red bird 0", "a red bird 1"}


def test_step_times_without_an_experiment_say_so(tmp_path):
    done = command_here("experiments.step_times", "--run=none", f"--checkpoint_dir={tmp_path}",
                        check=False)
    assert done.returncode == 1 and "none holds no experiment" in done.stderr


def test_the_size_of_the_pictures_is_not_that_of_the_sketches_below():
    base = {"image_size": 128, "seed": 3}
    made = plan.Plan("recipes", "", (), tuple(recipes.variants(base, "2", "preset")), base)
    sizes = {v.name: made.config(v).image_size for v in made.variants}
    assert sizes.pop("sketch") == 64 and set(sizes.values()) == {128}


def test_data_may_move_between_two_calls(tmp_path):
    assert runner.Runner(planned(tmp_path, base={"data_dir": "here"}), Pretended()).run() == 0
    more = Pretended()
    assert runner.Runner(planned(tmp_path, base={"data_dir": "there"}, seeds=2), more).run() == 0
    assert {values["data_dir"] for _, _, values in more.calls} == {"there"}


def test_other_settings_are_refused_by_name(tmp_path):
    assert runner.Runner(planned(tmp_path), Pretended()).run() == 0
    for change, words in (({"minutes": 5.0}, r"--minutes=5.0 \(was 10.0\)"),
                          ({"base": {"preset": "flowers"}}, r"--preset=flowers \(was not given\)"),
                          ({"variants": PLAN.variants[:1] + (Variant("small", 1, {}, row=(
                              "64x64", "no")),)}, "what variant small is")):
        with pytest.raises(UserError, match=words):
            runner.Runner(planned(tmp_path, **change), Pretended()).run()


def test_a_preset_that_is_another_by_now_is_noticed(tmp_path, monkeypatch):
    assert runner.Runner(planned(tmp_path, chosen=("small",)), Pretended()).run() == 0
    monkeypatch.setitem(presets.PRESETS["drawn_flowers"][1], "batch_size", 7)
    with pytest.raises(UserError, match=r"other settings: small's --batch_size=7 \(was 16\); "
                                        "repeat those"):
        runner.Runner(planned(tmp_path), Pretended()).run()
    monkeypatch.undo()
    assert runner.Runner(planned(tmp_path), Pretended()).run() == 0
    kept = json.loads((tmp_path / "test/experiment.json").read_text())["resolved"]
    assert kept.keys() == {"sketch", "small", "large"}
    # what an older version did not note binds nobody
    assert plan.differences({**planned(tmp_path).settings(), "resolved": {"small": {}}},
                            planned(tmp_path).settings()) == []


def test_two_processes_do_not_share_a_folder(tmp_path):
    class Busy(Pretended):
        def __call__(self, *arguments):
            with pytest.raises(UserError, match="another process is at work"):
                runner.Runner(planned(tmp_path), Pretended()).run()
            return super().__call__(*arguments)

    assert runner.Runner(planned(tmp_path), Busy()).run() == 0


# ------------------------------------------------------------------ the command line


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """typed(module, *flags) -> the Plan that the command would run."""
    def make(module, *given):
        before = set(flags.FLAGS)
        monkeypatch.setattr(command_line, "Runner", lambda plan: SimpleNamespace(run=lambda: plan))
        try:
            command_line.define_own_flags(module.NAME, module.MINUTES)
            flags.FLAGS(["command", f"--checkpoint_dir={tmp_path}", *given])
            return module.main(None)
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
    return make


def test_metrics_are_those_that_the_data_has(typed, folder, monkeypatch):
    monkeypatch.setattr(features, "of_flags", lambda flags: None)
    of_flowers = typed(ablation, "--inception=F", "--minutes=3")
    assert of_flowers.metrics == ablation.METRICS and of_flowers.minutes == 3
    assert of_flowers.folder.endswith("/ablation") and of_flowers.size == 256
    mine = typed(ablation, "--inception=F", "--dataset=folder", f"--data_dir={folder}")
    assert mine.metrics == ("kid", "diversity", "r_precision")
    assert mine.base["data_dir"] == folder


def typed_recipes(typed, *given):
    flags.DEFINE_enum("stage", "1", ["1", "2", "both"], "")
    flags.DEFINE_enum("onto", "preset", ["preset", "paper"], "")
    try:
        return typed(recipes, "--metrics=attribute_accuracy", *given)
    finally:
        for name in ("stage", "onto"):
            delattr(flags.FLAGS, name)


@pytest.mark.parametrize("stage", ["2", "both"])
def test_recipes_of_stage_2_take_its_flags_and_the_sketches_do_not(typed, stage):
    made = typed_recipes(typed, f"--stage={stage}", "--unconditional_head", "--sketch_weight=3")
    stages = {variant.stage: made.config(variant) for variant in made.trained()}
    assert stages[2].sketch_weight == 3 and stages[2].unconditional_head
    assert stages[1].sketch_weight == 0 and "stage" not in made.of_stage1()


def test_rows_that_the_batch_does_not_fit_are_said_before_anything_is_trained(typed, tmp_path):
    with pytest.raises(UserError, match="modern: --minibatch_std=4 does not .*name the others in "):
        typed_recipes(typed, "--batch_size=20")
    assert list(tmp_path.iterdir()) == []
    fits = typed_recipes(typed, "--batch_size=20", "--variants=paper,preset")
    assert len(fits.rows()) == 2


@pytest.mark.parametrize("given, words", [
    (["--text_once"], "--text_once=True is what this experiment varies"),
    (["--metrics=beauty"], "--metrics=beauty is unknown"),
    (["--metrics=fid"], "--metrics=fid needs the weights"),
    (["--inception=/none.pth"], "/none.pth cannot be read"),
    (["--metrics=attribute_accuracy", "--dataset=folder"], "not --dataset=folder"),
    (["--metrics=r_precision", "--text_encoder=/nowhere"], "trained here"),
    (["--metrics=attribute_accuracy", "--resize=clean"], "--resize=clean has no use with"),
    (["--embedding_dim=0"], "--embedding_dim=0 trains without text"),
    (["--variants=all"], "--variants=all is unknown; choose of stackgan-128-ca-once, "),
    (["--batch_size=1"], "--batch_size=1 is out of range"),
    (["--run=../x"], "no folder name"),
])
def test_mistakes_are_refused_before_anything_is_made(typed, tmp_path, given, words):
    with pytest.raises(UserError, match=words):
        typed(ablation, "--run=x", *given)
    assert not (tmp_path / "x").exists()


# ------------------------------------------------------------------ the whole of it


def test_help_lists_the_flags():
    said = command_here("experiments.ablation", "--help", check=False).stdout
    for flag in ("--minutes", "--[no]shuffle_captions", "--inception", "--data_dir"):
        assert f"\n  {flag}:" in said


@pytest.mark.slow
@pytest.mark.skipif(not efficientnet_lite0.find_weights(), reason="the extra metrics is missing")
def test_tiny_experiment(tmp_path, folder, capsys):
    """Eight processes: text encoder, step times, two trainings, their scores and pictures."""
    base = {name: value for name, value in TINY.items() if name not in plan.OWN}
    base |= {"dataset": "folder", "data_dir": folder, "precomputed_embeddings": False}
    sketch = Variant("sketch", 1, {"image_size": 16}, 0.5, row=("Stage-I", "yes"))
    variants = (sketch, Variant("no_ca", 2, {"image_size": 32, "text_once": True}, 0.5, sketch,
                                ("StackGAN", "yes")))
    tiny = Plan("tiny", str(tmp_path / "tiny"), ("method", "CA"), variants, base, steps=4,
                metrics=("kid",), count=4, size=32)
    assert runner.Runner(tiny).run() == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "[1/6] sketch-seed0: train stage 1, 2 steps" in said
    text = (tmp_path / "tiny/table.md").read_text()
    assert text.count("kid_efficientnet_lite0") == 1 and "| StackGAN | yes | 2 + 2 |" in text
    sheet = Image.open(tmp_path / "tiny/contact_sheet.png")
    assert sheet.width > 6 * 32 and sheet.height > 2 * 32
    times = json.loads((tmp_path / "tiny/step_times.json").read_text())
    assert all(len(one["rounds"]) == step_times.ROUNDS for one in times.values())
    again = Pretended()
    assert runner.Runner(tiny, again).run() == 0 and not again.calls
