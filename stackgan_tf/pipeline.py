"""From a data set's examples to training batches, each a pure function of (seed, step).

The pictures are read once, brought to 76/64 of the size that training wants, and kept as uint8 in
a temporary file that the system's page cache holds while memory lasts. Any batch can then be made
at once, so a resumed run goes on exactly where it stopped, without skipping through the data.
"""

import collections
import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from stackgan_tf import images
from stackgan_tf.config import UserError
from stackgan_tf.parallel import in_order


class Examples:
    """A split in random-access form.

    Attributes:
        images: uint8 (N, S, S, 3), mapped from a file.
        captions: N lists of str; empty lists where the data has none.
        labels: int64 (N,), or None without classes.
        embeddings: float32 (M, dim), mapped from a file, of all pictures after each other; None
            where the data has none.
        offsets: int64 (N + 1,), where each picture's embeddings begin; None likewise.
        extra: {name: array (N, ...)} of whatever else the data set gives of fixed shape.
        keys: uint64 (N, 2), each picture's `picture_keys`; None where the data does not give both
            names and captions.
        kept_keys: uint64 (N,), of each the one that tells it from pictures of other splits: that
            of its whole path where others here have the same captions, such as their class's.
    """

    def __init__(self, elements: Iterable[dict], size: int):
        """Reads every element of a data set (a dict of NumPy values, see datasets/)."""
        self.captions, labels, extra = [], [], collections.defaultdict(list)
        self._pixels = hashlib.sha256()  # of each 16th row and column, while they are in memory
        # Deleted by the system when the process ends, however it ends.
        self._file = tempfile.TemporaryFile(prefix="stackgan_tf_")
        self._vectors = tempfile.TemporaryFile(prefix="stackgan_tf_")  # COCO's are 1.7 GB
        self.embeddings, self.offsets, dims, rows = None, None, set(), []

        def shrink(element):
            return {**element, "image": images.resize_square(element["image"], size)}

        for element in in_order(shrink, elements):  # few at a time: photographs take 36 MB each
            self._write(self._file, element["image"])
            self._pixels.update(np.ascontiguousarray(element["image"][8::16, 8::16]))
            self.captions.append([text(c) for c in element.get("captions", ())])
            if "label" in element:
                labels.append(int(element["label"]))
            if "embeddings" in element:
                vectors = np.asarray(element["embeddings"], np.float32)
                dims.add(vectors.shape[1:])
                rows.append(len(vectors))
                self._write(self._vectors, vectors)
            for name, value in _flat(element):
                extra[name].append(value)
        count = len(self.captions)
        if not count:
            raise UserError("the data set holds no picture; add some to --data_dir, or choose "
                            "another --dataset.")
        self._file.flush()
        self.images = np.memmap(self._file, np.uint8, "r", shape=(count, size, size, 3))
        self.labels = np.array(labels) if labels else None
        if rows:
            self._map_embeddings(dims, rows)
        self.extra = {name: np.array(values) for name, values in extra.items()}
        self._paths = [text(name) for name in self.extra.get("file_name", ())]
        self._names = list(map(_without_folders, self._paths))
        self.keys = self.kept_keys = None
        if len(self._names) == count and all(self._names) and all(self.captions):
            self.keys, self.kept_keys = self._keys()

    def _map_embeddings(self, dims, rows):
        if len(dims) != 1 or len(rows) != len(self) or 0 in rows:
            raise UserError(f"the pictures' embeddings do not go together: {len(rows)} of "
                            f"{len(self)} pictures have some, of sizes {sorted(dims)}; give each "
                            "the same.")
        (dim,), = dims
        self._vectors.flush()
        self.embeddings = np.memmap(self._vectors, np.float32, "r", shape=(sum(rows), dim))
        self.offsets = np.cumsum([0] + rows)

    def note(self) -> str:
        """What tells this data from other data, wherever it lies: its size, and digests. Notes of
        older versions have the first two parts alone, see run_folder.alike."""
        labels = [] if self.labels is None else self.labels.tolist()
        parts = {"captions and classes": json.dumps([self.captions, labels]).encode()}
        if self._names:
            parts["names"] = "\n".join(self._names).encode()
        if self.embeddings is not None:
            parts["embeddings"] = np.ascontiguousarray(self.embeddings[::16])
        digests = {name: hashlib.sha256(data) for name, data in parts.items()}
        digests[f"pixels at {self.images.shape[1]}"] = self._pixels
        return ", ".join([f"{len(self):,} pictures", *(
            f"{name} {digest.hexdigest()[:8]}" for name, digest in digests.items())])

    def _keys(self):
        keys = np.array(list(map(picture_keys, self._paths, self.captions)), np.uint64)
        seen = collections.Counter(map(tuple, self.captions))
        repeated = np.array([seen[tuple(row)] > 1 for row in self.captions])
        return keys, np.where(repeated, keys[:, 1], keys[:, 0])

    def shuffle_captions(self, seed: int) -> None:
        """Gives each picture the captions, or embeddings, of another one: a control that has
        nothing to learn but what all pictures have in common.

        Which one follows from the seed. It may be of the same class, as by chance: were it never,
        scores would come out below chance.
        """
        order, others = _generator(seed, 6, 0).permutation(len(self)), np.arange(len(self))
        others[order] = np.roll(order, 1)  # a single cycle: no picture keeps its own
        self.captions = [self.captions[i] for i in others]
        if self.embeddings is not None:
            rows = [self.embeddings[self.offsets[i]:self.offsets[i + 1]] for i in others]
            self._vectors = tempfile.TemporaryFile(prefix="stackgan_tf_")
            for vectors in rows:
                self._write(self._vectors, vectors)
            self._map_embeddings({self.embeddings.shape[1:]}, [len(vectors) for vectors in rows])

    def _write(self, file, chunk):
        try:
            file.write(chunk.tobytes())
        except OSError as error:
            raise UserError(f"no room for the prepared pictures in {tempfile.gettempdir()} "
                            f"({error.strerror}); point TMPDIR at a larger disk.") from error

    def __len__(self):
        return len(self.captions)


