"""A run on disk: checkpoints/<run>/{text_encoder,stage1,stage2}/, each with its config.json."""

import dataclasses
import hashlib
import json
import os
import re
import shlex

import numpy as np
import tensorflow as tf

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from stackgan_tf import disk
from stackgan_tf.config import (
    CHECKPOINT,
    FREE,
    PATHS,
    PLACES,
    REPLACED,
    Config,
    UserError,
    check_run,
)
from stackgan_tf.messages import reason
from stackgan_tf.saved_parts import refuse_pattern

PARTS = ("text_encoder", "stage1", "stage2")
CONFIG, TRAINED_ON = "config.json", "trained_on.txt"


class Part:
    """One part of a run: its folder and the paths in it."""

    def __init__(self, checkpoint_dir: str, run: str, name: str):
        self.name = name
        self.path = os.path.join(checkpoint_dir, run, name)
        self.settings = os.path.join(self.path, CONFIG)
        self.checkpoints = os.path.join(self.path, "ckpt")
        self.saved_model = os.path.join(self.path, "saved_model")
        self.image_encoder = os.path.join(self.path, "image_encoder")  # of a text encoder
        self.logs = os.path.join(self.path, "logs")
        self.samples = os.path.join(self.path, "samples")
        self.metrics = os.path.join(self.path, "metrics.jsonl")
        self.trained_on = os.path.join(self.path, TRAINED_ON)

    def is_exported(self) -> bool:
        return tf.io.gfile.exists(os.path.join(self.saved_model, "saved_model.pb"))

    def fingerprint(self) -> str:
        """Tells this export from any other, weights included; "" if there is none."""
        return self.fingerprint_of(self.saved_model)

    @staticmethod
    def fingerprint_of(saved_model: str) -> str:
        """The same of a SavedModel's folder."""
        for name in ("fingerprint.pb", "saved_model.pb"):  # an older TensorFlow writes no first
            path = os.path.join(saved_model, name)
            if tf.io.gfile.exists(path):
                with tf.io.gfile.GFile(path, "rb") as file:
                    return hashlib.sha256(file.read()).hexdigest()[:16]
        return ""

    def remedy(self) -> str:
        """How a SavedModel of it that is damaged or gone is had again."""
        if not self.has_checkpoints():
            return "put it back whole"
        text = self.name == "text_encoder"
        command = "train_text_encoder" if text else f"train --stage={self.name[-1]}"
        return (f"python -m stackgan_tf.{command}, with the flags of its training"
                f"{' and the same data' * text}, exports it again from its checkpoint")

    def is_begun(self) -> bool:
        """Whether something was made that other settings would spoil."""
        return self.is_exported() or self.has_checkpoints()

    def has_checkpoints(self) -> bool:
        return tf.io.gfile.isdir(self.checkpoints) and any(
            CHECKPOINT.fullmatch(name) for name in tf.io.gfile.listdir(self.checkpoints))

    def refuse_without_checkpoint(self) -> None:
        """UserError if training would start anew over a SavedModel: an imported one has nothing
        that training can go on from."""
        if self.is_exported() and not self.has_checkpoints():
            raise UserError(f"{self.saved_model} is there and no checkpoint to go on from (it was "
                            "imported, or they were removed); training would write over it. Choose "
                            "another --run, or move it away.")

    def read_config(self) -> dict | None:
        """The settings that the part was made with, None if it was never begun."""
        path = self.settings
        if not tf.io.gfile.exists(path):
            return None
        try:
            with tf.io.gfile.GFile(path) as file:
                stored = json.load(file, parse_constant=_refuse_constant)
            check_types(stored)
            return stored
        except (ValueError, RecursionError, tf.errors.OpError) as error:
            _refuse_forbidden(path, error)
            raise UserError(f"{path} is damaged ({reason(error)}); restore it, or move the folder "
                            f"{self.path} away to start over.") from error

    def known_config(self) -> dict | None:
        """The same; UserError if there are checkpoints of which nothing says how they were made."""
        before = self.read_config()
        if not before and self.has_checkpoints():
            raise UserError(f"{self.settings} is gone or empty, so what the checkpoints beside it "
                            "were made with is not known; restore it, or move the folder "
                            f"{self.path} away to start over.")
        return before

    def config(self, *needed: str) -> Config | None:
        """The same as a Config; a field that an older version did not write has its default, with
        which nothing is other than before there was such a field.

        Returns None if the part was never begun, or does not say what `needed` names.
        """
        stored = self.read_config()
        if stored is None or set(needed) - set(stored):
            return None
        known = {field.name for field in dataclasses.fields(Config)} & set(stored)
        return Config(**{name: stored[name] for name in known})

    def open(self, config: Config, relevant: tuple[str, ...] | None = None,
             data: str | None = None) -> None:
        """Makes the folder, or checks that it was made with the same settings.

        Args:
            relevant: the fields that this part depends on; all but config.FREE when None.
            data: what build.data_note says of the data that is trained on.

        Raises UserError listing each difference: going on with other settings would spoil the
        run, starting over would lose it.
        """
        self._make()
        self._take()
        self._tidy()
        before = self.check(config, relevant, data)
        self._write({**before, **dataclasses.asdict(config), **({"data": data} if data else {})})

    def check(self, config: Config, relevant: tuple[str, ...] | None = None,
              data: str | None = None) -> dict:
        """Compares the named settings with those that the part was made with; returns these.

        A part that stopped before its first checkpoint binds nobody. Where the data lies is free
        as long as it is the same data; without `data`, which is read later, it is not asked. Other
        data in the same place is said and used: pictures may have been added. So are other pixels
        alone: the libraries of another machine may decode a picture a little differently.
        """
        before = self.known_config() or {}
        if not before or not self.is_begun():
            return before
        now, was = dataclasses.asdict(config), dataclasses.asdict(self.config())
        names = relevant or [name for name in now if name not in FREE]
        noted = before.get("data")
        same = noted is not None and (data is None or alike(noted, data, pixels=False))
        names = [name for name in names if not (same and name in PLACES)]
        differing = [name for name in names if not (
            same_path(was[name], now[name]) if name in PATHS else was[name] == now[name])]
        differences = ", ".join(f"--{name}={now[name]} (was {was[name]})" for name in differing)
        if differing and noted is not None and data is not None and {*differing} <= {*PLACES}:
            raise UserError(f"{self.path} was made with other data ({noted} then, {data} now) in "
                            f"another place: {differences}; give it that data, wherever it is, or "
                            "choose another --run.")
        if differing:
            raise UserError(f"{self.path} was made with other settings: {differences}; repeat "
                            "those, or choose another --run.")
        if noted is not None and data is not None and not alike(noted, data):
            print(f"warning: the data is not what {self.path} was made with ({noted} then, {data} "
                  "now); it goes on with this.", flush=True)
        return before

    def note_data(self, config: Config, data: str) -> None:
        """Notes where the data lies now, and what it is, for the next check."""
        before = self.read_config() or {}
        now = {**before, "data": data, **{name: getattr(config, name) for name in PLACES}}
        if now != before:
            self._write(now)

    def write_trained_on(self, *lists: np.ndarray | None) -> None:
        """Writes down the pictures that the part has learnt from, those of all lists (uint64, as
        pipeline.Examples.kept_keys). If one is not known, nothing is, and an older list goes."""
        if any(keys is None for keys in lists):
            disk.remove_quietly(self.trained_on)
            return
        keys = np.unique(np.concatenate(lists)).tolist()
        self._write_whole(self.trained_on, "".join(f"{key:016x}\n" for key in keys))

    def read_trained_on(self) -> np.ndarray | None:
        """The same, uint64; None if not known."""
        return read_trained_on(self.path)

    def _take(self):
        """Keeps a second process from training the same part at the same time."""
        if "://" not in self.path:
            self._lock = lock(os.path.join(self.path, "lock"), f"another process is training "
                              f"{self.path}; wait for it, or choose another --run.")

    def _tidy(self):
        """Puts away what a killed process left between two renames, or half-written."""
        replaced = [os.path.join(self.checkpoints, name.rstrip("/")[:-len(REPLACED)])
                    for name in (tf.io.gfile.listdir(self.checkpoints) if tf.io.gfile.isdir(
                        self.checkpoints) else ()) if name.rstrip("/").endswith(REPLACED)]
        for path in (self.saved_model, self.image_encoder, os.path.join(self.path, "stage1"),
                     *replaced):
            if tf.io.gfile.exists(path + REPLACED) and not tf.io.gfile.exists(path):
                tf.io.gfile.rename(path + REPLACED, path)
            for left in (path + REPLACED, path + ".tmp"):
                disk.remove_quietly(left)
        for left in tf.io.gfile.glob(os.path.join(self.samples, "step-*.png.tmp")):
            disk.remove_quietly(left)

    def _make(self):
        try:
            disk.make_folders(self.path)
        except disk.ERRORS as error:
            raise UserError(f"cannot make {self.path}: {reason(error)}; choose another "
                            "--checkpoint_dir.") from error

    def _write(self, settings):
        self._write_whole(self.settings, json.dumps(settings, indent=2) + "\n")

    def _write_whole(self, path, text):
        try:
            disk.write_whole(path, text.encode())
        except disk.ERRORS as error:
            raise UserError(f"cannot write in {self.path}: {reason(error)}; choose another "
                            "--checkpoint_dir or make room.") from error


