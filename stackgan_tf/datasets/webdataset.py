"""WebDataset tar shards: `key.jpg` (or jpeg, png, webp) beside `key.txt` and/or `key.json`.

`key.txt` holds one caption a line. `key.json` is an object with "captions" (a list of texts) or
"caption" (a text), used where there is no `key.txt`, and perhaps "class" (a name or a whole
number; in every sample or in none). The files of a sample stand next to each other in the tar.
Tars in a folder `test/`, or named `test...`, are the split "test", or where there are none those
of `val/` or `validation/`, or named so; without either, both splits are the whole set. A "split" in
`key.json` must say the same. Nothing is ever unpacked to disk.
"""

import collections
import dataclasses
import fnmatch
import io
import itertools
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from stackgan_tf import picture_files
from stackgan_tf.caption_files import is_empty, unique
from stackgan_tf.messages import printable, reason
from stackgan_tf.parallel import in_order

PICTURES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")
MAX_BYTES = 256 * 2**20  # of a picture's file; a text may take a 64th of it
MOST_PADDING = 2**20  # bytes of zeros at the end; tar takes 10 KB where it is not told otherwise
LONGEST_NAME = 4096  # characters, Linux's own limit
HELD_OUT = ("val", "validation")  # what is the split "test" where no tar is named so
REMEDY = "give a folder, a pattern such as 'data/*.tar', or one tar"

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample and its place: the bytes `start` to `end` of `tar`."""

    tar: str
    key: str
    start: int
    end: int
    captions: tuple[str, ...]
    class_name: str | None
    picture: bytes | None  # None until it is asked for
    extension: str = ""
    problem: str | None = None  # why it cannot be used

    @property
    def file_name(self) -> str:
        return f"{_short_name(self.tar)}/{self.key}.{self.extension}"


def load(config, split: str) -> tf.data.Dataset:
    """A split of the tars, read one after another.

    Args:
        config: has `data_dir`, a folder (its subfolders too), a pattern or a tar, local or gs://;
            `max_unreadable`, how many samples are skipped, each with a warning, before it is
            an error; `embedding_dim`, 0 if captions are not needed.
        split: "train" or "test".

    Returns:
        Dataset of dicts: image uint8 (H, W, 3), captions string (n,), file_name string
        (tar/key.jpg), and label int64 if the samples have a "class": its index among the sorted
        names of both splits.

    Raises:
        ValueError: one line.
    """
    _, class_names = _survey(config)
    signature = {"image": tf.TensorSpec((None, None, 3), tf.uint8),
                 "captions": tf.TensorSpec((None,), tf.string),
                 "file_name": tf.TensorSpec((), tf.string)}
    if class_names:
        signature["label"] = tf.TensorSpec((), tf.int64)
    return tf.data.Dataset.from_generator(lambda: examples(config, split),
                                          output_signature=signature)


def examples(config, split: str) -> Iterator[dict]:
    """What `load` hands out, once, as NumPy values. All tars are looked through by the call."""
    splits, class_names = _survey(config)
    if split not in splits:
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    return _decoded(config, splits[split], {name: i for i, name in enumerate(class_names)})


def _decoded(config, tars, labels):
    def decode(sample):
        try:
            return sample, None if sample.problem else picture_files.read_rgb(sample.picture)
        except ValueError as error:
            return dataclasses.replace(sample, problem=str(error)), None

    samples = itertools.chain.from_iterable(
        iter_tar(tar, config.embedding_dim > 0, pictures=True) for tar in tars)
    bad, count = [], 0
    for sample, image in in_order(decode, samples):
        if image is None:
            skip(bad, sample, config.max_unreadable)
            continue
        example = {"image": image, "captions": np.array(sample.captions, dtype=object),
                   "file_name": sample.file_name}
        if labels:
            example["label"] = np.int64(labels[sample.class_name])
        count += 1
        yield example
    if not count:
        raise ValueError(f"data_dir={config.data_dir} holds no picture that can be used"
                         f"{f', the first: {bad[0]}' if bad else ''}; repair or add some.")


def skip(bad: list, sample: Sample, most: int) -> None:
    """Warns of a sample that cannot be used; ValueError at one more than `most`."""
    bad.append(f"{sample.file_name} ({sample.problem.rstrip('.')})")
    if len(bad) > most:
        raise ValueError(f"{len(bad)} samples cannot be used (max_unreadable={most}): "
                         f"{'; '.join(bad[:3])}. Repair them, or raise --max_unreadable.")
    _log.warning("skipped %s", printable(bad[-1]))


def _survey(config):
    """Tars by split, and sorted class names; {} if no sample has one."""
    splits = find_tars(config.data_dir)
    classes = Classes()
    for tar in sorted({tar for tars in splits.values() for tar in tars}):
        for sample in iter_tar(tar, config.embedding_dim > 0):
            if not sample.problem:
                classes.add(sample)
    return splits, sorted(classes.names)


class Classes:
    """The class names met so far; refuses samples of which only some have one."""

    def __init__(self):
        self.names, self._first = set(), None

    def add(self, sample: Sample) -> None:
        self._first = self._first or sample
        if (sample.class_name is None) != (self._first.class_name is None):
            raise ValueError(f'one of {self._first.file_name} and {sample.file_name} has a '
                             '"class" and the other has none; give it in every sample or in none.')
        if sample.class_name is not None:
            self.names.add(sample.class_name)


def _short_name(tar):
    """The tar and its folder: train/0000.tar and test/0000.tar are common."""
    return "/".join(tar.split("/")[-2:])


def _named(tar):
    """What its name says: "train", "test" or "val"."""
    folder, name = (part.lower() for part in tar.split("/")[-2:]) if "/" in tar else ("", tar)
    if folder == "test" or name.startswith("test"):
        return "test"
    held_out = folder in HELD_OUT or re.match(rf"({'|'.join(HELD_OUT)})[^a-z]", name)
    return "val" if held_out else "train"


def _split_of(tar):
    return "train" if _named(tar) == "train" else "test"


def has_test(config) -> bool:
    """False where both splits are the whole set."""
    tars = find_tars(config.data_dir)
    return tars["test"] != tars["train"]


def find_tars(data_dir: str) -> dict[str, list[str]]:
    """{"train": paths, "test": paths}, sorted; ValueError if there is none."""
    root = os.path.expanduser(str(data_dir))
    if not root.strip():
        raise ValueError(f"data_dir is empty; {REMEDY}.")
    if tf.io.gfile.exists(root) and not tf.io.gfile.isdir(root):
        found = [root]  # whatever in its name would mean something in a pattern
    elif tf.io.gfile.isdir(root):
        found = [os.path.join(folder, name) for folder, _, names in tf.io.gfile.walk(root)
                 for name in names if fnmatch.fnmatch(name, "*.tar*") or name.endswith(".tgz")]
    else:
        found = tf.io.gfile.glob(root)
    if not found:
        raise ValueError(f"data_dir={data_dir} holds no tar; {REMEDY}.")
    for path in found:
        if not path.endswith(".tar"):
            raise ValueError(f"{path} is no plain .tar: pictures are read from the middle of it, "
                             "so unzip it first (gunzip), or leave it out of data_dir.")
    found = sorted(found)
    twice = [name for name, count in collections.Counter(map(_short_name, found)).items()
             if count > 1]
    if twice:
        raise ValueError(f"two tars are named {twice[0]}, which would mix up their pictures' "
                         "names; rename one.")
    train, test, val = ([path for path in found if _named(path) == split]
                        for split in ("train", "test", "val"))
    if not train and not test:  # /val/ is what the whole is called
        return {"train": val, "test": val}
    if not train:
        raise ValueError(f"data_dir={data_dir} holds tars of the split test only, by their names "
                         f"({found[0]}, ...); name those to train on otherwise.")
    return {"train": train, "test": test or val or train}


def iter_tar(tar: str, with_text: bool = True, pictures: bool = False) -> Iterator[Sample]:
    """The samples of a tar in order, those that cannot be used with their `problem`.

    The pictures' bytes are read on demand only. ValueError if the tar itself is damaged.
    """
    try:
        with tf.io.gfile.GFile(tar, "rb") as file:
            seen = set()
            for key, members in _groups(_Bounded(file, file.size())):
                sample = _sample(tar, key, members, with_text, pictures)
                if key in seen:
                    sample = dataclasses.replace(
                        sample, problem="its key came before in this tar; a sample's files "
                        "must stand next to each other")
                seen.add(key)
                yield sample
    except Exception as error:  # on hostile bytes tarfile raises nearly anything
        raise ValueError(f"{tar} cannot be read: {reason(error)[:200]}; fetch it again, or leave "
                         "it out of data_dir.") from error


def read_sample(tar: str, start: int, end: int, with_text: bool = True) -> Sample:
    """The sample at a place that `iter_tar` gave, with its picture; one read of the file."""
    with tf.io.gfile.GFile(tar, "rb") as file:
        file.seek(start)
        part = _Bounded(io.BytesIO(file.read(end - start)), end - start)
    # all of it while the generator holds the tar open
    (sample,) = (_sample(tar, key, members, with_text, pictures=True)
                 for key, members in _groups(part))
    return dataclasses.replace(sample, start=start, end=end)


class _Bounded:
    """A file of which no more is asked than it has: a size in a tar may be anything, below 0 too,
    where tarfile would come to the same header again and again."""

    def __init__(self, file, size):
        self.size, self.tell, self._file = size, file.tell, file

    def seek(self, place):
        if not 0 <= place <= self.size:
            raise tarfile.ReadError("unexpected end of data: a member is larger than the tar")
        self._file.seek(place)

    def read(self, count):
        # a header may be asked for behind the end
        if not 0 <= count <= max(tarfile.BLOCKSIZE, min(MAX_BYTES, self.size - self.tell())):
            raise tarfile.ReadError("unexpected end of data: a name or member is larger than it "
                                    "can be")
        return self._file.read(count)


def _groups(file):
    """(key, [(extension, TarInfo, TarFile, end)]) of members in a row with the same key."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        key, members = None, []
        for member in tar:
            tar.members = []  # tarfile would keep every header in memory
            member.pax_headers = {}  # of all members before as well, perhaps
            if len(member.name) > LONGEST_NAME or not member.offset < tar.offset <= file.size:
                raise tarfile.ReadError(f"a damaged header at byte {member.offset:,}")
            if member.isdir():
                continue
            folder, name = os.path.split(member.name.encode("utf-8", "replace").decode())
            if name.startswith("._"):  # what a Mac's tar keeps of a file besides its content
                continue
            stem, _, extension = name.partition(".")
            now = os.path.join(folder, stem)
            if now != key and members:
                yield key, members
                members = []
            key = now
            members.append((extension.lower(), member, tar, tar.offset))
        if members:
            yield key, members
        file.seek(tar.offset)  # tarfile takes a damaged header, or zeros anywhere, for the end
        if file.read(512).strip(b"\0"):
            raise tarfile.ReadError(f"a damaged header at byte {tar.offset:,}")
        if file.size - tar.offset > MOST_PADDING:
            raise tarfile.ReadError(f"it ends at byte {tar.offset:,} of {file.size:,} (two tars "
                                    "joined without tar -A, or half a download)")
        while rest := file.read(min(2**16, file.size - file.tell())):
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"it ends at byte {tar.offset:,}, and more stands behind "
                                        "that (two tars joined without tar -A)")


