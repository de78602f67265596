"""Birds, flowers and COCO as Reed et al. and StackGAN gave them out: pickles and pictures.

`--data_dir` holds a folder for each split, `train/` and (or not) `test/`, with

    filenames.pickle                  the pictures' names, with or without extension
    char-CNN-RNN-embeddings.pickle    of each picture float (captions, dim)
    class_info.pickle                 of each picture its class; may be missing
    76images.pickle, 304images.pickle the pictures themselves; may be missing

and, without those two, the pictures: in `CUB_200_2011/images` (cropped to `bounding_boxes.txt`,
as in the paper), `images/`, `jpg/`, or where `--image_dir` says, the folder that holds `jpg/` in
the Oxford-102 ports. Captions, if wanted, are in `text_c10/` or `text/`, or in `--captions_dir`.

The embeddings are what the networks read, unless `--noprecomputed_embeddings` is given: then the
run trains a text encoder of its own on the captions.
"""

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stackgan_tf import images, parallel, picture_files, restricted_pickle
from stackgan_tf.caption_files import CaptionFiles, Confined
from stackgan_tf.datasets import NoSplit
from stackgan_tf.messages import printable

NAMES, CLASSES = "filenames.pickle", "class_info.pickle"
EMBEDDINGS = "char-CNN-RNN-embeddings.pickle"
PICKLED_SIZES = (76, 304)
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG", ".WEBP", "")

_log = logging.getLogger(__name__)


def examples(config, split: str) -> Iterator[dict]:
    """A split in the order of its pickles; everything but the pictures is checked by the call.

    Args:
        config: has `data_dir`, `image_dir`, `captions_dir`, `load_size`, `max_unreadable`,
            `embedding_dim` and `precomputed_embeddings`.
        split: "train" or "test".

    Returns:
        iterator of dicts: image uint8 (H, W, 3), file_name str, embeddings float32 (n, dim) if
        they are taken, captions list of str if there are any, label int if there are classes.

    Raises:
        ValueError: one line; while iterating, for what only the pictures show.
    """
    return iter(Reed(config, split))


def embedding_dim(config) -> int:
    """Size of the embeddings that the elements carry; 0 if they carry captions only.

    Raises:
        ValueError: they should carry embeddings, and there are none.
    """
    if not config.precomputed_embeddings or not config.embedding_dim:
        return 0
    path = _split_folder(config, "train") / EMBEDDINGS
    _require(path, "or train a text encoder on the captions: --noprecomputed_embeddings")
    first = next(restricted_pickle.arrays(path), None)
    if first is None:
        raise ValueError(f"{path} holds no embedding; get it again.")
    return _checked_embeddings(first, path, 0).shape[1]