def read_trained_on(folder: str) -> np.ndarray | None:
    """What Part.write_trained_on wrote in a folder, None if nothing; UserError if it is damaged."""
    path = os.path.join(folder, TRAINED_ON)
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
        if not re.fullmatch(r"([0-9a-f]{16}\n)*", text):
            raise ValueError("it holds other lines than 16 hexadecimal digits each")
        return np.array([int(line, 16) for line in text.split()], np.uint64)
    except (ValueError, tf.errors.OpError) as error:
        _refuse_forbidden(path, error)
        raise UserError(f"{path} is damaged ({reason(error)}); restore it, or remove it: then "
                        "scores do not say what was trained on.") from error


def _refuse_forbidden(path, error):
    if disk.is_forbidden(error):
        raise UserError(f"{path} cannot be read (Permission denied); see to the permissions."
                        ) from error


def alike(noted: str, data: str, pixels: bool = True) -> bool:
    """Whether two notes of data (pipeline.Examples.note) agree in all that both tell: an older
    version told less, and pixels are those of a size."""
    def told(note):
        count, *digests = str(note).split(", ")
        return {"count": count, **dict(part.rpartition(" ")[::2] for part in digests)}

    one, other = told(noted), told(data)
    return all(one[name] == other[name] for name in one.keys() & other.keys()
               if pixels or not name.startswith("pixels"))


