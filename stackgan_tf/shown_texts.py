"""The texts that a training shows of itself: in its sample grids and in TensorBoard's Projector."""

import dataclasses
import itertools

import numpy as np

from stackgan_tf import build, projector, saved_parts
from stackgan_tf.config import Config, UserError
from stackgan_tf.messages import printable
from stackgan_tf.pipeline import text

MOST = 256  # points of the Projector; each has a picture to be drawn


@dataclasses.dataclass(frozen=True)
class Texts:
    """Captions of N pictures, one each.

    Attributes:
        captions: what they say; where the data has embeddings alone, the pictures' file names.
        embeddings: float32 (N, dim).
        classes: the names of the pictures' classes, None where they are not known.
    """

    captions: list[str]
    embeddings: np.ndarray
    classes: list[str] | None


def read(config: Config, count: int, encoder: saved_parts.TextEncoder | None = None
         ) -> tuple[Texts, Texts]:
    """`count` texts for the grid, and up to MOST for the Projector, the same at every start.

    They are of the test split, of "train" if there is none. One look at the first 64 * count
    pictures gives both.

    Args:
        encoder: embeds the captions; None takes the embeddings that the data has.
    """
    rows = first_rows(config, 64 * count, "captions" if encoder else "embeddings")
    # one further each time: data sets that go through their classes in turn are common
    step = len(rows) // count + 1
    if len(rows) >= count and (count - 1) * step >= len(rows):  # none twice
        step = len(rows) / count
    spread = [rows[int(i * step) % len(rows)] for i in range(count)]
    # at random: others are sorted by class
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:MOST])
    return _texts(spread, encoder), _texts([rows[i] for i in chosen], encoder)


def first_rows(config, most, name):
    """Of the first `most` elements those that have `name`, without their pictures; of "train" if
    none is held out, [] if there are none."""
    for split in ("test", "train"):  # there may be no test split
        try:
            elements = itertools.islice(build.load_elements(config, split), most)
            rows = [{k: v for k, v in element.items() if k != "image"} for element in elements
                    if len(element.get(name, ()))]
        except UserError as error:
            if split == "train":
                raise
            if not isinstance(error, build.NoSplit):  # damaged, and training needs it only to show
                print("warning: the samples show captions of training, for those of the split test "
                      f"cannot be read: {printable(str(error))}", flush=True)
            rows = []
        if rows:
            break
    return rows


def _texts(rows, encoder):
    """Caption i of picture i, so that all of their kinds are seen."""
    captions, vectors = [], []
    for i, row in enumerate(rows):
        known, embeddings = row.get("captions", ()), row.get("embeddings", ())
        named = encoder or len(known) == len(embeddings)  # else they are not in the same order
        place = i % len(known if encoder else embeddings)
        captions.append(text(known[place] if named else row["file_name"]))
        vectors += [] if encoder else [embeddings[place]]
    labels = [row.get("label") for row in rows]
    classes = None
    if None not in labels:
        classes = projector.class_names(
            [int(label) for label in labels], [text(row.get("file_name", "")) for row in rows])
    return Texts(captions, encoder(captions).numpy() if encoder else np.stack(vectors), classes)
