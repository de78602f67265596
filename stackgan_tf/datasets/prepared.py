"""A set made by `python -m stackgan_tf.prepare`: TFRecord shards, on disk or gs://.

Small ones are read into memory like any other data set, large ones are streamed (see stream.py);
--memory_gb says what is large.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds

from stackgan_tf.datasets import NoSplit

PLAN = "prepared.json"
_TFDS = "tensorflow_datasets.core.features."  # its own classes


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A split of a prepared set.

    Attributes:
        paths, lengths: its shards, and the number of pictures in each.
        captions: their number in all, or that of the embeddings.
        without_caption: pictures that have none, as far as the set knows.
        has_labels: whether each picture has a class.
        embedding_dim: of stored embeddings; 0 without.
        small_size: side of the small copies beside the pictures; 0 without.
        squares: {"image" or "small": side} of what is known to be squares of one size.
    """

    paths: tuple[str, ...]
    lengths: tuple[int, ...]
    captions: int
    without_caption: int
    has_labels: bool
    embedding_dim: int
    small_size: int
    squares: dict[str, int]

    def __len__(self):
        return sum(self.lengths)


def describe(config, split: str) -> Prepared:
    """What a split consists of, from the set's metadata alone.

    Raises:
        ValueError: one line, if config.data_dir is no whole prepared set or lacks the split.
    """
    builder, values = _open(config)
    if split not in builder.info.splits:
        raise NoSplit(f"data_dir={config.data_dir} has no split {split!r}; it has "
                      f"{', '.join(sorted(builder.info.splits))}.")
    info, features = builder.info.splits[split], builder.info.features
    embeddings = features["embeddings"].shape[-1] if "embeddings" in features else 0
    return Prepared(
        tuple(map(os.fspath, info.filepaths)), tuple(info.shard_lengths),
        values["captions"][split], _without_caption(values, split), "label" in features,
        embeddings, _small_size(builder, values), _squares(values, split))


def note(config) -> str:
    """What tells this set from others, wherever it lies: its size and a digest of its metadata."""
    _, values = _open(config)
    digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
    return f"{values['captions']['train']:,} captions, {PLAN} {digest[:8]}"


def embedding_dim(config) -> int:
    """Size of the embeddings that the run is to read; 0 if it reads captions, or no text."""
    return describe(config, "train").embedding_dim if reads_embeddings(config) else 0


def reads_embeddings(config) -> bool:
    """Whether the run is to read stored embeddings, if there are any."""
    return config.precomputed_embeddings and config.embedding_dim > 0


def _small_size(builder, values):
    return values["settings"]["small_size"] if "small" in builder.info.features else 0


# Of sets made by a version that did not note these, nothing is known.

def _squares(values, split):
    return dict(values.get("squares", {}).get(split, {}))


def _without_caption(values, split):
    return int(values.get("without_caption", {}).get(split, 0))


def load(config, split: str) -> tf.data.Dataset:
    """A split in the shards' order.

    Args:
        config: has `data_dir`, the folder that `prepare` made, local or gs://, and `load_size`:
            where the small copies are of this size, they are the pictures handed out.
        split: "train" or "test"; "test" only if the set was made with one.

    Returns:
        Dataset of dicts: image uint8 (H, W, 3), captions string (n,), file_name string, and
        label int64 or embeddings float32 (n, dim) where the set has them.

    Raises:
        ValueError: as `describe`.
    """
    describe(config, split)
    builder, values = _open(config)
    kept = "small" if _small_size(builder, values) == config.load_size else "image"
    jpegs = [name for name in ("image", "small") if name in builder.info.features]
    data = builder.as_dataset(
        split=split, shuffle_files=False,
        decoders={name: tfds.decode.SkipDecoding() for name in jpegs},
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False))

    def decode(row):
        # accurate as Pillow's is, and stream.py's
        image = tf.io.decode_jpeg(row[kept], channels=3, dct_method="INTEGER_ACCURATE")
        return {"image": image, **{name: row[name] for name in row if name not in jpegs}}

    return data.map(decode, tf.data.AUTOTUNE, deterministic=True)


def examples(config, split: str) -> Iterator[dict]:
    """What `load` hands out, as NumPy values; errors come from the call."""
    return load(config, split).as_numpy_iterator()


def _open(config):
    if not str(config.data_dir).strip():
        raise ValueError("data_dir is empty; give the folder that python -m stackgan_tf.prepare "
                         "made.")
    folder = os.path.expanduser(config.data_dir)
    path = os.path.join(folder, PLAN)
    if not tf.io.gfile.exists(path):
        raise ValueError(f"data_dir={config.data_dir} is no prepared set (it has no {PLAN}); make "
                         "one: python -m stackgan_tf.prepare --output=...")
    try:
        with tf.io.gfile.GFile(path) as file:
            values = dict(json.load(file))
        if "whole" in values:
            int(values["captions"]["train"]), int(values["settings"]["small_size"])
            for split in ("train", "test"):
                _squares(values, split), _without_caption(values, split)
            _refuse_foreign_classes(os.path.join(folder, "features.json"))
            return tfds.builder_from_directory(folder), values
    except Exception as error:  # on metadata that is damaged TFDS raises nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"data_dir={config.data_dir} cannot be read: {reason}; remove that folder "
                         "and prepare it anew: python -m stackgan_tf.prepare --output=..."
                         ) from error
    raise ValueError(f"data_dir={config.data_dir} is half made; give the command that began it, "
                     "python -m stackgan_tf.prepare, once more.")


def _refuse_foreign_classes(path):
    """ValueError if the features are of classes other than TFDS's, whose modules it would import:
    a data set that comes from somewhere shall not run anything."""
    with tf.io.gfile.GFile(path) as file:
        waiting = [json.load(file)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for key in ("pythonClassName", "python_class_name", "type"):  # the last: older TFDS
                name = value.get(key, _TFDS)
                if isinstance(name, str) and not name.startswith(_TFDS):
                    raise ValueError(f"its features.json asks for {name[:100]}, which was not "
                                     "imported")