class Reed:
    """A checked split; iterating hands each embedding out once and lets it go.

    Attributes:
        names: the pictures' names.
        labels: their classes, or None.
        embeddings: list of float32 (n, dim), or None.
        captions: CaptionFiles, or None.
    """

    def __init__(self, config, split: str):
        self.folder = _split_folder(config, split)
        self.max_unreadable = config.max_unreadable
        self.names = self._load_names()
        self.labels = self._load_labels()
        with_text = config.embedding_dim > 0
        self.embeddings = None
        if config.precomputed_embeddings and with_text:
            self.embeddings = self._load_embeddings(config)
        self.captions = _find_captions(config)
        if with_text and self.embeddings is None and self.captions is None:
            raise ValueError(f"data_dir={config.data_dir} holds no text_c10/ or text/ with .txt "
                             "files to train a text encoder on; give --captions_dir, or take "
                             "the pickled embeddings: --precomputed_embeddings.")
        self._find_pictures(config)
        self._report(split)

    def _load_names(self):
        path = self.folder / NAMES
        _require(path, "it says which pictures belong to the split")
        names = _listed(path)
        for i, name in enumerate(names):
            if not isinstance(name, str) or not name.strip() or len(name) > 1000 or re.search(
                    "[\0\ud800-\udfff]", name):  # the halves that stand for bytes of no UTF-8
                raise ValueError(f"{path}: entry {i} is {_shown(name)}, no file name; get the "
                                 "file again.")
            if os.path.isabs(name) or re.match(r"[A-Za-z]:|\\", name) or ".." in re.split(
                    r"[\\/]", name):
                raise ValueError(f"{path}: entry {i} is {name[:60]!r}, which leads out of the "
                                 "pictures' folder; get the file again.")
        return [_from_python2(str(name)).replace("\\", "/") for name in names]  # from Windows

    def _load_labels(self):
        path = self.folder / CLASSES
        if not path.exists():  # COCO
            return None
        labels = _listed(path)
        for i, label in enumerate(labels):
            if not isinstance(label, (int, np.integer)) or isinstance(label, bool) or not (
                    -2**63 <= label < 2**63):
                raise ValueError(f"{path}: entry {i} is {_shown(label)}, not the number of a "
                                 "class; get the file again.")
        self._check_count(path, len(labels))
        return [int(label) for label in labels]

    def _load_embeddings(self, config):
        path = self.folder / EMBEDDINGS
        _require(path, "or train a text encoder on the captions: --noprecomputed_embeddings")
        made, size = [], embedding_dim(config)
        for i, value in enumerate(restricted_pickle.arrays(path)):
            made.append(_checked_embeddings(value, path, i))
            if made[i].shape[1] != made[0].shape[1]:
                raise ValueError(f"{path}: entry {i} has {made[i].shape[1]} numbers a caption, "
                                 f"entry 0 has {made[0].shape[1]}; get the file again.")
            if made[i].shape[1] != size:
                raise ValueError(f"{path}: entry {i} has {made[i].shape[1]} numbers a caption, "
                                 f"those of train/ have {size}; get the files again.")
        self._check_count(path, len(made))
        return made

    def _check_count(self, path, count):
        if count != len(self.names):
            raise ValueError(f"{path} holds {count:,} entries and {NAMES} beside it "
                             f"{len(self.names):,} names; take both from the same source.")

    def _find_pictures(self, config):
        """Sets `pickle`, the pictures' pickle, or `paths` of the pictures and their `boxes`."""
        self.pickle, self.paths, self.boxes = None, None, {}
        pickles = {size: self.folder / f"{size}images.pickle" for size in PICKLED_SIZES}
        there = [size for size, path in pickles.items() if path.exists()]
        large_enough = [size for size in there if size >= config.load_size]
        if large_enough and not config.image_dir:
            self.pickle = pickles[large_enough[0]]
            return
        bases = _picture_folders(config)
        base = next((base for base in bases if any(_path(base, name) for name in self.names[:100])),
                    None)
        if base is None:
            too_small = (f"{there[-1]}images.pickle is too small for --image_size="
                         f"{config.image_size}, which needs {config.load_size} pixels; " if there
                         and not config.image_dir else "")
            raise ValueError(f"{too_small}no picture of {self.folder / NAMES} "
                             f"({self.names[0]}.jpg, ...) is in {', '.join(map(str, bases))}; give "
                             "--image_dir, the folder that holds jpg/ or images/, or add "
                             "304images.pickle.")
        self.base, self.paths = base, [_path(base, name) for name in self.names]
        named = Path(os.path.expanduser(config.image_dir or config.data_dir))
        # the folder above jpg/ is meant as well where that is named
        confined = Confined(named, *([base] if base == named.parent else []), flag="--image_dir")
        for path in filter(None, self.paths):
            confined.check(path)
        self.boxes = read_boxes(base.parent)
        missing = {name: "is not there" for name, path in zip(self.names, self.paths) if not path}
        self.unreadable = {}
        self._skip(missing)

    def _report(self, split):
        if self.pickle:
            source = str(self.pickle)
        else:
            source = f"{self.base}, {self._cropping()}"
        parts = [f"{len(self.names):,} pictures from {source}"]
        if self.embeddings is not None:
            parts.append(f"embeddings of {self.embeddings[0].shape[1]} numbers from "
                         f"{self.folder / EMBEDDINGS}")
        if self.captions is not None:
            parts.append(f"captions from {self.captions.folder}")
        if self.labels is None:
            parts.append("no classes")
        print(f"reed {split}: {'; '.join(parts)}", flush=True)

    def _cropping(self):
        if not self.boxes:
            return "whole"
        without = sum(self._box(name) is None for name in self.names)
        return "cropped to their boxes" + (
            f", but {without:,} have none in bounding_boxes.txt and stay whole" if without else "")

    def _box(self, name):
        """A picture's box, whether or not its name has the extension; None if it has none."""
        return self.boxes.get(name) or self.boxes.get(os.path.splitext(name)[0])

    def __iter__(self) -> Iterator[dict]:
        count = 0
        for i, image in self._pickled() if self.pickle else self._decoded():
            count += 1
            example = {"image": image, "file_name": self.names[i]}
            if self.embeddings is not None:
                # let go as it is handed out: COCO's are 1.7 GB
                example["embeddings"], self.embeddings[i] = self.embeddings[i], None
            if self.captions is not None and (captions := self.captions.of(self.names[i])):
                example["captions"] = captions
            if self.labels is not None:
                example["label"] = self.labels[i]
            yield example
        if not count:
            self._refuse()

    def _pickled(self):
        """(place, picture), streamed: 304images.pickle has 2.5 GB."""
        count = 0
        for image in restricted_pickle.arrays(self.pickle):
            if count == len(self.names):
                raise ValueError(f"{self.pickle} holds more pictures than the {count:,} names of "
                                 f"{NAMES} beside it; take both from the same source.")
            try:
                yield count, picture_files.rgb(image)
            except ValueError as error:
                raise ValueError(f"{self.pickle}: entry {count} {error}") from error
            count += 1
        self._check_count(self.pickle, count)

    def _decoded(self):
        def decode(i):
            try:
                return i, picture_files.read_rgb(self.paths[i]), None
            except ValueError as error:
                return i, None, str(error)

        there = (i for i, path in enumerate(self.paths) if path)
        for i, image, problem in parallel.in_order(decode, there):
            if problem:
                self._skip({self.names[i]: problem})
            else:
                box = self._box(self.names[i])
                yield i, image if box is None else images.crop_to_box(image, box)

    def _skip(self, problems):
        self.unreadable.update(problems)
        if len(self.unreadable) > self.max_unreadable:
            self._refuse()
        for name, problem in problems.items():
            _log.warning("skipped %s", printable(f"{self.base / name}: {problem}"))

    def _refuse(self):
        listed = list(self.unreadable.items())
        names = "; ".join(f"{name} ({problem.rstrip('.')})" for name, problem in listed[:3])
        raise ValueError(f"{len(listed)} of {len(self.names)} pictures in {self.base} cannot be "
                         f"read (max_unreadable={self.max_unreadable}): {names}"
                         f"{'; ...' if len(listed) > 3 else ''}. Add or repair them, or raise "
                         "--max_unreadable.")


