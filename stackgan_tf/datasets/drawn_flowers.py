"""`drawn_flowers`: captioned 256x256 pictures drawn by `flower_drawing`; no download.

4,020 flowers in 30 classes of (petal shape, petal color); the 6 test classes pair shapes and
colors that training shows only apart. The first `load` draws them into the TFDS cache.
"""

import concurrent.futures
import contextlib
import dataclasses
import glob
import io
import itertools
import logging
import multiprocessing
import os
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf import json_format
from PIL import Image

from stackgan_tf import disk, flower_drawing, images, processes
from stackgan_tf.messages import reason
from stackgan_tf.progress import sigterm_raises

_SEED = 0
_JPEG_QUALITY = 95  # PNG would take 3 times the disk for grain that no network should learn
_FEW = 1000  # pictures that are drawn before other processes would have imported TensorFlow
_log = logging.getLogger(__name__)


@dataclasses.dataclass
class DrawnFlowersConfig(tfds.core.BuilderConfig):
    """A size of the data set; a small one holds the first pictures of a large one."""

    images_per_class: int = 134


def _config(images_per_class):
    return DrawnFlowersConfig(
        name=f"per_class_{images_per_class}", images_per_class=images_per_class,
        description=f"{images_per_class} pictures for each of the 30 classes")


