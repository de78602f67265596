"""Training batches straight from a prepared set's shards, of any size, in bounded memory.

Each epoch takes the shards in another order, one after another, cut into blocks of about
`buffer` pictures, each shuffled by itself. (The shards hold random samples already.) Which
picture, crop, captions and wrong captions a row has follows from (seed, epoch, block): a stream
can begin at any step, and reads at most one block's worth that it does not use.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from stackgan_tf import pipeline
from stackgan_tf.config import UserError
from stackgan_tf.messages import reason

# What the generators of a seed are for: 0 to 2, 5 and 6 are pipeline's and the text encoder's.
_SHARDS, _BLOCK = 3, 4


@dataclasses.dataclass(frozen=True)
class Order:
    """Which records come when.

    Attributes:
        lengths: pictures in each shard.
        buffer: most pictures that a block has.
    """

    lengths: tuple[int, ...]
    buffer: int
    seed: int

    @property
    def total(self) -> int:
        return sum(self.lengths)

    @property
    def blocks(self) -> int:
        """Blocks of an epoch; nearly equal, so that none is too small to find wrong pairs in."""
        return -(-self.total // self.buffer)

    def bounds(self, block: int) -> tuple[int, int]:
        """First place of a block in its epoch, and the first behind it."""
        return block * self.total // self.blocks, (block + 1) * self.total // self.blocks

    def block_of(self, row: int) -> int:
        """Number of the block, counted over all epochs, that has the row-th picture of all."""
        epoch, place = divmod(row, self.total)
        block = place * self.blocks // self.total
        while self.bounds(block)[1] <= place:  # the division may point one too low
            block += 1
        return epoch * self.blocks + block

    def first_row(self, number: int) -> int:
        epoch, block = divmod(number, self.blocks)
        return epoch * self.total + self.bounds(block)[0]

    def segment(self, number: int) -> tuple[np.ndarray, int, int]:
        """Shards that a block lies in, records to skip in the first, records to take."""
        epoch, block = divmod(int(number), self.blocks)
        order = self.generator(_SHARDS, epoch).permutation(len(self.lengths))
        ends = np.cumsum(np.array(self.lengths)[order])
        first, last = self.bounds(block)
        start, stop = np.searchsorted(ends, [first, last - 1], side="right")
        return order[start:stop + 1], first - (ends[start - 1] if start else 0), last - first

    def generator(self, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(
            np.random.SeedSequence([self.seed, *purpose])))


class Stream:
    """Batches of a prepared set; stands in for pipeline.Batches.

    Args:
        prepared: the training split, see datasets/prepared.py.
        image_size, load_size: pictures are brought to load_size and cropped to image_size.
        batch_size: of the whole step, over all workers.
        captions_per_embedding, seed: as in Config.
        buffer: pictures of a block.
        worker, workers: this worker gives the rows worker * batch_size / workers and on of each
            batch; all workers together give the batch that one would.

    Attributes:
        encoder: captions -> embeddings, to be set where the set has none of its own.
    """

    def __init__(self, prepared, image_size, load_size, batch_size, seed, buffer,
                 captions_per_embedding=1, worker=0, workers=1):
        if len(prepared) < batch_size:
            raise UserError(f"--batch_size={batch_size} is more than the {len(prepared)} pictures "
                            f"of the data; try --batch_size={max(2, len(prepared) // 2)}.")
        if batch_size % workers:
            raise UserError(f"--batch_size={batch_size} is not divisible by {workers} workers; "
                            f"try {batch_size - batch_size % workers}.")
        self.prepared = prepared
        self.order = Order(tuple(prepared.lengths), buffer, seed)
        self.image_size, self.load_size = image_size, load_size
        self.batch_size, self.captions_per_embedding = batch_size, captions_per_embedding
        self.worker, self.workers = worker, workers
        self.field = "small" if prepared.small_size == load_size else "image"
        self.encoder: Callable | None = None
        self.error: UserError | None = None  # that ended the reading

    def __len__(self):
        return len(self.prepared)

    def dataset(self, start: int, stop: int) -> Iterator[dict]:
        """What pipeline.Batches.dataset gives, and `flips`: real_images uint8, and embeddings and
        mismatched_embeddings if there are any."""
        for rows in self.rows(start, stop):
            batch = {"real_images": rows["image"], "flips": rows["flip"]}
            if self.prepared.embedding_dim:
                batch |= {name: rows[name] for name in ("embeddings", "mismatched_embeddings")}
            elif self.encoder is not None:
                batch |= self._embed(rows)
            yield batch

    def _embed(self, rows):
        captions = tf.stack([rows["captions"], rows["mismatched_captions"]])  # (2, B, k)
        vectors = tf.reshape(self.encoder(tf.reshape(captions, [-1])), [*captions.shape, -1])
        # "" stands where a picture has fewer captions
        there = tf.cast(captions != "", tf.float32)[..., None]
        right, wrong = tf.unstack(tf.reduce_sum(vectors * there, 2) / tf.reduce_sum(there, 2))
        return {"embeddings": right, "mismatched_embeddings": wrong}

    def text_mean(self, most: int = 1024) -> np.ndarray:
        """The mean embedding of the first `most` pictures' captions: float64 (dim,)."""
        batches = self.dataset(0, -(-min(most, len(self)) // self.batch_size))
        return np.mean([np.mean(batch["embeddings"], 0, np.float64) for batch in batches], 0)

    def rows(self, start: int, stop: int) -> Iterator[dict]:
        """The rows of steps start..stop-1 that are this worker's, as batches of: image uint8 (B,
        S, S, 3), flip bool (B,), whether the image is still to be mirrored, file_name, label (0
        without classes), captions and mismatched_captions string (B, k); in their place, with
        stored embeddings, embeddings and mismatched_embeddings."""
        if start < stop:
            with self._readable():
                yield from self._batches(start, stop)

    @contextlib.contextmanager
    def _readable(self):
        """Says in one line what cannot be read."""
        try:
            yield
        except tf.errors.OpError as error:
            folder = os.path.dirname(self.prepared.paths[0])
            self.error = UserError(f"{folder} cannot be read: {reason(error)}; see to the disk, or "
                                   "prepare it anew.")
            raise self.error from error

    def _batches(self, start, stop):
        first = self.order.block_of(start * self.batch_size)
        last = self.order.block_of(stop * self.batch_size - 1)

        def block(number, records):
            return self._block(number, records, start * self.batch_size, stop * self.batch_size)

        # One block is made while the one before it is used: two are in memory.
        blocks = tf.data.Dataset.range(first, last + 1).flat_map(self._read).map(
            block, num_parallel_calls=1, deterministic=True)
        rows = blocks.unbatch().map(self._decode, os.cpu_count() or 2, deterministic=True)
        batches = rows.batch(self.batch_size // self.workers, drop_remainder=True)
        return pipeline.untuned(batches.prefetch(4))

    def _read(self, number):
        """The serialized records of a block as one element: number, string (n,)."""
        paths = tf.constant(self.prepared.paths)
        shards, skip, take = tf.numpy_function(
            lambda n: tuple(map(np.int64, self.order.segment(n))), [number], [tf.int64] * 3)
        shards, skip, take = (tf.ensure_shape(value, shape)
                              for value, shape in ((shards, [None]), (skip, []), (take, [])))
        data = tf.data.TFRecordDataset(tf.gather(paths, shards)).skip(skip).take(take)
        return data.batch(take).map(lambda records: (number, records))

    def _block(self, number, records, first_row, last_row):
        """The rows of a block, in their order, of those from first_row to last_row - 1."""
        records = tf.io.parse_example(records, self._spec())
        count = tf.shape(records["file_name"], tf.int64)[0]
        texts = records["embeddings" if self.prepared.embedding_dim else "captions"]
        lengths, labels = texts.row_lengths(), records.get("label", tf.zeros([count], tf.int64))
        order, wrong, crops, right_texts, wrong_texts = tf.numpy_function(
            lambda *values: self.plan(*values, first_row, last_row), [number, lengths, labels],
            [tf.int64] * 5)
        size = self.captions_per_embedding
        row = {"image": tf.gather(records[self.field], order), "label": tf.gather(labels, order),
               "file_name": tf.gather(records["file_name"], order),
               "crop": tf.ensure_shape(crops[:, :2], [None, 2]), "flip": crops[:, 2] > 0}
        for name, chosen in (("", right_texts), ("mismatched_", wrong_texts)):
            chosen = tf.ensure_shape(chosen, [None, size])
            row |= {name + kind: value for kind, value in self._texts(texts, chosen).items()}
        return row

    def _spec(self):
        spec = {self.field: tf.io.FixedLenFeature([], tf.string),
                "file_name": tf.io.FixedLenFeature([], tf.string)}
        if self.prepared.has_labels:
            spec["label"] = tf.io.FixedLenFeature([], tf.int64)
        if dim := self.prepared.embedding_dim:
            spec["embeddings"] = tf.io.RaggedFeature(
                tf.float32, partitions=[tf.io.RaggedFeature.UniformRowLength(dim)],
                row_splits_dtype=tf.int64)
        else:
            spec["captions"] = tf.io.RaggedFeature(tf.string, row_splits_dtype=tf.int64)
        return spec

    def _texts(self, texts, chosen):
        """The chosen captions of each row, or the mean of its chosen embeddings."""
        there = chosen >= 0
        if not self.prepared.embedding_dim:
            # a row without captions can only be read by who trains without text
            padded = tf.concat([texts.flat_values, [""]], 0)
            return {"captions": tf.gather(padded, tf.where(
                there, chosen, tf.size(padded, tf.int64) - 1))}
        there = tf.cast(there, tf.float32)[..., None]
        flat = tf.reshape(texts.flat_values, [-1, self.prepared.embedding_dim])
        vectors = tf.gather(flat, tf.maximum(chosen, 0)) * there
        return {"embeddings": tf.reduce_sum(vectors, 1) / tf.reduce_sum(there, 1)}

    def plan(self, number, lengths, labels, first_row, last_row):
        """What the rows of a block are: all that is random about them.

        Args:
            number: of the block, over all epochs.
            lengths, labels: (n,) captions and class of each of its records.

        Returns:
            int64: the record of each row (m,), that of its wrong caption (m,), top, left and
            flip of its crop (m, 3), and captions_per_embedding right and wrong captions, as
            indices into all of the block's, -1 where there are fewer (m, k).
        """
        epoch, block = divmod(int(number), self.order.blocks)
        generator = self.order.generator(_BLOCK, epoch, block)
        count, (begin, end) = len(lengths), self.order.bounds(block)
        if count != end - begin:
            raise ValueError("a shard holds fewer pictures than its metadata says")
        order = generator.permutation(count)
        wrong = pipeline.of_another_class(order, labels, generator)
        room = self.load_size - self.image_size
        crops = generator.integers([room + 1, room + 1, 2], size=(count, 3))
        right_texts = self._choose(order, lengths, generator)
        wrong_texts = self._choose(wrong, lengths, generator)
        rows = self.order.first_row(int(number)) + np.arange(count)
        share = self.batch_size // self.workers
        mine = (rows >= first_row) & (rows < last_row) & (
            rows % self.batch_size // share == self.worker)
        return tuple(values[mine].astype(np.int64) for values in (
            order, wrong, crops, right_texts, wrong_texts))

    def _choose(self, records, lengths, generator):
        size = self.captions_per_embedding
        most = max(int(lengths.max(initial=0)), size)
        keys = generator.random((len(records), most))
        keys[np.arange(most) >= lengths[records][:, None]] = 2.0  # behind those that are there
        chosen = np.argsort(keys, axis=1)[:, :size]
        starts = (np.cumsum(lengths) - lengths)[records][:, None]
        return np.where(chosen < lengths[records][:, None], starts + chosen, -1)

    def _decode(self, row):
        row = dict(row)
        crop = row.pop("crop")
        row["image"] = crop_jpeg(row["image"], self.load_size, self.image_size, crop[0], crop[1],
                                 self.prepared.squares.get(self.field) == self.load_size)
        return row


def crop_jpeg(jpeg, load_size: int, size: int, top, left, is_square: bool = False):
    """Decodes a crop only: what resizing the centred square to load_size and cropping it gives.

    Args:
        jpeg: scalar string.
        top, left: int64 scalars, of the crop in the resized square.
        is_square: that the picture is a square of load_size is known, and not looked for.

    Returns:
        uint8 (size, size, 3).
    """
    def exact():  # `prepare` leaves most pictures so; few operations, which cost as they count
        if size == load_size:
            return tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
        return _decode_part(jpeg, top, left, size, size)

    if is_square:
        return tf.ensure_shape(exact(), [size, size, 3])
    shape = tf.io.extract_jpeg_shape(jpeg)[:2]
    image = tf.cond(tf.reduce_all(shape == load_size), exact,
                    lambda: _crop_of_square(jpeg, tf.cast(shape, tf.int64), load_size, size, top,
                                            left))
    return tf.ensure_shape(image, [size, size, 3])


def _decode_part(jpeg, y, x, height, width):
    window = tf.cast(tf.stack([y, x, height, width]), tf.int32)
    return tf.image.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")


def _crop_of_square(jpeg, shape, load_size, size, top, left):
    """`crop_jpeg` of a picture that is no square of load_size; `shape` int64 (2,) is its."""
    side = tf.minimum(shape[0], shape[1])
    y, x = (shape[0] - side) // 2, (shape[1] - side) // 2

    def resized():
        # The part of the square that the crop is made of: two pixels of the smaller of the two
        # sizes around it are within the reach of the bicubic kernel.
        scale = tf.cast(side, tf.float64) / load_size
        reach = 2 * tf.maximum(scale, 1.0) + 1

        def window(first):
            first = tf.cast(first, tf.float64)
            low = tf.maximum(tf.cast(tf.floor(first * scale - reach), tf.int64), 0)
            high = tf.cast(tf.math.ceil((first + size) * scale + reach), tf.int64)
            return low, tf.minimum(high, side) - low

        (low_y, height), (low_x, width) = window(top), window(left)
        part = tf.cast(_decode_part(jpeg, y + low_y, x + low_x, height, width), tf.float32)
        factor = tf.cast(1 / scale, tf.float32)
        shift = [tf.cast(low, tf.float32) * factor - tf.cast(first, tf.float32)
                 for low, first in ((low_y, top), (low_x, left))]
        image = tf.raw_ops.ScaleAndTranslate(
            images=part[None], size=[size, size], scale=tf.stack([factor, factor]),
            translation=tf.stack(shift), kernel_type="keyscubic", antialias=True)[0]
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    return tf.cond(side == load_size,
                   lambda: _decode_part(jpeg, y + top, x + left, size, size), resized)


def as_dataset(batches: Iterator[dict]) -> tf.data.Dataset:
    """What `Stream.dataset` gives, for a loop inside a tf.function."""
    first = {name: tf.convert_to_tensor(value) for name, value in next(batches).items()}
    spec = {name: tf.TensorSpec(value.shape, value.dtype) for name, value in first.items()}
    return pipeline.untuned(tf.data.Dataset.from_generator(
        lambda: itertools.chain([first], batches), output_signature=spec).prefetch(2))