def picture_keys(name: str | bytes, captions: list[str]) -> tuple[int, int]:
    """By which a picture is known in another split or folder, 64 bits each: of its captions, and
    of its file's name without folders, which may be renamed, and with them."""
    return tuple(int.from_bytes(hashlib.sha256(json.dumps([shown, captions]).encode()).digest()[:8])
                 for shown in (_without_folders(text(name)), text(name)))


def _without_folders(name):
    return name.rsplit("/", 1)[-1]


def text(caption) -> str:
    """A caption as str, from bytes (TFDS) or str."""
    return caption.decode("utf-8", "replace") if isinstance(caption, bytes) else str(caption)


def _flat(element, prefix=""):
    """(name, value) of an element's further fields; nested names are joined by a slash."""
    for name, value in element.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{name}/")
        elif name not in ("image", "captions", "label", "embeddings"):
            yield prefix + name, value


def require_captions(captions: list[list[str]]) -> None:
    """UserError if a picture has none."""
    if not all(captions):
        raise UserError(f"{sum(not row for row in captions)} of {len(captions)} pictures have no "
                        "caption; give each one, or train without text: --embedding_dim=0.")


def embed(captions: list[list[str]], text_encoder: Callable):
    """Embeddings of every caption, each distinct caption once.

    Args:
        captions: N lists of str.
        text_encoder: list of str -> float32 (B, dim).

    Returns:
        float32 (sum of the list lengths, dim), and offsets int64 (N + 1,) into it.
    """
    require_captions(captions)
    distinct = list(dict.fromkeys(caption for row in captions for caption in row))
    # by length, so that an encoder that pads to the longest of its batch pads little
    distinct.sort(key=len)
    vectors = []
    for start in range(0, len(distinct), 256):
        vectors.append(np.asarray(text_encoder(distinct[start:start + 256]), np.float32))
    vectors = np.concatenate(vectors)
    if not (finite := np.isfinite(vectors).all(1)).all():
        raise UserError(f"the text encoder embeds {distinct[finite.argmin()]!r} as numbers that "
                        "are not finite; take another --text_encoder, or that caption out.")
    place = {caption: i for i, caption in enumerate(distinct)}
    order = np.array([place[caption] for row in captions for caption in row])
    return vectors[order], np.cumsum([0] + [len(row) for row in captions])


