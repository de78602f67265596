"""TensorBoard's Projector: captions as points, where the text encoder puts them, as pictures."""

import os
from collections.abc import Iterable, Sequence

import numpy as np
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig

from stackgan_tf import images
from stackgan_tf.logs import Logs

CONFIG = "projector_config.pbtxt"  # in the folder of a log, by TensorBoard's rule
SIDE = 64  # of a point's picture at most: 16 x 16 of them are a megapixel


def write(logs: Logs, captions: Sequence[str], classes: Sequence[str] | None,
          embeddings: np.ndarray, pictures: Iterable[np.ndarray]) -> None:
    """Writes the Projector's files into the folder of a log, over older ones.

    Args:
        captions, classes: N labels, classes None where the data has none.
        embeddings: float (N, dim).
        pictures: N uint8 (S, S, 3), one of each caption.
    """
    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="captions")
    embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path = (
        f"projector/{name}" for name in ("embeddings.tsv", "captions.tsv", "pictures.png"))
    sheet, side = sprite(pictures)
    embedding.sprite.single_image_dim.extend([side, side])
    # the config last: it names only what is there
    for name, data in ((embedding.tensor_path, numbers(embeddings)),
                       (embedding.metadata_path, metadata(captions, classes)),
                       (embedding.sprite.image_path, images.encode_png(sheet)),
                       (CONFIG, text_format.MessageToString(config).encode())):
        if not logs.write(name, data):
            return


def numbers(embeddings: np.ndarray) -> bytes:
    """Rows of five digits, which take half the room of all and look the same."""
    return "".join("\t".join(f"{value:.5g}" for value in row) + "\n"
                   for row in np.asarray(embeddings, np.float32).tolist()).encode()


def metadata(captions: Sequence[str], classes: Sequence[str] | None) -> bytes:
    """A table with a heading; or, without classes, a plain list, which has none."""
    rows = [("caption", "class"), *zip(captions, classes)] if classes else zip(captions)
    # a tab or a line's end in a caption would be another column or row
    return "".join("\t".join(" ".join(field.split()) or "-" for field in row) + "\n"
                   for row in rows).encode()


def sprite(pictures: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """A square sheet with as many columns as rows, as the Projector wants it, and a picture's side.

    The pictures are made small one by one: they may come from a generator of large ones.
    """
    small = np.stack([images.resize_square(p, min(SIDE, len(p))) for p in pictures])
    side, count = small.shape[1], int(np.ceil(np.sqrt(len(small))))
    cells = np.zeros((count * count, side, side, 3), np.uint8)
    cells[:len(small)] = small
    rows = cells.reshape(count, count, side, side, 3).swapaxes(1, 2)
    return rows.reshape(count * side, count * side, 3), side


def class_names(labels: Sequence[int], files: Sequence[str]) -> list[str]:
    """The folders' names where each class has a folder of its own, else the numbers."""
    folders = [os.path.dirname(name) for name in files]
    if len(set(zip(labels, folders))) == len(set(labels)) == len(set(folders)):
        return folders
    return [str(label) for label in labels]
