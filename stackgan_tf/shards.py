"""Shards of a prepared set: TFRecords that TFDS reads, each made by itself, in any process.

What is in a shard follows from the plan alone, so a shard can be made again, elsewhere or after a
kill, and is the same byte for byte. It is written beside its place and renamed; a report beside
the plan, written once it is on the disk, says that it is done.
"""

import dataclasses
import errno
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from multiprocessing import connection

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from stackgan_tf import disk, images, picture_files, sources
from stackgan_tf.processes import end_with_parent, stop_signals

NAME = "prepared"  # of the data set, in its shards' names
PROGRESS = ".progress"  # folder of what is only needed until the set is whole


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a process must know to make any shard.

    Attributes:
        output: the folder of the set.
        kind: "folder", "webdataset" or "spool".
        data_dir, with_text: of the source.
        tars: of a "webdataset", in the order in which the index counts them: one that is added
            meanwhile must not move the others.
        max_size: pictures of a shorter side above this are shrunk to it.
        small_size: side of a copy beside each picture; 0: none.
        has_labels, class_names: class_names is empty where only numbers are known.
        embedding_dim: of the embeddings that the data set itself brings; 0 without.
        pictures, shards: {split: number}.
    """

    output: str
    kind: str
    data_dir: str
    with_text: bool
    max_size: int
    small_size: int
    has_labels: bool
    class_names: list[str]
    embedding_dim: int
    pictures: dict[str, int]
    shards: dict[str, int]
    tars: tuple[str, ...] = ()

    def shard_path(self, split: str, number: int) -> str:
        name = f"{NAME}-{split}.tfrecord-{number:05d}-of-{self.shards[split]:05d}"
        return os.path.join(self.output, name)

    def report_path(self, split: str, number: int) -> str:
        return os.path.join(self.output, PROGRESS, f"{split}-{number:05d}.json")

    def index_path(self, split: str) -> str:
        return os.path.join(self.output, PROGRESS, f"{split}.index")

    def source(self):
        if self.kind == "spool":
            return sources.Spool(os.path.join(self.output, PROGRESS, "spool"))
        if self.kind == "webdataset":
            return sources.Tars(self.data_dir, self.with_text, self.class_names, self.tars)
        return sources.Folder(self.data_dir, self.with_text, self.class_names)

    def rows(self, split: str, number: int) -> np.ndarray:
        """The places of a shard's pictures: int64 (n, columns), in the shuffled order."""
        total, shards = self.pictures[split], self.shards[split]
        first, last = number * total // shards, (number + 1) * total // shards
        with tf.io.gfile.GFile(self.index_path(split), "rb") as file:
            columns = int.from_bytes(file.read(8), "little")
            file.seek(8 + first * columns * 8)
            data = file.read((last - first) * columns * 8)
        return np.frombuffer(data, "<i8").reshape(-1, columns)

    def write_index(self, split: str, rows: np.ndarray) -> None:
        header = rows.shape[1].to_bytes(8, "little")
        disk.write_whole(self.index_path(split), header + rows.astype("<i8").tobytes(), shared=True)

    def features(self) -> tfds.features.FeaturesDict:
        """What a record holds, in TFDS's words."""
        jpeg = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        fields = {"image": jpeg, "captions": tfds.features.Sequence(tfds.features.Text()),
                  "file_name": tfds.features.Text()}
        if self.small_size:
            fields["small"] = jpeg
        if self.has_labels:
            fields["label"] = (tfds.features.ClassLabel(names=self.class_names)
                               if self.class_names else tfds.features.Scalar(np.int64))
        if self.embedding_dim:
            fields["embeddings"] = tfds.features.Tensor(shape=(None, self.embedding_dim),
                                                        dtype=np.float32)
        return tfds.features.FeaturesDict(fields)


def stored_jpegs(picture: bytes | str, max_size: int, small_size: int) -> dict[str, bytes]:
    """The JPEGs that are stored for a picture (bytes or path of its file).

    An upright RGB JPEG that is small enough keeps its own bytes. Any other is cut to its centred
    square, which is all that training reads, shrunk if it is larger, and encoded.

    Returns:
        "image" and, if small_size is not 0, "small", made from the picture itself.

    Raises:
        ValueError: the picture cannot be read.
    """
    size = picture_files.plain_jpeg_size(picture)
    if size and min(size) <= max_size:
        data = picture
        if isinstance(picture, str):
            with open(picture, "rb") as file:
                data = file.read()
        try:  # decoded as training will, now rather than in the middle of it
            image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
            return {**square_jpegs(image, 0, small_size), "image": data}
        except tf.errors.InvalidArgumentError:
            pass  # Pillow reads kinds that TensorFlow does not, and says what is wrong
    return square_jpegs(picture_files.read_rgb(picture), max_size, small_size)


def square_jpegs(image: np.ndarray, max_size: int, small_size: int) -> dict[str, bytes]:
    """JPEGs of a picture's centred square, uint8 (H, W, 3): "image" of max_size at most and
    "small" of small_size at most; what has size 0 is left out."""
    sizes = {"image": max_size, "small": small_size}
    return {name: images.encode_jpeg(images.resize_square(image, min(*image.shape[:2], size)))
            for name, size in sizes.items() if size}


