"""Where `prepare` takes pictures from: each picture of a set by its place, in any order.

A source is surveyed once, which costs a few numbers a picture and no picture in memory; then any
process reads any of its pictures. Three kinds: a folder's `captions.jsonl` (the place is a
line's offset), tar shards (tar, first and last byte), and for every other data set a spool of
its pictures, written in its own order.
"""

import array
import dataclasses
import hashlib
import itertools
import json
import os

import numpy as np
import tensorflow as tf

from stackgan_tf import manifest
from stackgan_tf.datasets import webdataset
from stackgan_tf.disk import write_whole
from stackgan_tf.parallel import in_order


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that is read but not yet decoded.

    Attributes:
        data: the bytes of its file, or the path.
        label: index of its class, None without classes.
        embeddings: float32 (n, dim), or None.
    """

    file_name: str
    data: bytes | str
    captions: tuple[str, ...]
    label: int | None = None
    embeddings: np.ndarray | None = None


@dataclasses.dataclass
class Survey:
    """What a source holds.

    Attributes:
        rows: {split: int64 (N, columns)}, the places.
        class_names: sorted; empty without classes.
        digest: changes when the input does.
        unreadable: {file: reason} of the pictures already seen to be useless.
    """

    rows: dict[str, np.ndarray]
    class_names: list[str]
    digest: str
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


class Folder:
    """A folder with `captions.jsonl`."""

    def __init__(self, data_dir: str, with_text: bool, class_names=()):
        self.data_dir, self.with_text = data_dir, with_text
        self.labels = {name: i for i, name in enumerate(class_names)}

    def survey(self, report) -> Survey:
        """Checks every line, opens no picture; ValueError names the line. report(count) is called
        now and then."""
        offsets = {split: array.array("q") for split in (None, "train", "test")}
        paths, classes, digest = array.array("q"), set(), hashlib.sha256()
        numbers = array.array("q")
        for count, (line, offset) in enumerate(
                manifest.iterate(self.data_dir, self.with_text), 1):
            offsets[line.split].append(offset)
            stat = os.stat(line.path)  # a picture exchanged for another shows here
            digest.update(f"{line}{stat.st_size} {int(stat.st_mtime)}\n".encode())
            paths.append(_hash(str(line.path)))
            numbers.append(line.number)
            if line.class_name is not None:
                classes.add(line.class_name)
            if count % 10_000 == 0:
                report(count)
        self._refuse_twice(np.array(paths), np.array(numbers), offsets)
        rows = {split or "train": np.array(places, np.int64)[:, None]
                for split, places in offsets.items() if places}
        return Survey(rows, sorted(classes), digest.hexdigest())

    def _refuse_twice(self, hashes, numbers, offsets):
        """The manifest's own check, without a dictionary of a million paths."""
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if not len(same):
            return
        first = {}
        suspects = set(numbers[order[same]]) | set(numbers[order[same + 1]])
        for line, _ in manifest.iterate(self.data_dir, self.with_text):
            if line.number in suspects:
                manifest.check_new(line, first.setdefault(line.path, line.number))

    def read(self, row) -> Picture:
        line = manifest.line_at(self.data_dir, int(row[0]), self.with_text)
        return Picture(line.file, str(line.path), line.captions, self.labels.get(line.class_name))


class Tars:
    """WebDataset tar shards, local or gs://.

    Attributes:
        tars: their paths, which `read`'s rows count; looked for unless they are given.
    """

    def __init__(self, data_dir: str, with_text: bool, class_names=(), tars=()):
        self.data_dir, self.with_text = data_dir, with_text
        self.labels = {name: i for i, name in enumerate(class_names)}
        self.splits = {} if tars else webdataset.find_tars(data_dir)
        self.tars = tars or tuple(sorted({*itertools.chain(*self.splits.values())}))

    def survey(self, report) -> Survey:
        """Reads every header and text; ValueError for a damaged tar."""
        classes, digest, unreadable, count = webdataset.Classes(), hashlib.sha256(), {}, 0
        test = set(self.splits["test"]) - set(self.splits["train"])
        places = {"train": array.array("q"), "test": array.array("q")}
        for number, tar in enumerate(self.tars):
            stat = tf.io.gfile.stat(tar)
            place = tar if "://" in tar else os.path.realpath(tar)  # however it is spelled
            digest.update(f"{place} {stat.length} {stat.mtime_nsec // 10**9}\n".encode())
            for sample in webdataset.iter_tar(tar, self.with_text):
                count += 1
                if sample.problem:
                    unreadable[sample.file_name] = sample.problem
                    continue
                classes.add(sample)
                places["test" if tar in test else "train"].extend(
                    (number, sample.start, sample.end))
                if count % 10_000 == 0:
                    report(count)
        rows = {split: np.array(flat, np.int64).reshape(-1, 3)
                for split, flat in places.items() if flat}
        return Survey(rows, sorted(classes.names), digest.hexdigest(), unreadable)

    def read(self, row) -> Picture:
        number, start, end = map(int, row)
        sample = webdataset.read_sample(self.tars[number], start, end, self.with_text)
        if sample.problem:
            raise ValueError(sample.problem)
        return Picture(sample.file_name, sample.picture, sample.captions,
                       self.labels.get(sample.class_name))


