r"""Turns pictures and captions of any number into shards that training streams from disk or gs://.

    python -m stackgan_tf.prepare --dataset=folder --data_dir=DIR --output=OUT
    python -m stackgan_tf.prepare --dataset=webdataset --data_dir='DIR/*.tar' --output=OUT
    python -m stackgan_tf.train --stage=1 --run=mine --dataset=prepared --data_dir=OUT

OUT becomes a TFDS data set (tfds.builder_from_directory(OUT)): TFRecord shards of JPEGs and
captions, shuffled once by --seed, so that any shard is a random sample. All cores work on it. The
same command goes on where the last one was stopped, killed or unplugged; whole shards are kept.
Memory: some 30 bytes a picture besides TensorFlow in each process. A data set other than a folder
and tars is first copied as a whole into OUT, in its own order, and that copy removed at the end.

For a cluster, with apache-beam (`pip install 'stackgan_tf[beam]'`), and with a DIR and an OUT that
all its machines see:

    python -m stackgan_tf.prepare ... --beam_runner=DataflowRunner --beam_options=--project=P \
        --beam_options=--region=R
"""

import dataclasses
import itertools
import json
import math
import os
import shlex
import sys

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import flags

from stackgan_tf import disk, run_folder, shards, sources
from stackgan_tf.config import (
    PLACES,
    Config,
    UserError,
    define_flags,
    given_flags,
    resolve,
    run_cli,
)
from stackgan_tf.messages import printable, reason
from stackgan_tf.progress import Progress, StopSignal

# The flags of Config that say what the pictures are and how they are ordered.
DATA_FLAGS = ("dataset", "data_dir", "image_dir", "captions_dir", "precomputed_embeddings",
              "images_per_class", "max_unreadable", "embedding_dim", "seed")
