"""The training pictures that look most like a generated one: does the model copy?

Pictures are compared as 16x16 pixels of RGB: the distance is the root mean square difference, 0 to
255, the smaller of the picture's and its mirror image's (training mirrors too). So small, colors
and layout count, and details and the few pixels of a training crop do not.
"""

import contextlib
from collections.abc import Iterable

import numpy as np

from stackgan_tf import build, images
from stackgan_tf.config import UserError
from stackgan_tf.parallel import in_order
from stackgan_tf.pipeline import picture_keys, text
from stackgan_tf.progress import Progress

SIDE = 16
CHUNK = 256  # training pictures compared at a time


def of_run(generator, pictures: np.ndarray, count: int, data_dir: str | None = None
           ) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` among the pictures that a run was trained on.

    Args:
        generator: a generate.Generator.
        data_dir: where they are now, if they were moved.

    Says so if other pictures lie there. Raises UserError if they are not known or cannot be read.
    """
    config = generator.data_config(data_dir=data_dir)
    bar = Progress("reading the training pictures", 0, None, unit=" pictures")
    known, seen, others = None, 0, 0
    with contextlib.suppress(UserError):  # damaged: not known
        known = generator.part.read_trained_on()
    known = None if known is None else set(known.tolist())

    def training():
        nonlocal seen, others
        for seen, element in enumerate(build.load_elements(config, "train"), 1):
            captions = [text(caption) for caption in element.get("captions", ())]
            if known is not None and "file_name" in element and captions:
                others += known.isdisjoint(picture_keys(element["file_name"], captions))
            bar.update(seen)
            yield element["image"]

    try:
        found = nearest(pictures, training(), count, config.crop_margin)
    finally:
        bar.close()
    if others:
        print(f"warning: {others:,} of these {seen:,} pictures have other names or captions than "
              f"those that run {generator.run!r} was trained on.", flush=True)
    return found


def nearest(pictures: np.ndarray, training: Iterable[np.ndarray], count: int, margin: float
            ) -> tuple[np.ndarray, np.ndarray]:
    """The `count` training pictures that are nearest to each of N, nearest first.

    Args:
        pictures: uint8 (N, S, S, 3).
        training: uint8 (H, W, 3) each, of any size, read once; one chunk is in memory at a time.
        margin: Config.crop_margin; the middle that a training crop has on average is compared.

    Returns:
        uint8 (N, count, S, S, 3) and distances float32 (N, count); with fewer than `count`
        training pictures, all of them.

    Raises UserError if there is no training picture.
    """
    size = pictures.shape[1]
    wanted = np.stack([features(picture) for picture in pictures])

    def prepare(picture):
        large = images.resize_square(picture, round(size * (1 + margin)))
        first = (len(large) - size) // 2
        middle = large[first:first + size, first:first + size]
        return middle, features(middle)

    best = [[] for _ in pictures]  # of each: (distance, number, picture)
    chunk, number = [], 0
    for prepared in in_order(prepare, training):
        chunk.append(prepared)
        if len(chunk) == CHUNK:
            _merge(best, chunk, wanted, count, number)
            chunk, number = [], number + CHUNK
    if chunk:
        _merge(best, chunk, wanted, count, number)
    if not best[0]:
        raise UserError("the training data hold no picture.")
    return (np.stack([[picture for _, _, picture in row] for row in best]),
            np.array([[distance for distance, _, _ in row] for row in best], np.float32))


def features(picture: np.ndarray) -> np.ndarray:
    """uint8 (S, S, 3) -> float32 (16, 16, 3), the mean color of each part; S a multiple of 16."""
    part = len(picture) // SIDE
    return picture.reshape(SIDE, part, SIDE, part, 3).mean((1, 3), np.float32)


def _merge(best, chunk, wanted, count, number):
    """Keeps the nearest of `best` and the chunk, whose first picture is the `number`-th."""
    others = np.stack([feature for _, feature in chunk])
    distances = np.minimum(_distances(wanted, others), _distances(wanted[:, :, ::-1], others))
    for i, row in enumerate(distances):
        for j in np.argsort(row, kind="stable")[:count]:
            best[i].append((float(row[j]), number + int(j), chunk[j][0]))
        best[i] = sorted(best[i], key=lambda found: found[:2])[:count]


def _distances(a, b):
    """float (N, 16, 16, 3), (M, 16, 16, 3) -> (N, M), root mean squares."""
    return np.stack([np.sqrt(np.square(row - b).mean((1, 2, 3))) for row in a])