def serialize(record_features, jpegs, file_name, captions, label=None, embeddings=None) -> bytes:
    """A record: the bytes of a tf.train.Example, always the same for the same arguments."""
    fields = {name: io.BytesIO(jpeg) for name, jpeg in jpegs.items()}
    fields |= {"captions": list(captions), "file_name": file_name}
    if label is not None:
        fields["label"] = int(label)
    if embeddings is not None:
        fields["embeddings"] = np.asarray(embeddings, np.float32)
    data = record_features.serialize_example(fields)
    # protobuf writes a map in an order that differs from process to process
    return tf.train.Example.FromString(data).SerializeToString(deterministic=True)


def write_shard(plan: Plan, split: str, number: int) -> dict:
    """Makes a shard, unless it is there.

    Returns:
        {"count", "bytes", "captions", "without_caption": pictures, "unreadable": {file: reason},
        "squares": {field: side} of the fields whose JPEGs are all squares of one size}.
    """
    if done := read_report(plan, split, number):
        return done
    source, record_features = plan.source(), plan.features()
    unreadable, shapes, texts = {}, {}, []
    report, path = plan.report_path(split, number), plan.shard_path(split, number)
    beside = disk.own_name(report)
    with disk.replacing(path, beside), tf.io.TFRecordWriter(beside) as writer:
        for row in plan.rows(split, number):
            if plan.kind == "spool":
                record = source.read_example(split, row)
                fields = tf.train.Example.FromString(record).features.feature
                jpegs = {name: fields[name].bytes_list.value[0] for name in ("image", "small")
                         if name in fields}
                texts.append(max(len(fields["captions"].bytes_list.value), len(
                    fields["embeddings"].float_list.value) // max(1, plan.embedding_dim)))
            else:
                picture = source.read(row)
                try:
                    jpegs = stored_jpegs(picture.data, plan.max_size, plan.small_size)
                except ValueError as error:
                    unreadable[picture.file_name] = str(error)
                    continue
                record = serialize(record_features, jpegs, picture.file_name, picture.captions,
                                   picture.label, picture.embeddings)
                texts.append(len(picture.captions))
            for name, jpeg in jpegs.items():
                shape = tf.io.extract_jpeg_shape(jpeg).numpy()[:2]
                shapes.setdefault(name, set()).add(tuple(shape))
            writer.write(record)
    squares = {name: int(height) for name, found in shapes.items() for height, width in found
               if len(found) == 1 and height == width}
    done = {"count": len(texts), "bytes": sources.length(path), "captions": sum(texts),
            "without_caption": texts.count(0), "unreadable": unreadable, "squares": squares}
    disk.write_whole(report, json.dumps(done).encode(), shared=True)
    return done


def read_report(plan: Plan, split: str, number: int) -> dict | None:
    """What `write_shard` returned; None if the shard is not there as its report says."""
    done = sources.read_json(plan.report_path(split, number), "count", "bytes", "captions",
                             "unreadable")
    whole = done and sources.length(plan.shard_path(split, number)) == done["bytes"]
    return done if whole else None


def run(plan: Plan, tasks: list[tuple[str, int]], workers: int) -> Iterator[dict | None]:
    """Makes shards in `workers` processes; yields their reports as they come, None in between.

    A caller that stops listening ends the processes at once: a shard half made counts for nothing.

    Raises:
        ValueError, OSError: what a process failed with.
        RuntimeError: a process was killed.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":  # TensorFlow is imported once, its memory is shared
        context.set_forkserver_preload([__name__])
    open_ends, processes = [], []
    try:
        for worker in range(min(workers, len(tasks))):
            mine, theirs = context.Pipe(duplex=False)
            processes.append(context.Process(target=_work, daemon=True, args=(
                plan, tasks[worker::workers], theirs)))
            processes[-1].start()
            theirs.close()  # so that the end of the process is the end of the pipe
            open_ends.append(mine)
        while open_ends:
            ready = connection.wait(open_ends, timeout=0.5)
            for end in ready:
                try:
                    kind, value = end.recv()
                except EOFError:
                    raise RuntimeError("a worker process was killed (out of memory?)") from None
                if kind == "done":
                    open_ends.remove(end)
                elif kind == "shard":
                    yield value
                else:
                    raise value
            if not ready:
                yield None
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _work(plan: Plan, tasks: Iterable[tuple[str, int]], end) -> None:
    """The life of a worker process."""
    for number in stop_signals():  # a terminal's are the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    try:
        for split, number in tasks:
            end.send(("shard", write_shard(plan, split, number)))
        end.send(("done", None))
    except (ValueError, OSError) as error:
        end.send(("error", error))
    except tf.errors.OpError as error:  # cannot be sent itself
        full = isinstance(error, tf.errors.ResourceExhaustedError)
        end.send(("error", OSError(errno.ENOSPC if full else errno.EIO, error.message)))