PLAN = "prepared.json"  # in OUT: the settings, then also what came out
SPLITS = ("train", "test")
PER_SHARD = 2048  # 80 MB of 304x304 pictures: soon made again, and enough to read at once


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command line says."""

    config: Config
    output: str
    max_size: int
    small_size: int
    shards: int
    workers: int
    beam_runner: str
    beam_options: tuple[str, ...]

    def binding(self) -> dict:
        """The settings that what is made depends on."""
        names = [name for name in DATA_FLAGS if name not in ("max_unreadable", "embedding_dim")]
        values = {name: getattr(self.config, name) for name in names}
        return {**values, "max_size": self.max_size, "small_size": self.small_size,
                "shards": self.shards,
                "captions": self.config.embedding_dim > 0}


class Stopped(Exception):
    """Ctrl-C, SIGTERM or SIGHUP."""


def prepare(settings: Settings) -> int:
    """Prepares the set, or goes on with it; returns the exit code."""
    if settings.beam_runner:
        _beam()
    folder = os.path.join(settings.output, shards.PROGRESS)
    before = _before(settings)
    lock = None
    with StopSignal() as stop:
        try:
            if "whole" in before:
                _survey(settings, before, stop)  # to see that the input is still the same
                disk.remove_quietly(folder)  # one that was killed while it did so
                print(f"{settings.output} is whole: {_counts(before['pictures'])}; nothing to do.")
                return 0
            new = not tf.io.gfile.exists(settings.output)
            lock = _take(settings.output, folder)  # held to the end
            if lock is not None:
                _remove_unfinished(settings.output, folder)
            try:
                plan, bad = _plan(settings, before, stop)
            except UserError:
                _leave_nothing(settings, folder, new)
                raise
            done = _make(settings, plan, bad, stop)
        except Stopped:
            print("stopped; what is whole is kept, and the same command goes on.", flush=True)
            return 128 + stop.number
    _finish(settings, plan, done, bad)
    if lock is not None:
        lock.close()
    disk.remove_quietly(folder)
    return 0


def _leave_nothing(settings, folder, new):
    """Removes the folders that a set of bad input would be made in, unless it was begun before."""
    if not tf.io.gfile.exists(os.path.join(settings.output, PLAN)):
        tf.io.gfile.rmtree(folder)
        if new:
            tf.io.gfile.rmtree(settings.output)


def _before(settings):
    """What OUT says of itself, {} if it is new; UserError if it was made otherwise."""
    output, path = settings.output, os.path.join(settings.output, PLAN)
    if not tf.io.gfile.exists(path):
        names = tf.io.gfile.listdir(output) if tf.io.gfile.isdir(output) else []
        if [name for name in names if name.rstrip("/") != shards.PROGRESS
                and not _is_unfinished(name)]:
            raise UserError(f"--output={output} holds other files; choose a new folder.")
        return {}
    before, now = sources.read_json(path, "settings"), settings.binding()
    if before is None or not isinstance(before["settings"], dict):
        raise UserError(f"{path} is damaged; choose another --output.")
    was = before["settings"]
    differences = [f"--{name}={now.get(name)} (was {was.get(name)})"
                   for name in {**was, **now} if now.get(name) != was.get(name) and not (
                       name in PLACES and isinstance(was.get(name), str)
                       and run_folder.same_path(was[name], now[name]))]
    if differences:
        raise UserError(f"--output={output} was begun with other settings: "
                        f"{', '.join(differences)}; repeat those, or choose another --output.")
    return before


def _take(output, folder):
    """Makes the folder and keeps a second process out of it."""
    try:
        tf.io.gfile.makedirs(folder)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot make --output={output}: {reason(error)}; choose another."
                        ) from error
    if "://" in output:
        return None
    return run_folder.lock(os.path.join(folder, "lock"),
                           f"another process is preparing {output}; wait for it.")


def _is_unfinished(name):
    return name.startswith(PLAN) and name.endswith(".tmp")


def _remove_unfinished(output, folder):
    """What processes that were killed left half-written: it would stay till the set is whole."""
    for place, is_left in ((output, _is_unfinished), (folder, lambda name: name.endswith(".tmp")),
                           (os.path.join(folder, "spool"), lambda name: name.endswith(".tmp"))):
        for name in tf.io.gfile.listdir(place) if tf.io.gfile.isdir(place) else ():
            if is_left(name):
                disk.remove_quietly(os.path.join(place, name))


def _survey(settings, before, stop):
    """Looks through the input: (Survey, Plan without numbers); UserError if it has changed."""
    config, output = settings.config, settings.output

    def report(what):
        def show(count):
            if stop.number:
                raise Stopped
            if sys.stderr.isatty():
                print(f"\r{what} {count:,}", end="", file=sys.stderr, flush=True)
        return show

    plan = shards.Plan(
        output=output, kind=config.dataset, data_dir=config.data_dir,
        with_text=config.embedding_dim > 0, max_size=settings.max_size,
        small_size=settings.small_size if settings.small_size < settings.max_size else 0,
        has_labels=False, class_names=[], embedding_dim=0, pictures={}, shards={})
    print(f"looking through --dataset={config.dataset} --data_dir={config.data_dir!r}", flush=True)
    try:
        if config.dataset in ("folder", "webdataset"):
            source = plan.source()
            found = source.survey(report("pictures"))
            plan = dataclasses.replace(plan, tars=getattr(source, "tars", ()))
        else:
            found, plan = _spool(settings, plan, before, report)
    except ValueError as error:
        raise UserError(str(error)) from error
    if "train" not in found.rows:
        raise UserError(f"--data_dir={config.data_dir} holds no picture to train on"
                        f"{_first(found.unreadable)}; add some.")
    if before.get("input", found.digest) != found.digest:
        raise UserError(f"--data_dir={config.data_dir} has changed since --output={output} was "
                        "begun (lines, or sizes or times of files); choose another --output.")
    return found, plan


def _plan(settings, before, stop):
    """The Plan, and {file: reason} of the pictures already seen to be useless."""
    config, (found, plan) = settings.config, _survey(settings, before, stop)
    _limit(found.unreadable, config.max_unreadable)
    pictures = {split: len(rows) for split, rows in found.rows.items()}
    plan = dataclasses.replace(
        plan, has_labels=plan.has_labels or bool(found.class_names),
        class_names=found.class_names, pictures=pictures,
        shards={split: _shard_count(count, settings.shards) for split, count in pictures.items()})
    for number, (split, rows) in enumerate(found.rows.items()):
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence(
            [config.seed, number]))).permutation(len(rows))
        plan.write_index(split, rows[order])
    if not before:
        _write_plan(settings, {"settings": settings.binding(), "input": found.digest})
    return plan, dict(found.unreadable)


def _shard_count(pictures, asked):
    # a few for small sets as well: they are what the processes share
    return min(pictures, asked or max(math.ceil(pictures / PER_SHARD), min(8, pictures // 128), 1))


def _spool(settings, plan, before, report):
    """Copies any other data set into OUT, where each picture can be reached."""
    # Here, since they import Keras, which the worker processes then need not.
    from stackgan_tf import build, spooling

    config, plan = settings.config, dataclasses.replace(plan, kind="spool")
    spool, digest = plan.source(), "a copy"  # till it is whole it sees itself what has changed
    if "whole" in before:
        return sources.Survey({"train": np.zeros((1, 3), np.int64)}, [], digest), plan
    splits, kind = spooling.kind_of(config)
    plan = dataclasses.replace(plan, **kind)
    tf.io.gfile.makedirs(spool.path)
    if not before:  # the copy depends on the settings already
        _write_plan(settings, {"settings": settings.binding(), "input": digest})
    for split in splits:
        spool.write(split, build.load_elements(config, split), spooling.encoder(plan),
                    settings.workers, report(f"copying {split}:"))
    rows = {split: spool.rows(split) for split in SPLITS}
    rows = {split: places for split, places in rows.items() if len(places)}
    return sources.Survey(rows, [], digest), plan


def _make(settings, plan, bad, stop):
    """Makes the shards that are missing; {(split, number): report} of all."""
    tasks = [(split, number) for split, count in plan.shards.items() for number in range(count)]
    done = {task: report for task in tasks if (report := shards.read_report(plan, *task))}
    for report in done.values():
        bad |= report["unreadable"]
    _limit(bad, settings.config.max_unreadable)
    if done:
        print(f"going on: {len(done)} of {len(tasks)} shards are there", flush=True)
    missing = [task for task in tasks if task not in done]
    print(f"{_counts(plan.pictures)} in {len(tasks)} shards to {settings.output}", flush=True)
    if settings.beam_runner:
        _run_beam(settings, plan, missing)
    else:
        count, progress = len(done), Progress(
            "shards", len(done), len(tasks), 1, sum(plan.pictures.values()) / len(tasks))
        try:
            for report in shards.run(plan, missing, settings.workers):
                if stop.number:
                    raise Stopped
                if report is None:
                    continue
                bad |= report["unreadable"]
                _limit(bad, settings.config.max_unreadable)
                count += 1
                progress.update(count, {"unreadable": len(bad)})
        except UserError:  # too many of the pictures
            raise
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{error}; whole shards are kept. Perhaps fewer --workers than "
                            f"{settings.workers}.") from error
        finally:
            progress.close()
    for task in missing:
        done[task] = shards.read_report(plan, *task)
        if done[task] is None:
            raise UserError(f"{plan.shard_path(*task)} is not as it was written; see to the disk, "
                            "then give the same command again.")
        bad |= done[task]["unreadable"]
    _limit(bad, settings.config.max_unreadable)
    return done


def _limit(bad, most):
    if len(bad) > most:
        names = "; ".join(f"{file} ({reason.rstrip('.')})"
                          for file, reason in itertools.islice(bad.items(), 3))
        raise UserError(f"{len(bad)} pictures cannot be read (--max_unreadable={most}): {names}"
                        f"{'; ...' if len(bad) > 3 else ''}. Repair them and choose another "
                        "--output, or raise --max_unreadable.")


def _first(bad):
    """One of {file: reason}, for a message; "" of none."""
    return next((f": {file} ({reason.rstrip('.')})" for file, reason in bad.items()), "")


def _counts(pictures):
    return ", ".join(f"{count:,} {split}" for split, count in pictures.items()) + " pictures"


def _finish(settings, plan, done, bad):
    """Writes TFDS's metadata and, last, that the set is whole."""
    infos, pictures, captions, without, squares = [], {}, {}, {}, {}
    for split, count in plan.shards.items():
        reports = [done[split, number] for number in range(count)]
        lengths = [report["count"] for report in reports]
        pictures[split] = sum(lengths)
        captions[split] = sum(report["captions"] for report in reports)
        # what training then need not look for in each picture; an older report has none of it
        without[split] = sum(report.get("without_caption", 0) for report in reports)
        sides = [set(report.get("squares", {}).items()) for report in reports if report["count"]]
        # sorted: the same command shall make the same file, by whose words a run knows its data
        squares[split] = dict(sorted(set.intersection(*sides))) if sides else {}
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths,
                                         num_bytes=sum(report["bytes"] for report in reports)))
    if not pictures["train"]:
        raise UserError(f"--data_dir={settings.config.data_dir}: no picture to train on can be read"
                        f"{_first(bad)}. Repair them and choose another --output.")
    tfds.folder_dataset.write_metadata(
        data_dir=settings.output, features=plan.features(), split_infos=infos, check_data=False,
        description="Pictures and captions, prepared by stackgan_tf.prepare.")
    disk.sync_all(settings.output)  # before it is called whole
    _write_plan(settings, {**_before(settings), "whole": True, "pictures": pictures,
                           "captions": captions, "without_caption": without, "squares": squares,
                           "unreadable": bad})
    for file, why in itertools.islice(bad.items(), 20):
        print("left out", printable(f"{file}: {why}"))
    if len(bad) > 20:
        print(f"... and {len(bad) - 20} more; all are listed in {PLAN}")
    size = sum(report["bytes"] for report in done.values())
    print(f"done: {settings.output}, {_counts(pictures)}, {size / 2**20:,.1f} MiB. Train with "
          f"--dataset=prepared --data_dir={shlex.quote(settings.output)}", flush=True)