def _sample(tar, key, members, with_text, pictures):
    start, end = members[0][1].offset, members[-1][3]
    parts, picture, extension = {}, None, ""
    try:
        for kind, member, source, _ in members:
            if kind not in PICTURES and kind not in TEXTS:
                continue  # other tools' files
            limit = MAX_BYTES if kind in PICTURES else MAX_BYTES // 64
            _check_member(member, limit)
            if kind in parts or (kind in PICTURES and extension):
                raise ValueError(f"it has two files {kind}")
            if kind in PICTURES:
                extension = kind
            if kind in TEXTS or pictures:
                parts[kind] = source.extractfile(member).read()
        if not extension:
            dotted = next((member.name for kind, member, *_ in members
                           if kind.endswith(tuple(f".{kind}" for kind in PICTURES))), None)
            if dotted:
                raise ValueError(f"it has no picture: a key ends at the first dot of a name, and "
                                 f"{dotted[:100]!r} has another; rename the files")
            raise ValueError(f"it has no picture ({', '.join(PICTURES)}) next to it in the tar")
        picture = parts.get(extension)
        captions, class_name = _texts(parts, with_text, _split_of(tar))
    except ValueError as error:
        return Sample(tar, key, start, end, (), None, None, extension or "?", str(error))
    return Sample(tar, key, start, end, captions, class_name, picture, extension)


