"""Checkpoints that are complete or absent, and SavedModels that are replaced, never half-written.

A checkpoint is a folder `step-00000500/`, written beside under another name, synced to disk and
renamed. The variables are listed one by one: `tf.train.Checkpoint(model=...)` silently leaves out
Keras layers that are kept in lists.
"""

import errno
import json
import logging
import os
import shutil
import zlib

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import build, disk
from stackgan_tf.config import CHECKPOINT, REPLACED, Config, UserError
from stackgan_tf.messages import reason

log = logging.getLogger(__name__)

# SavedModel's folder for anything that is not part of the graph
_STEP_FILE = os.path.join("assets.extra", "step")
_ENCODER_FILE = os.path.join("assets.extra", "text_encoder.json")
_MEAN_FILE = os.path.join("assets.extra", "text_mean.json")

# What TF raises on a checkpoint with flipped, cut off or missing bytes, tried one by one.
UNREADABLE = (tf.errors.OpError, LookupError, ValueError, TypeError, AttributeError, OSError)


# Nor is a checkpoint damaged that could not be read just now, or by this user.
_PASSING = (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError,
            tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError,
            tf.errors.ResourceExhaustedError, tf.errors.CancelledError)
# What stands in the words of those of TensorFlow's errors that have no kind.
_PASSING_WORDS = tuple(os.strerror(code) for code in (
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT,
    getattr(errno, "ESTALE", errno.EACCES)))


def _is_passing(error):
    return isinstance(error, (*_PASSING, tf.errors.OpError, OSError)) and (
        isinstance(error, _PASSING) or any(words in str(error) for words in _PASSING_WORDS))


class Checkpoints:
    """The checkpoints of one part of a run.

    Args:
        directory: the part's `ckpt` folder.
        parts: {name: list of variables}, everything that a resume needs.
        keep: how many to keep.

    Attributes:
        notes: what was given to `save` beside the variables, of the checkpoint last restored.
    """

    def __init__(self, directory: str, parts: dict[str, list], keep: int = 3):
        self.directory, self.keep, self.notes = directory, keep, {}
        self._parts = parts
        self.names = {part: [_name(v) for v in variables] for part, variables in parts.items()}
        self._checkpoint = tf.train.Checkpoint(**{part: list(v) for part, v in parts.items()})

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not tf.io.gfile.isdir(self.directory):
            return []
        found = map(CHECKPOINT.fullmatch, tf.io.gfile.listdir(self.directory))
        return sorted(int(match[1]) for match in found if match)

    def _folder(self, step):
        return os.path.join(self.directory, f"step-{step:08d}")

    def save(self, step: int, notes: dict | None = None) -> None:
        """Writes the checkpoint of `step`. A failure leaves the earlier ones as they were.

        Args:
            notes: anything of JSON that a resume needs too.

        Raises UserError, in one line, when the disk is full or cannot be written, or when a
        variable is not finite.
        """
        self._refuse_not_finite(step)
        temporary, last = self._folder(step) + ".tmp", 0
        try:
            last = max(self.steps(), default=0)
            self._remove_unfinished()
            disk.make_folders(temporary)
            self._checkpoint.write(os.path.join(temporary, "variables"))
            card = {"step": step, "variables": self.names, "notes": notes or {}}
            _write_text(os.path.join(temporary, "checkpoint.json"),
                        json.dumps({**card, "crc32": _crc32(temporary, card)}))
            replace_directory(temporary, self._folder(step))
            last = step
            self._prune(step)
        except (OSError, tf.errors.OpError) as error:
            disk.remove_quietly(temporary)
            remedy = "See to the permissions" if disk.is_forbidden(error) else "Make room"
            raise UserError(f"checkpoint {self._folder(step)} could not be written: "
                            f"{reason(error)}{self._missing()}; the last complete one is of step "
                            f"{last}. {remedy} and run the same command again to go on from there."
                            ) from error

    def _prune(self, step):
        """Removes all but the newest up to `step`; what is above it was not readable and could not
        be put aside, and counts for nothing."""
        for old in [other for other in self.steps() if other <= step][:-self.keep]:
            disk.remove(self._folder(old))

    def _remove_unfinished(self):
        """What killed processes left, whatever step it was of: it would keep a full disk full."""
        if tf.io.gfile.isdir(self.directory):
            for name in tf.io.gfile.listdir(self.directory):
                if name.rstrip("/").endswith(".tmp"):
                    disk.remove(os.path.join(self.directory, name))

    def _missing(self):
        """The bytes that the disk lacks, in words; "" if it has room, or cannot be asked."""
        needed = sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size
                     for variables in self._parts.values() for v in variables)
        try:
            free = shutil.disk_usage(self.directory).free
        except OSError:
            return ""
        return f" ({needed - free:,} of {needed:,} bytes are missing)" if free < needed else ""

    def last(self) -> str:
        """The newest checkpoint in words, for messages."""
        step = max(self.steps(), default=0)
        return f"the checkpoint of step {step} is kept" if step else "there is no checkpoint before"

    def _refuse_not_finite(self, step):
        bad = [_name(v) for variables in self._parts.values() for v in variables
               if tf.as_dtype(v.dtype).is_floating and not tf.reduce_all(tf.math.is_finite(v))]
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise UserError(f"{bad[0]}{more} not finite at step {step}, which is not saved; "
                            f"{self.last()}. A lower learning rate may help, in a new --run.")

    def restore(self) -> int:
        """Loads the newest checkpoint that can be read; returns its step, 0 if there is none.

        A damaged one is reported and the one before it taken. Raises UserError if there are
        checkpoints but none fits or can be read: starting over is for the user to decide; so is
        what to do about one that may not be damaged, but cannot be read at present.
        """
        reasons = []
        for step in reversed(self.steps()):
            try:
                self._read(step)
            except UNREADABLE as error:
                if _is_passing(error):
                    raise UserError(f"{self._folder(step)} cannot be read at present "
                                    f"({reason(error)}), which is no damage, so no older one is "
                                    "taken; see to that, then give the same command again."
                                    ) from error
                reasons.append(reason(error))
                log.warning("checkpoint %s cannot be read (%s); trying the one before it.",
                            self._folder(step), reasons[-1])
            else:
                for bad in self.steps()[-len(reasons):] if reasons else ():
                    self._put_aside(self._folder(bad))
                return step
        if reasons:
            raise UserError(f"no checkpoint in {self.directory} can be read ({reasons[0]}); move "
                            "the folder away to start over, or choose another --run.")
        return 0

    def read(self, step: int) -> None:
        """Loads the checkpoint of a step, which another worker has seen; UserError if it cannot."""
        try:
            self._read(step)
        except UNREADABLE as error:
            raise UserError(f"{self._folder(step)}, the checkpoint that the chief goes on from, "
                            f"cannot be read here ({reason(error)}); give a --checkpoint_dir that "
                            "all machines share.") from error

    def _put_aside(self, folder):
        """Out of the way, or pruning would keep it and remove the good ones."""
        try:
            disk.remove(folder + ".bad")
            tf.io.gfile.rename(folder, folder + ".bad")
        except (OSError, tf.errors.OpError) as error:
            log.warning("%s could not be renamed (%s); remove it.", folder, reason(error))

    def _read(self, step):
        folder = self._folder(step)
        with tf.io.gfile.GFile(os.path.join(folder, "checkpoint.json")) as file:
            card = json.load(file)
        stored, notes = card["variables"], dict(card.get("notes", {}))  # older ones have none
        crc32 = card.pop("crc32", None)
        if crc32 is not None and crc32 != _crc32(folder, card) or card["step"] != step:
            raise ValueError("its parts do not belong together")
        if stored != self.names:
            odd = {n for part in {*stored, *self.names}
                   for n in {*stored.get(part, ())} ^ {*self.names.get(part, ())}}
            raise ValueError("it holds other variables than this network: "
                             f"{', '.join(sorted(odd)[:3])} ...")
        status = self._checkpoint.read(os.path.join(folder, "variables"))
        status.assert_existing_objects_matched()
        self.notes = notes