class Spool:
    """The examples of any other data set, ready-made, in chunks as they came.

    A chunk `train-00000` holds serialized examples end to end; `train-00000.json`, written after
    it, their ends and a digest of what they were made from.
    """

    CHUNK = 1024

    def __init__(self, path: str):
        self.path = path

    def _chunk(self, split, number):
        return os.path.join(self.path, f"{split}-{number:05d}")

    def write(self, split: str, elements, encode, threads: int, report) -> int:
        """Spools a split; goes on where it stopped before.

        Args:
            elements: iterator of the data set's dicts, from the first. Few are in memory at a time.
            encode: element -> bytes, by so many threads.

        Returns:
            the number of elements.

        Raises:
            ValueError: what was spooled before has changed since.
        """
        done = os.path.join(self.path, f"{split}.json")
        count = (read_json(done) or {}).get("count")
        if count is not None and len(self.rows(split)) == count:
            return count
        elements, number, count = iter(elements), 0, 0
        while True:
            name, spooled = self._chunk(split, number), self._spooled(split, number)
            digest, examples = hashlib.sha256(), []
            for own_digest, example in in_order(
                    lambda element: (_digest(element), b"" if spooled else encode(element)),
                    itertools.islice(elements, self.CHUNK), threads):
                digest.update(own_digest)
                examples.append(example)
            if not examples:
                break
            if not spooled:
                write_whole(name, b"".join(examples), shared=True)
                write_whole(name + ".json", json.dumps({
                    "digest": digest.hexdigest(),
                    "ends": np.cumsum(list(map(len, examples))).tolist(),
                }).encode(), shared=True)
            elif spooled["digest"] != digest.hexdigest():
                raise ValueError(f"the data set's pictures {count} to {count + len(examples)} of "
                                 f"split {split} have changed since this was begun; choose another "
                                 "--output.")
            number, count = number + 1, count + len(examples)
            report(count)
        write_whole(done, json.dumps({"count": count}).encode(), shared=True)
        return count

    def _spooled(self, split, number):
        """What is said of a chunk; None if it is not there, or not as long as that says."""
        name = self._chunk(split, number)
        said = read_json(name + ".json", "digest", "ends")
        whole = said and said["ends"] and length(name) == said["ends"][-1]
        return said if whole else None

    def rows(self, split: str) -> np.ndarray:
        """int64 (N, 3): chunk, first and last byte; the split is the caller's to remember."""
        found, number = [], 0
        while spooled := self._spooled(split, number):
            ends = np.array(spooled["ends"], np.int64)
            starts = np.concatenate([[0], ends[:-1]])
            found.append(np.stack([np.full(len(ends), number), starts, ends], 1))
            number += 1
        return np.concatenate(found) if found else np.zeros((0, 3), np.int64)

    def read_example(self, split: str, row) -> bytes:
        number, start, end = map(int, row)
        with tf.io.gfile.GFile(self._chunk(split, number), "rb") as file:
            file.seek(start)
            return file.read(end - start)


def _digest(element):
    """Of its name, captions and picture."""
    digest = hashlib.sha256()
    names = [repr(element.get(key)) for key in ("file_name", "label")]
    digest.update("\n".join([*names, *map(repr, element.get("captions", ()))]).encode())
    for key in ("image", "embeddings"):
        if key in element:
            digest.update(np.ascontiguousarray(element[key]))
    return digest.digest()


def _hash(text):
    """A signed 64-bit hash, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"),
                                          digest_size=8).digest(), "little", signed=True)


def read_json(path: str, *names: str) -> dict | None:
    """What a file of ours says; None if it is not there, is damaged or lacks one of the names:
    then what it tells of is made again."""
    try:
        with tf.io.gfile.GFile(path) as file:
            said = json.load(file)
    except (ValueError, RecursionError, tf.errors.NotFoundError):
        return None
    return said if isinstance(said, dict) and all(name in said for name in names) else None


def length(path: str) -> int | None:
    """Of a file, in bytes; None if it is not there."""
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.NotFoundError:
        return None