def _check_member(member, limit):
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or "\0" in member.name:
        raise ValueError(f"its name {member.name[:100]!r} leaves the tar")
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise ValueError(f"{member.name[:100]!r} is a link or no plain file")
    if member.size > limit:
        raise ValueError(f"{member.name[:100]!r} is of {member.size:,} bytes")


def _texts(parts, with_text, split):
    """Captions and class name from `txt` and `json`; ValueError says what is wrong."""
    try:
        # -sig: Windows editors put a byte order mark first
        fields = json.loads(parts.get("json", b"{}").decode("utf-8-sig"),
                            object_pairs_hook=unique)
        lines = parts.get("txt", b"").decode("utf-8-sig").splitlines()
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"its text is damaged: {str(error)[:100]}") from error
    if not isinstance(fields, dict):
        raise ValueError("its json is no object")
    captions = [line.strip() for line in lines if not is_empty(line)]
    if not captions:
        captions = fields.get("captions")
        if captions in (None, []):
            captions = fields.get("caption") or []
        captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(
            isinstance(text, str) and not is_empty(text) for text in captions):
        raise ValueError('its "captions" are no list of texts')
    if with_text and not captions:
        raise ValueError('it has no caption (in .txt, or "captions" in .json) next to it in the '
                         'tar')
    class_name = fields.get("class")
    if isinstance(class_name, bool) or not isinstance(class_name, (str, int, type(None))) or (
            not str(class_name).strip()):
        raise ValueError('its "class" is neither a name nor a whole number')
    said = fields.get("split")
    if said not in (None, split, *HELD_OUT * (split == "test")):
        raise ValueError(f'its "split" is {str(said)[:60]!r}, and the tar is of {split} '
                         "by its name, which is what counts")
    for text in (*captions, str(class_name)):
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            raise ValueError("its text holds a character that is no text")
    return tuple(captions), None if class_name is None else str(class_name)