def _crc32(folder, card):
    """Of a checkpoint's card and its index, which in turn has that of each variable."""
    with tf.io.gfile.GFile(os.path.join(folder, "variables.index"), "rb") as file:
        return zlib.crc32(file.read(), zlib.crc32(json.dumps(card).encode()))


def _name(variable):
    return getattr(variable, "path", variable.name)


def _write_text(path, text):
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(text)


def replace_directory(temporary: str, final: str) -> None:
    """Puts the finished folder `temporary` in the place of `final`, which may exist."""
    disk.sync_all(temporary)
    old = final + REPLACED
    disk.remove(old)
    if tf.io.gfile.exists(final):
        tf.io.gfile.rename(final, old)
    tf.io.gfile.rename(temporary, final)
    disk.sync_parent(final)
    disk.remove(old)


def publish(temporary: str, final: str) -> None:
    """Gives the finished folder `temporary` the name `final`; UserError if that is taken."""
    disk.sync_all(temporary)
    try:
        if tf.io.gfile.exists(final):
            raise OSError("it is there already")
        tf.io.gfile.rename(temporary, final)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{final} could not be made: {reason(error)}; nothing was written over."
                        ) from error
    disk.sync_parent(final)


def copy_directory(source: str, target: str) -> None:
    """Copies a folder, complete or not at all."""
    temporary = target + ".tmp"
    try:
        disk.remove(temporary)
        for root, _, names in tf.io.gfile.walk(source):
            inner = os.path.normpath(os.path.join(temporary, os.path.relpath(root, source)))
            tf.io.gfile.makedirs(inner)
            for name in names:
                tf.io.gfile.copy(os.path.join(root, name), os.path.join(inner, name))
        replace_directory(temporary, target)
    except (OSError, tf.errors.OpError) as error:
        disk.remove_quietly(temporary)
        raise UserError(f"{source} could not be copied to {target}: {reason(error)}; make room, or "
                        "see to the permissions.") from error