def check_types(stored) -> None:
    """ValueError if what a config.json holds could not have been written by us."""
    if not isinstance(stored, dict):
        raise ValueError(f"it holds one {type(stored).__name__}, no settings")
    for field in dataclasses.fields(Config):
        value = stored.get(field.name, field.default)
        whole = field.type is float and type(value) is int
        if type(value) is not field.type and not whole:
            raise ValueError(f"{field.name} is {str(value)[:60]!r}, no {field.type.__name__}")


def same_path(one: str, other: str) -> bool:
    """Whether two spellings name one file or folder, seen from here."""
    if "://" in one + other or not (one and other):
        return one == other
    return os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def _refuse_constant(name):
    raise ValueError(f"it holds {name}")


def lock(path: str, taken: str):
    """Locks a file till what is returned is closed, or the process ends; UserError(taken) if
    another process has it. Windows, and some file systems, have no such locks and go without."""
    file = open(path, "w")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UserError(taken) from error
        except OSError:
            pass  # no locks here
    return file


def refuse_unwritable(path: str, flag: str = "--checkpoint_dir", models: bool = True) -> None:
    """UserError if the folder `path` could not be made or written: at the start, not at the end;
    nor one from which the `models` that it is for could not be read."""
    if models:
        refuse_pattern(path)
    if "://" in path:
        return
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise UserError(f"{path} cannot be made: {there} is no folder; choose another "
                        f"{flag}.")
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = f"choose another {flag}"
        if flag == "--checkpoint_dir" and there == os.path.abspath(path):  # what is in it is needed
            remedy = "copy the run to a place of yours and name that by --checkpoint_dir"
        raise UserError(f"{path} cannot be written: {there} is read-only for you; {remedy}, or see "
                        "to the permissions.")


def find_run(checkpoint_dir: str, run: str) -> str:
    """The run's folder; UserError names the runs that are there."""
    check_run(run)
    path = os.path.join(checkpoint_dir, run)
    if not tf.io.gfile.isdir(path):
        runs = []
        if tf.io.gfile.isdir(checkpoint_dir):
            names = (name.rstrip("/") for name in tf.io.gfile.listdir(checkpoint_dir))
            runs = sorted(name for name in names if not name.startswith(".") and any(
                tf.io.gfile.isdir(os.path.join(checkpoint_dir, name, part)) for part in PARTS))
        known = f"there are: {', '.join(runs)}" if runs else "there is none"
        place = flags_of_place(checkpoint_dir, run)
        raise UserError(f"--run={run}: no such run in {checkpoint_dir} ({known}); train one with: "
                        f"python -m stackgan_tf.train --stage=1{place}")
    for folder in (path, *(os.path.join(path, part) for part in PARTS)):
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            raise UserError(f"{folder} cannot be read (Permission denied); see to the permissions.")
    return path


def flags_of_place(checkpoint_dir: str, run: str) -> str:
    """What a command of this run needs to find it: " --run=...", "" where the defaults do."""
    given = {"run": run, "checkpoint_dir": checkpoint_dir}
    return "".join(f" --{name}={shlex.quote(value)}" for name, value in given.items()
                   if value != getattr(Config, name))