class Batches:
    """Training batches of a stage: `batches(step)` gives the batch of that step.

    Args:
        examples: the training split.
        image_size: side of the random crop.
        batch_size: of the whole step, over all workers; seed: as in Config.
        captions_per_embedding: the mean of so many random captions of the picture is used.
        mismatch_candidates: a wrong caption comes from the nearest in meaning of so many random
            pictures of other classes, see `mismatched`.
        worker, workers: this worker gives the rows worker * batch_size / workers and on of each
            batch; all workers together give the batch that one would.
    """

    def __init__(self, examples, image_size, batch_size, seed, captions_per_embedding=1,
                 mismatch_candidates=1, worker=0, workers=1):
        if len(examples) < 2:
            raise UserError("the data has a single picture; training needs 2 at least: add some.")
        if len(examples) < batch_size:
            raise UserError(f"--batch_size={batch_size} is more than the {len(examples)} pictures "
                            f"of the data; try --batch_size={max(2, len(examples) // 2)}.")
        self.examples, self.embeddings, self.offsets = examples, None, None
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.captions_per_embedding = captions_per_embedding
        self.mismatch_candidates, self.means = mismatch_candidates, None
        self.local_batch_size = batch_size // workers
        self.mine = slice(worker * self.local_batch_size, (worker + 1) * self.local_batch_size)
        labels = examples.labels
        # with a single class there is no picture of another one: any other picture serves
        self.labels = None
        if labels is not None and np.ptp(labels) > 0:
            self.labels = np.unique(labels, return_inverse=True)[1]  # 0, 1, 2 ..., whatever the ids

    def set_embeddings(self, embeddings, offsets):
        """Adds embeddings, of `embed` or `Examples`; without it the batches have no text."""
        self.embeddings, self.offsets = embeddings, offsets
        if self.labels is not None and self.mismatch_candidates > 1:
            self.means = _class_means(embeddings, np.repeat(self.labels, np.diff(offsets)))

    @functools.lru_cache(maxsize=4)  # noqa: B019 - lives as long as the run
    def _order(self, epoch):
        return _generator(self.seed, 0, epoch).permutation(len(self.examples))

    def indices(self, step):
        """Which pictures step `step` sees: int64 (batch_size,)."""
        count = len(self.examples)
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._order(int(place // count))[place % count] for place in places])

    def mismatched(self, indices, generator):
        """Pictures of another class (or, without classes, other pictures): int64 (B,).

        Of `mismatch_candidates` random ones the one is taken whose class has the nearest captions
        on average: where a class is (shape, color), another shape of the same color. Random pairs
        differ in color nearly always, and a discriminator that looks at color alone rejects them.
        """
        other = self._mismatched(indices, generator)
        for _ in range(self.mismatch_candidates - 1):
            candidate = self._mismatched(indices, generator)
            if self.means is not None:
                nearer = self._distances(indices, candidate) < self._distances(indices, other)
                other = np.where(nearer, candidate, other)
        return other

    def _distances(self, rows, others):
        """float (B,): squared, of the mean embeddings of the pictures' classes."""
        return np.square(self.means[self.labels[rows]] - self.means[self.labels[others]]).sum(1)

    def _mismatched(self, indices, generator):
        names = np.arange(len(self.examples)) if self.labels is None else self.labels
        other = generator.integers(len(self.examples), size=len(indices))
        for _ in range(30):
            same = names[other] == names[indices]
            if not same.any():
                return other
            other[same] = generator.integers(len(self.examples), size=same.sum())
        # nearly all are of one class: drawing until another one comes would take for ever
        return of_another_class(indices, names, generator)

    def _choose(self, index, generator):
        """Places of random captions of a picture among all embeddings."""
        first, last = self.offsets[index], self.offsets[index + 1]
        return first + generator.permutation(last - first)[: self.captions_per_embedding]

    def crop(self, index, generator):
        """A random crop, mirrored every other time: uint8 (image_size, image_size, 3)."""
        return self._cut(index, *self._place(generator))

    def _place(self, generator):
        room = self.examples.images.shape[1] - self.image_size
        return (*generator.integers(room + 1, size=2), generator.integers(2))

    def _cut(self, index, top, left, mirrored):
        image = self.examples.images[index][top:top + self.image_size, left:left + self.image_size]
        return image[:, ::-1] if mirrored else image

    def __call__(self, step):
        """{"real_images" uint8, "embeddings", "mismatched_embeddings" float32}, NumPy; what is
        random about them is drawn for the rows of all workers, whose order it depends on."""
        step = int(step)
        indices, generator = self.indices(step), _generator(self.seed, 1, step)
        places = [self._place(generator) for _ in indices]
        batch = {"real_images": np.stack([self._cut(i, *place) for i, place in zip(
            indices[self.mine], places[self.mine], strict=True)])}
        if self.embeddings is not None:
            wrong = self.mismatched(indices, generator)
            for name, rows in (("embeddings", indices), ("mismatched_embeddings", wrong)):
                chosen = [self._choose(i, generator) for i in rows]
                batch[name] = np.stack([self.embeddings[c].mean(0) for c in chosen[self.mine]])
        return batch

    def __len__(self):
        """Pictures of an epoch."""
        return len(self.examples)

    def dataset(self, start: int, stop: int) -> tf.data.Dataset:
        """The batches of steps start..stop-1 as tensors, made ahead; images uint8."""
        size = self.image_size
        spec = {"real_images": ((self.local_batch_size, size, size, 3), tf.uint8)}
        if self.embeddings is not None:
            shape = (self.local_batch_size, self.embeddings.shape[1])
            spec |= {name: (shape, tf.float32) for name in ("embeddings", "mismatched_embeddings")}

        def make(step):
            values = tf.numpy_function(lambda s: list(self(s).values()), [step],
                                       [kind for _, kind in spec.values()], stateful=False)
            return {name: tf.ensure_shape(value, shape)
                    for value, (name, (shape, _)) in zip(values, spec.items(), strict=True)}

        steps = tf.data.Dataset.range(start, stop)
        return untuned(steps.map(make, num_parallel_calls=2, deterministic=True).prefetch(4))


def untuned(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same, without tf.data's search for the best parallelism: its thread sleeps for up to a
    minute at a time, and an iterator's end now and then waits for that."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _generator(seed, purpose, number):
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose, number])))


def of_another_class(rows, labels, generator):
    """For each row, an index into labels (N,), a random one of another class; where all are of one
    class, another one."""
    if len(labels) < 2:
        return rows
    if np.ptp(labels) == 0:
        labels = np.arange(len(labels))
    sorted_by_class = np.argsort(labels, kind="stable")
    ordered = labels[sorted_by_class]
    first = np.searchsorted(ordered, labels[rows], side="left")
    same = np.searchsorted(ordered, labels[rows], side="right") - first
    # one of those left when its own class is taken out of the row of all
    place = generator.integers(len(labels) - same)
    return sorted_by_class[np.where(place < first, place, place + same)]


def _class_means(embeddings, labels):
    """(C, dim): the classes' mean embeddings; labels int (N,), all of 0 ... C - 1."""
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))[:-1]
    return np.stack([embeddings[rows].mean(0) for rows in np.split(order, ends)])


def center_crop(pictures, image_size):
    """uint8 (N, S, S, 3) -> (N, image_size, image_size, 3), the middle: for evaluation."""
    first = (pictures.shape[1] - image_size) // 2
    return np.asarray(pictures[:, first:first + image_size, first:first + image_size])