def exported_step(path: str) -> int | None:
    """The training step that the SavedModel at `path` was exported at, None if not known."""
    try:
        with tf.io.gfile.GFile(os.path.join(path, _STEP_FILE)) as file:
            return int(file.read())
    except (OSError, ValueError, tf.errors.OpError):
        return None


def encoder_fingerprint(path: str) -> np.ndarray | None:
    """The fingerprint of the text encoder that the stage at `path` was trained with, float32
    (dim,); None if not known."""
    return _read_vector(os.path.join(path, _ENCODER_FILE), "fingerprint")


def text_mean(path: str) -> np.ndarray | None:
    """The mean embedding of the captions that the stage at `path` was trained with, float32
    (dim,); None if not known."""
    return _read_vector(os.path.join(path, _MEAN_FILE), "mean")


def _read_vector(path, name):
    try:
        with tf.io.gfile.GFile(path) as file:
            vector = np.array(json.load(file)[name], np.float32)
            return vector if vector.ndim == 1 and np.isfinite(vector).all() else None
    except (OSError, ValueError, LookupError, TypeError, tf.errors.OpError):
        return None


def export(path: str, parts: list, endpoints: dict, step: int | None = None,
           fingerprint: list[float] | None = None, text_mean: np.ndarray | None = None) -> None:
    """Writes a SavedModel that C++ can load too, over an older one at `path`.

    Args:
        path: folder of the SavedModel.
        parts: Keras models, loaded SavedModels and tables whose variables the endpoints use.
        endpoints: {name: (function, [TensorSpec or {name: TensorSpec}])}; the first one becomes
            `serving_default`.
        step: the training step, kept beside it for `exported_step`.
        fingerprint: the text encoder's, kept beside it for `encoder_fingerprint`.
        text_mean: likewise for the function `text_mean`, float (dim,).

    `tf.saved_model.save` of anything that holds a Keras 3 model loads in Python and fails in every
    C++ loader, TF Serving included; Keras's ExportArchive does not.
    """
    temporary = path + ".tmp"
    try:
        disk.remove(temporary)
        archive = keras.export.ExportArchive()
        for part in parts:
            archive.track(part)
        for name, (function, signature) in endpoints.items():
            archive.add_endpoint(name, function, input_signature=signature)
        archive.write_out(temporary, verbose=False)
        tf.io.gfile.makedirs(os.path.dirname(os.path.join(temporary, _STEP_FILE)))
        if step is not None:
            _write_text(os.path.join(temporary, _STEP_FILE), str(step))
        if fingerprint is not None:
            _write_text(os.path.join(temporary, _ENCODER_FILE),
                        json.dumps({"fingerprint": fingerprint}))
        if text_mean is not None:
            _write_text(os.path.join(temporary, _MEAN_FILE),
                        json.dumps({"mean": np.asarray(text_mean, np.float32).tolist()}))
        replace_directory(temporary, path)
    except (OSError, tf.errors.OpError) as error:
        disk.remove_quietly(temporary)
        raise UserError(f"SavedModel {path} could not be written: {reason(error)}; make room, or "
                        "see to the permissions. The one before it, if any, is untouched."
                        ) from error


class StageExport:
    """Writes a stage's SavedModel: latents and embeddings -> images, no strings inside.

    The copy of the generator that goes in, its batch norms folded, is built once for all writes.

    Args:
        config: of the stage.
        gan: its StackGAN; its frozen Stage-I, if any, goes into the export.
    """

    def __init__(self, config: Config, gan):
        self.config, self.gan, self._copy = config, gan, None

    def write(self, path: str, generator, step: int | None = None,
              fingerprint: list[float] | None = None, text_mean: np.ndarray | None = None
              ) -> None:
        """Exports `generator`, the moving average for instance, as `export` does."""
        gan, text = self.gan, self.config.embedding_dim
        self._copy = build.for_inference(self.config, generator, gan.stage1, self._copy)
        dims = {**gan.latent_dims, **({"embeddings": text} if text else {})}
        signature = {name: tf.TensorSpec([None, dim], tf.float32, name)
                     for name, dim in dims.items()}

        def generate(inputs):
            inputs = dict(inputs)
            embeddings = inputs.pop("embeddings", None)
            return {"images": gan.generate(inputs, embeddings, generator=self._copy)["images"]}

        endpoints, parts = {"serve": (generate, [signature])}, [self._copy]
        if gan.stage1 is not None:
            parts.append(gan.stage1.loaded)
            endpoints["stage1"] = (lambda inputs: {"images": gan.stage1(inputs)}, [signature])
        export(path, parts, endpoints, step, fingerprint, text_mean)