def _split_folder(config, split):
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    if not str(config.data_dir).strip():
        raise ValueError("data_dir is empty; give the folder that holds train/ with its pickles: "
                         "--data_dir=data/birds")
    folder = Path(os.path.expanduser(config.data_dir)) / split
    if not folder.is_dir():
        raise NoSplit(f"data_dir={config.data_dir} holds no folder {split}/; give the one that "
                      f"holds {split}/{NAMES}.")
    return folder


def _require(path, remedy):
    if not path.is_file():
        raise ValueError(f"{path} is missing; {remedy}.")


def _listed(path):
    values = restricted_pickle.load(path)
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) == 0:
        raise ValueError(f"{path} holds no list of entries; get it again.")
    return values


def _shown(value):
    """For a message; of a list only that it is one: written out, a nested one would not end."""
    if isinstance(value, (str, bytes, int, float, np.generic)):
        return repr(str(value)[:60])
    return f"one {type(value).__name__}"


def _checked_embeddings(value, path, i):
    value = value[None] if value.ndim == 1 else value
    if value.ndim != 2 or value.dtype.kind != "f" or not value.size:
        raise ValueError(f"{path}: entry {i} is {value.dtype} {value.shape}, not float (captions, "
                         "dim); get the file again.")
    if not np.isfinite(value).all():
        raise ValueError(f"{path}: entry {i} holds numbers that are not finite; get the file "
                         "again.")
    return value.astype(np.float32, copy=False)


def _find_captions(config):
    if config.captions_dir:
        return CaptionFiles(config.captions_dir)
    for name in ("text_c10", "text"):
        folder = Path(os.path.expanduser(config.data_dir)) / name
        if next(folder.rglob("*.txt"), None):  # there are copies with .h5 or .t7 files alone
            return CaptionFiles(folder, folder.parent)
    return None


def _picture_folders(config):
    """Where pictures may be: file names are relative to one of these."""
    if config.image_dir:
        folder = Path(os.path.expanduser(config.image_dir))
        # the folder above jpg/, as the ports have it, or jpg/ itself
        return [folder, folder / "images", folder / "CUB_200_2011/images", folder.parent]
    folder = Path(os.path.expanduser(config.data_dir))
    return [folder / "CUB_200_2011/images", folder / "images", folder]


def _from_python2(name):
    """A name whose bytes were read as Latin-1, as those of Python 2 are, and are UTF-8."""
    try:
        return name.encode("latin1").decode()
    except UnicodeError:
        return name


def _path(base, name):
    """The picture of that name, None if there is none; file systems have their own spellings."""
    spellings = dict.fromkeys([name, *(unicodedata.normalize(form, name)
                                       for form in ("NFC", "NFD"))])
    paths = (base / (spelled + extension) for spelled in spellings for extension in EXTENSIONS)
    return next((path for path in paths if path.is_file()), None)


def _lines(path):
    return path.read_text("utf-8", "surrogateescape").splitlines()


def read_boxes(folder: Path) -> dict[str, tuple[float, ...]]:
    """{file name without extension: (left, top, width, height)} of CUB_200_2011's text files.

    Empty if they are not in the folder.

    Raises:
        ValueError: a line is no box, or the two files do not belong together.
    """
    names, boxes = folder / "images.txt", folder / "bounding_boxes.txt"
    if not names.is_file() or not boxes.is_file():
        return {}
    found = {}
    for number, line in enumerate(_lines(boxes), 1):
        try:
            key, *values = line.split()
            found[key] = tuple(map(float, values))
            if len(values) != 4:
                raise ValueError(line)
        except ValueError as error:
            raise ValueError(f"{boxes} line {number} is {line[:60]!r}; it needs a picture's number "
                             "and x, y, width, height.") from error
    named = {}
    for number, line in enumerate(_lines(names), 1):
        key, _, name = line.partition(" ")
        if key not in found:
            raise ValueError(f"{names} line {number}: picture {key[:60]!r} has no line in "
                             f"{boxes.name}; take both from the same source.")
        named[os.path.splitext(name.strip())[0]] = found[key]
    return named
