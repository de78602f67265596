"""What `prepare` copies of a data set that is neither a folder nor tars, before it makes shards."""

import itertools
from collections.abc import Callable

import numpy as np

from stackgan_tf import build, shards
from stackgan_tf.config import Config, UserError
from stackgan_tf.messages import printable
from stackgan_tf.pipeline import text

LOOKED_AT = 50  # pictures of a split, for one that has a caption: a picture or two may lack theirs


def kind_of(config: Config) -> tuple[list[str], dict]:
    """Looks at the beginning of each split, so that what cannot be read is said before anything
    is written.

    Returns:
        the splits that have pictures, and the fields of shards.Plan that tell what their elements
        hold.

    Raises:
        UserError: one cannot be read, is of another kind than the other, or has nothing to say of
            its pictures.
    """
    splits, kind = [], {}
    for split in ("train", "test"):
        try:
            first = _first_element(build.load_elements(config, split))
        except build.NoSplit as error:
            if split == "train":
                raise
            print("without a split test:", printable(str(error)), flush=True)
            continue
        if first is None:
            continue
        dim = int(np.shape(first["embeddings"])[-1]) if "embeddings" in first else 0
        own = {"has_labels": "label" in first, "embedding_dim": dim}
        kind = kind or own
        if own != kind:
            raise UserError(f"the splits of --data_dir={config.data_dir} are of two kinds, train "
                            f"{_described(kind)}, {split} {_described(own)}; make them alike.")
        if config.embedding_dim and not dim and "captions" not in first:
            raise UserError(f"--dataset={config.dataset} has neither captions nor embeddings; "
                            "for training without text add --embedding_dim=0.")
        splits.append(split)
    return splits, kind


def _first_element(elements):
    """The first that has captions or embeddings, else the first; None of none."""
    first = None
    for element in itertools.islice(elements, LOOKED_AT):
        if "captions" in element or "embeddings" in element:
            return element
        first = first or element
    return first


def _described(kind):
    embeddings = f"of {kind['embedding_dim']} numbers" if kind["embedding_dim"] else "none"
    return f"with{'' if kind['has_labels'] else 'out'} classes (embeddings: {embeddings})"


def encoder(plan: shards.Plan) -> Callable[[dict], bytes]:
    """element -> the example that its shard will hold."""
    record = plan.features()

    def encode(element):
        return shards.serialize(
            record, shards.square_jpegs(element["image"], plan.max_size, plan.small_size),
            text(element.get("file_name", "")), [text(c) for c in element.get("captions", ())],
            element.get("label"), element.get("embeddings"))

    return encode
