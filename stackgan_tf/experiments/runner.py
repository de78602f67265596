"""Does an experiment: each training and its scores by the ordinary commands, one after the other.

Everything lies in the experiment's folder: a run for each variant and seed, with the log of its
commands; experiment.json, the settings; step_times.json; metrics.json, what is measured;
results.json, what is done; table.md, table.png and contact_sheet.png. The same command goes on
where it was stopped or killed.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from stackgan_tf import attribute_judge, checkpoint, processes, score_report
from stackgan_tf.config import PLACES, UserError, as_flags
from stackgan_tf.disk import write_whole
from stackgan_tf.experiments import table
from stackgan_tf.experiments.plan import (
    TEXT,
    Plan,
    Variant,
    budget,
    differences,
    steps_of,
)
from stackgan_tf.run_folder import Part, lock
from stackgan_tf.scores import OF_NETWORK

# parts of a variant: seconds it takes beside a training's steps, before one has been done
PARTS = {"train": 30.0, "evaluate": 60.0, "sample": 20.0}


class Stopped(Exception):
    """Ctrl-C or SIGTERM; its argument is the exit code."""


def call(module: str, flags: list[str], log: str) -> int:
    """Runs `python -m stackgan_tf.MODULE`, its output added to a file; returns its exit code.

    Ctrl-C and SIGTERM are passed on, so that a training saves a checkpoint; then raises Stopped.
    """
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        code, received = processes.run([sys.executable, "-m", f"stackgan_tf.{module}", *flags],
                                       stdout=file, stderr=subprocess.STDOUT)
    if received:
        raise Stopped(128 + received)
    return code


class Runner:
    """An experiment in its folder.

    Args:
        call: (module, flags, log) -> exit code.
    """

    def __init__(self, plan: Plan, call: Callable = call):
        self.plan, self.call = plan, call
        self.runs = {}  # {run: what is known of it}, see `_entry`
        self.times = {}  # {variant: seconds a step}
        self.metrics = plan.metrics  # less what the data has too little for
        self.beside = {part: [] for part in PARTS}  # seconds that each took beside its steps

    def run(self) -> int:
        """Does what is not done yet; returns the exit code, 1 if anything failed."""
        try:
            self._open()
            if not self._prepare():
                return 1
            return self._do_all()
        except Stopped as stopped:
            print("stopped; the same command goes on from there.", flush=True)
            return stopped.args[0]

    # ------------------------------------------------------------------ the folder

    def path(self, *names: str) -> str:
        return os.path.join(self.plan.folder, *names)

    def _read(self, name):
        try:
            with open(self.path(name), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{self.path(name)} is damaged ({error}); restore it, or choose "
                            "another --run.") from error

    def _write(self, name, value):
        write_whole(self.path(name), (json.dumps(value, indent=2) + "\n").encode())

    def _open(self):
        """Takes the folder; UserError if it belongs to other settings, or to another process."""
        plan, before = self.plan, self._read("experiment.json")
        settings = plan.settings()
        if before and (found := differences(before, settings)):
            raise UserError(f"{plan.folder} was made with other settings: {', '.join(found)}; "
                            "repeat those, or choose another --run.")
        os.makedirs(plan.folder, exist_ok=True)
        self._lock = lock(self.path("lock"), f"another process is at work in {plan.folder}; wait "
                          "for it, or choose another --run.")
        self._take_classifier()
        self.runs = self._read("results.json").get("runs", {})
        if before and before.get("scoring") != settings["scoring"]:
            print("the scores are made again, as these flags say; no training is", flush=True)
            for entry in self.runs.values():
                entry.pop("records", None)
            self._save()
        for some in ("variants", "resolved"):
            settings[some] = {**before.get(some, {}), **settings[some]}
        options = {variant.name: plan.options(variant) for variant in plan.trained()}
        self._write("experiment.json",
                    {**settings, "text_encoder": self.text_encoder, "options": options})

    def _take_classifier(self):
        """The one that reads attributes in --checkpoint_dir, if there is one: minutes saved."""
        theirs, own = (os.path.join(folder, attribute_judge.FOLDER) for folder in (
            os.path.dirname(self.plan.folder), self.plan.folder))
        if os.path.exists(theirs) and not os.path.exists(own):
            checkpoint.copy_directory(theirs, own)

    def _save(self):
        self._write("results.json", {"settings": self.plan.settings(), "runs": self.runs})

    # ------------------------------------------------------------------ before the trainings

    @property
    def text_encoder(self) -> str:
        """Path of the one that all share; "" where the data brings embeddings."""
        if self.plan.base.get("precomputed_embeddings"):
            return ""
        return self.plan.base.get("text_encoder") or self.path(TEXT, "text_encoder", "saved_model")

    def _prepare(self):
        """The text encoder and the step times; says whether they are there."""
        text, begin = self.text_encoder, time.monotonic()
        if text and not os.path.exists(os.path.join(text, "saved_model.pb")):
            options = {**self.plan.of_stage1(), "run": TEXT, "checkpoint_dir": self.plan.folder}
            if not self._step("text encoder of all", "train_text_encoder", options,
                              self.path(TEXT, "train_text_encoder.log"), begin):
                return False
        scoring, trained = self.plan.settings()["scoring"], self.plan.trained()
        new = {variant.name for variant in trained} - set(self._read("step_times.json"))
        if new or self._read("metrics.json").get("scoring") != scoring:
            where, run = os.path.split(self.plan.folder)
            if not self._step("step times of all variants, measured in turn" if new else
                              "which metrics the data has enough for",
                              "experiments.step_times", {"run": run, "checkpoint_dir": where},
                              self.path("step_times.log"), begin):
                return False
        self.metrics = self._read("metrics.json")["metrics"]
        if left_out := [name for name in self.plan.metrics if name not in self.metrics]:
            print(f"not measured, for the data is too small (see {self.path('step_times.log')}): "
                  f"{', '.join(left_out)}", flush=True)
        self.times = {name: one["seconds"] for name, one in self._read("step_times.json").items()}
        return True

    def _step(self, what, module, options, log, begin):
        print(f"{what} ({log})", flush=True)
        if code := self.call(module, as_flags(options), log):
            print(f"failed: {last_words(log, code)}", flush=True)
        return not code

    # ------------------------------------------------------------------ the trainings

    def _do_all(self):
        jobs = [(variant, seed, part) for seed in range(self.plan.seeds)
                for variant in self.plan.trained() for part in (PARTS if variant.row else ["train"])
                if part != "sample" or seed == 0]
        for number, (variant, seed, part) in enumerate(jobs, 1):
            if self._is_done(variant, seed, part):
                continue
            place = f"[{number}/{len(jobs)}] {self.run_name(variant, seed)}:"
            self._do(variant, seed, part, f"{place} {part}", self._seconds_left(jobs[number - 1:]))
            self._save()
            if part != "train" or self._entry(variant, seed).get("errors"):
                table.write(self.plan, self.runs, self.path())
        table.write(self.plan, self.runs, self.path())
        wanted = dict.fromkeys(self.run_name(variant, seed) for variant, seed, _ in jobs)
        failed = [name for name in wanted if self.runs[name].get("errors")]
        made = [self.path("table.md"), *(name for name in ("table.png", "contact_sheet.png")
                                         if os.path.exists(self.path(name)))]
        print(f"done: {', '.join(made)}" + f"; failed: {', '.join(failed)}" * bool(failed),
              flush=True)
        return 1 if failed else 0

    def run_name(self, variant: Variant, seed: int) -> str:
        return f"{variant.name}-seed{seed}"

    def _entry(self, variant, seed):
        """What is known of a run: `variant`, `seed`, `steps` (of the stage), `step_seconds`,
        `train_seconds` (of all its commands), `trained`, `records` (of evaluate) and `errors`,
        {part: why it failed}."""
        return self.runs.setdefault(self.run_name(variant, seed), {
            "variant": variant.name, "seed": seed, "trained": False, "train_seconds": 0.0})

    def _part(self, variant, seed):
        return Part(self.plan.folder, self.run_name(variant, seed), f"stage{variant.stage}")

    def _is_done(self, variant, seed, part):
        entry = self._entry(variant, seed)
        if part == "evaluate":
            return "records" in entry
        if part == "sample":
            return bool(table.sheet_pictures(self.path(), self.run_name(variant, seed)))
        return entry["trained"] and self._part(variant, seed).is_exported()

    def _seconds_left(self, jobs):
        """As the measured step times say, and as long as earlier ones took beside their steps."""
        return sum(self._seconds_of_steps(variant, part)
                   + statistics.fmean(self.beside[part] or [PARTS[part]])
                   for variant, seed, part in jobs if not self._is_done(variant, seed, part))

    def _seconds_of_steps(self, variant, part):
        return self._steps(variant) * self.times[variant.name] if part == "train" else 0.0

    def _steps(self, variant):
        return steps_of(self.plan, variant, self.times[variant.name])

    def _do(self, variant, seed, part, what, left):
        entry, begin = self._entry(variant, seed), time.monotonic()
        if reason := self._missing(variant, seed, part):
            entry.setdefault("errors", {})[part] = reason
            print(f"{what}: left out, {reason}", flush=True)
            return
        more = ""
        if part == "train":
            steps = self._steps(variant)
            entry |= {"steps": steps, "step_seconds": self.times[variant.name]}
            more = (f" stage {variant.stage}, {steps:,} steps, "
                    f"{duration(self._seconds_of_steps(variant, part))}")
        print(f"{what}{more}; {duration(left)} left in all", flush=True)
        log = self.path(self.run_name(variant, seed), f"{part}.log")
        module, options = getattr(self, f"_{part}")(variant, seed)
        code = self.call(module, as_flags(options), log)
        seconds = time.monotonic() - begin
        entry.setdefault("errors", {}).pop(part, None)
        if part == "train":
            entry["train_seconds"] += seconds
        if code:
            entry["errors"][part] = f"{part}: {last_words(log, code)}"
            print(f"{what}: failed, {last_words(log, code)} ({log})", flush=True)
            return
        # less than nothing: of a training that went on
        self.beside[part].append(max(0.0, seconds - self._seconds_of_steps(variant, part)))
        if part == "train":
            entry["trained"] = True
        elif part == "evaluate":
            records = score_report.read_lines(self._part(variant, seed).metrics)
            entry["records"] = records[-len(self.metrics):]
            print(f"{what}: {table.in_words(entry['records'])}", flush=True)

    def _missing(self, variant, seed, part):
        """What must be there before, and is not; "" if all is."""
        if part != "train":
            done = self._is_done(variant, seed, "train")
            errors = self._entry(variant, seed).get("errors", {})
            return "" if done else errors.get("train", "it is not trained")
        if variant.below and not self._is_done(variant.below, seed, "train"):
            return f"{self.run_name(variant.below, seed)}, its Stage-I, is not trained"
        return ""

    def _place(self, variant, seed):
        return {"stage": variant.stage, "run": self.run_name(variant, seed),
                "checkpoint_dir": self.plan.folder}

    def _train(self, variant, seed):
        options = {**budget(self.plan, variant, self._steps(variant)),
                   **self._place(variant, seed), "seed": seed}
        if self.text_encoder:
            options["text_encoder"] = self.text_encoder
        if variant.below:
            options["stage1"] = self._part(variant.below, seed).saved_model
        return "train", options

    def _evaluate(self, variant, seed):
        plan = self.plan
        places = {name: plan.base[name] for name in PLACES if name in plan.base}
        # the data may have had too little for the metrics that read a network
        network = plan.scoring if {*self.metrics} & {*OF_NETWORK} else {}
        return "evaluate", {**self._place(variant, seed), "metrics": ",".join(self.metrics),
                            "count": plan.count, "size": plan.size, **places, **network}

    def _sample(self, variant, seed):
        shown = ({"captions_file": self.path("captions.txt")} if self.text_encoder else
                 {"embeddings": self.path("captions.npy")})
        output = os.path.dirname(table.sheet_path(self.path(), self.run_name(variant, seed), 0))
        shutil.rmtree(output, ignore_errors=True)  # of one that was killed; sample writes over none
        return "sample", {**self._place(variant, seed), "count": 1, **shown, "output": output}


def last_words(log: str, code: int) -> str:
    """Why a command failed: its last error line, or else its last line."""
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    said = errors[-1].removeprefix("error: ") if errors else lines[-1] if lines else "no output"
    return said[:300] if code < 128 else f"it was killed by signal {code - 128}"


def duration(seconds: float) -> str:
    """3 h 5 min, 12 min, 40 s."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