class DrawnFlowers(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the drawn flowers, splits "train" (24 classes) and "test" (6)."""

    VERSION = tfds.core.Version("1.1.0")  # raise it when flower_drawing draws or says other things
    RELEASE_NOTES = {"1.0.0": "First drawing.", "1.1.0": "Three petal shapes."}

    def _info(self) -> tfds.core.DatasetInfo:
        size, captions = flower_drawing.IMAGE_SIZE, flower_drawing.CAPTIONS_PER_IMAGE
        attributes = flower_drawing.ATTRIBUTES
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict({
                "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
                "captions": tfds.features.Sequence(tfds.features.Text(), length=captions),
                "label": tfds.features.ClassLabel(names=flower_drawing.CLASS_NAMES),
                "file_name": tfds.features.Text(),
                "attributes": {name: tfds.features.ClassLabel(names=values)
                               for name, values in attributes.items()},
                "mentions": tfds.features.Tensor(shape=(captions, len(attributes)),
                                                 dtype=np.bool_),
            }),
            # Kept in drawn order, class after class in turn: any first n pictures are balanced.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {"train": self._generate_examples("train"), "test": self._generate_examples("test")}

    def _generate_examples(self, split):
        classes = len(flower_drawing.CLASSES)
        held_out = set(flower_drawing.TEST_CLASS_NAMES)
        count = classes * self.builder_config.images_per_class
        indices = [index for index in range(count) if (split == "test")
                   == (flower_drawing.CLASS_NAMES[index % classes] in held_out)]
        if len(indices) < _FEW:
            yield from zip(indices, map(_example, indices))
            return
        # Threads would wait for each other: most of the drawing holds Python's lock.
        context = multiprocessing.get_context("spawn")  # a fork of TensorFlow's threads may hang
        with concurrent.futures.ProcessPoolExecutor(
                min(os.cpu_count(), 8), context, initializer=processes.end_with_parent) as pool:
            for start in range(0, len(indices), 512):  # bounds what waits in memory to be written
                chunk = indices[start:start + 512]
                yield from zip(chunk, pool.map(_example, chunk, chunksize=16))


def _example(index):
    flower = flower_drawing.make_flower(_SEED, index)
    jpeg = io.BytesIO()
    Image.fromarray(flower.image).save(jpeg, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    jpeg.seek(0)
    return {
        "image": jpeg,
        "captions": list(flower.captions),
        "label": flower.label,
        "file_name": f"{flower_drawing.CLASS_NAMES[flower.label]}/{index:06d}.jpg",
        "attributes": flower.attributes,
        "mentions": flower.mentions,
    }


def load(config, split: str) -> tf.data.Dataset:
    """The split "train" or "test" in its fixed order; draws the data set on first use.

    Args:
        config: has `data_dir`, the TFDS cache ("" for TFDS's default, ~/tensorflow_datasets), and
            `images_per_class`. A full set of 134 takes about a minute on two cores, and
            140 MB.
        split: a TFDS split, such as "train", "test" or "train[:64]".

    Returns:
        dicts of image uint8 (256, 256, 3), captions string (10,), label int64 (index into
        flower_drawing.CLASS_NAMES), file_name string, attributes {name: int64 index into
        flower_drawing.ATTRIBUTES[name]}, mentions bool (10, 5).
    """
    folder = disk.tfds_folder(config.data_dir)
    with _quiet_tfds():
        builder = _builder(folder, _config(config.images_per_class))
        if not builder.is_prepared():
            _refuse_other_data(config.data_dir)
            count = config.images_per_class * len(flower_drawing.CLASSES)
            _log.info("drawing %s flowers into %s ...", f"{count:,}", builder.data_dir)
            _prepare(builder)
        read_config = tfds.ReadConfig(
            interleave_cycle_length=1,
            try_autocache=False)  # would hold every decoded picture, 800 MB, in memory
        return builder.as_dataset(split=split, shuffle_files=False, read_config=read_config)


def _builder(folder, config):
    try:
        return DrawnFlowers(data_dir=folder, config=config)
    except (json_format.ParseError, ValueError, KeyError, AssertionError) as error:
        kept = os.path.join(folder or "~/tensorflow_datasets", "drawn_flowers")
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the flowers that were drawn into {kept} are damaged ({why}); remove "
                         "that folder, and they are drawn again.") from error


def _refuse_other_data(data_dir):
    """ValueError where --data_dir is a set of the user's, not a cache: --dataset was forgotten."""
    folder = os.path.expanduser(data_dir)
    if not folder or not os.path.isdir(folder):
        return
    marks = {"captions.jsonl": "folder", "prepared.json": "prepared",
             os.path.join("train", "filenames.pickle"): "reed"}
    found = next((mark for mark in marks if os.path.isfile(os.path.join(folder, mark))), None)
    if found is None:
        inner = (entry.path for entry in os.scandir(folder)
                 if entry.is_dir() and entry.name != "downloads")
        path = next(filter(None, map(_picture_or_tar, itertools.chain([folder], inner))), None)
        if path is None:
            return
        found = os.path.relpath(path, folder)
    dataset = marks.get(found, "webdataset" if found.lower().endswith(".tar") else "folder")
    raise ValueError(f"data_dir={data_dir} holds {found}, and --dataset=drawn_flowers would draw "
                     f"its own flowers into it; add --dataset={dataset} (README: which files that "
                     "needs).")


def _picture_or_tar(folder):
    """Path of one that lies in the folder itself; None if there is none, or none to be seen."""
    try:
        return next((entry.path for entry in os.scandir(folder) if entry.is_file()
                     and entry.name.lower().endswith((".tar", *images.ENDINGS))), None)
    except OSError:
        return None


def _prepare(builder):
    """Draws into a folder of its own, renamed when whole; half sets of before are removed."""
    for left in glob.glob(glob.escape(os.path.dirname(builder.data_dir)) + "/incomplete.*"):
        with contextlib.suppress(OSError):  # another process may just be renaming it
            files = [entry.path for entry in os.scandir(left)]
            if time.time() - max(map(os.path.getmtime, [left, *files])) > 3600:  # nobody's work
                disk.remove_quietly(left)
    try:
        with sigterm_raises():
            builder.download_and_prepare()
        disk.sync_all(str(builder.data_dir))  # TFDS has only renamed it
    except (OSError, RuntimeError, tf.errors.OpError) as error:
        if builder.is_prepared():  # another process has just finished the same folder
            return
        if isinstance(error, BrokenProcessPool):
            raise ValueError("a process that draws flowers was killed (is the memory full?); give "
                             "the same command again.") from error
        if hasattr(tf.errors, str(error).partition(":")[0]):  # which TFDS has wrapped
            raise OSError(reason(error)) from error
        raise


@contextlib.contextmanager
def _quiet_tfds():
    """TFDS reports each step through absl and prints "Downloading ...", which would mislead."""
    absl_log = logging.getLogger("absl")
    level = absl_log.level
    tfds.display_progress_bar(sys.stderr.isatty())
    absl_log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_log.setLevel(level)