def _write_plan(settings, values):
    disk.write_whole(os.path.join(settings.output, PLAN),
                     (json.dumps(values, indent=2) + "\n").encode(), shared=True)


def _beam():
    try:
        import apache_beam
    except ImportError as error:
        raise UserError("--beam_runner needs apache-beam (pip install 'stackgan_tf[beam]'); "
                        "leave it out to use this machine's cores.") from error
    return apache_beam


def _run_beam(settings, plan, tasks):
    """The same shards by Beam: each is a task of its own."""
    beam = _beam()
    options = beam.options.pipeline_options.PipelineOptions(
        [f"--runner={settings.beam_runner}", *settings.beam_options])
    with beam.Pipeline(options=options) as pipeline:
        _ = (pipeline | beam.Create(tasks) | beam.Reshuffle()
             | beam.Map(lambda task: shards.write_shard(plan, *task)))


def main(argv):
    del argv
    given, own = given_flags(), flags.FLAGS
    if not own.output:
        raise UserError("--output is missing; give the folder to make.")
    # 256 with this margin: other data sets may hand out pictures of this size
    config = resolve({**given, "image_size": 256, "crop_margin": 0.1875})
    for name, low in (("max_size", 16), ("small_size", 0), ("shards", 0), ("workers", 0)):
        if getattr(own, name) < low:
            raise UserError(f"--{name}={getattr(own, name)} is out of range; give at least {low}.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    settings = Settings(config, os.path.expanduser(own.output), own.max_size, own.small_size,
                        own.shards, own.workers or cores, own.beam_runner, tuple(own.beam_options))
    try:
        return prepare(settings)
    except tf.errors.OpError as error:  # a full disk, a bucket out of reach
        raise UserError(f"--output={own.output}: {reason(error)}; what is whole is kept, and the "
                        "same command goes on.") from error


if __name__ == "__main__":
    define_flags(DATA_FLAGS)
    flags.DEFINE_string("output", "", "folder to make, local or gs://")
    flags.DEFINE_integer("max_size", 304, "pictures are shrunk till their shorter side has so "
                         "many pixels at most")
    flags.DEFINE_integer("small_size", 76, "side of a copy beside each picture, which Stage-I "
                         "reads where it is the size it wants (image_size and crop_margin: 76 at "
                         "the paper's), five times as fast; 0: none")
    flags.DEFINE_integer("shards", 0, f"shards of each split; 0: one for {PER_SHARD} pictures")
    flags.DEFINE_integer("workers", 0, "processes; 0: one for each core")
    flags.DEFINE_string("beam_runner", "", "a Beam runner such as DirectRunner or DataflowRunner; "
                        "\"\": this machine's cores, without Beam")
    flags.DEFINE_multi_string("beam_options", [], "an option for Beam, such as --project=P")
    run_cli(main)
