"""What an evaluation compares: a run's pictures of held-out captions, and the real ones.

Picture i is of the i-th caption of an order that the seed alone decides, in which every picture's
first caption comes before one's second; behind the last caption it begins again, with other noise.
So 30,000 pictures begin with the same 1,000 that --count=1000 draws.
"""

import copy
import hashlib
import json
import os

import numpy as np

from stackgan_tf import build
from stackgan_tf.config import Config, UserError
from stackgan_tf.generate import Generator
from stackgan_tf.knobs import Knobs
from stackgan_tf.messages import printable
from stackgan_tf.metrics.r_precision import fewest_others
from stackgan_tf.pipeline import center_crop
from stackgan_tf.readings import collect, remove_others

MOST_REAL = 50_000  # a larger split is compared by its first so many


def choose_pairs(captions: list[int], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` different (picture, caption) places, every picture before one comes twice.

    Args:
        captions: how many each picture has. With fewer in all than `count`, all are taken.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(captions))
    places = [generator.permutation(number) for number in captions]
    pairs = [(i, places[i][turn]) for turn in range(max(captions)) for i in order
             if turn < captions[i]][:count]
    return tuple(np.array(pairs, int).reshape(-1, 2).T)


class Split:
    """The real pictures that are compared, and the captions that are drawn from.

    Args:
        config: of the data, `image_size` the side at which the pictures are compared.
        split: "train", "test", or "": test, if there is one.
        text: whether captions are drawn from; `embeds`: their words, not the data's embeddings.

    Attributes:
        examples: a pipeline.Examples.
        pictures, places: int (C,), of which picture and its which caption the C captions are, in
            the order in which they are drawn; empty without text.
    """

    def __init__(self, config: Config, split: str, seed: int, text: bool, embeds: bool):
        self.size, self.crop_margin = config.image_size, config.crop_margin
        self.seed, self.embeds = seed, embeds
        self.examples, self.split = _load(config, split)
        if len(self.examples.captions) == MOST_REAL:
            print(f"of the split {self.split}, no more than the first {MOST_REAL:,} pictures are "
                  "compared", flush=True)
        numbers = [len(row) for row in self.examples.captions]
        if text and not embeds:
            if self.examples.embeddings is None:
                raise UserError(f"--dataset={config.dataset} --data_dir={config.data_dir} has no "
                                "embeddings, which the run draws from; put them back.")
            numbers = np.diff(self.examples.offsets).tolist()
        if not text:
            numbers = [0]
        elif not any(numbers):
            raise UserError(f"the split {self.split} has no caption to draw from; give another "
                            "--split.")
        self.pictures, self.places = choose_pairs(numbers, sum(numbers), seed)

    def __len__(self):
        """Real pictures that are compared."""
        return min(len(self.examples.captions), MOST_REAL)

    def rows(self, count: int) -> np.ndarray:
        """Which captions the first `count` pictures are of: int (count,)."""
        return np.arange(count) % len(self.pictures)

    def texts(self, rows) -> list:
        """Captions, or embeddings, as the generator takes them."""
        examples, pairs = self.examples, zip(self.pictures[rows], self.places[rows])
        if self.embeds:
            return [examples.captions[i][j] for i, j in pairs]
        return [examples.embeddings[examples.offsets[i] + j] for i, j in pairs]

    def other_captions(self, count: float) -> int:
        """How many different ones other pictures of the first `count` have, beside the caption
        for which they are fewest."""
        rows = np.arange(min(count, len(self.pictures)))
        return fewest_others(self.pictures[rows], self.texts(rows))


class Drawings(Split):
    """A generator's pictures beside the real ones of a split.

    Attributes:
        knobs: of the generator, fields of knobs.Knobs.
        trained_on: how many of the real pictures the run has learnt from, by their names and
            captions; None if not known.
    """

    def __init__(self, generator: Generator, checkpoint_dir: str, config: Config, split: str,
                 seed: int):
        super().__init__(config, split, seed, generator.text, generator.embeds)
        self.generator, self.knobs = generator, {}
        self.trained_on = self._count_trained_on()
        digest = _digest(self.examples)
        self._real_folder = os.path.join(checkpoint_dir, "real_features",
                                         f"{_plain(config.dataset)}-{self.split}-{self.size}-{digest}")
        parent = os.path.join(generator.part.path, "evaluation")
        weights = hashlib.sha256(generator.fingerprint.encode()).hexdigest()[:12]
        remove_others(parent, weights)  # or each evaluation in the course of a training would stay
        self._fake_folder = os.path.join(parent, f"{weights}-{self.split}-{digest}-seed{seed}")

    def _count_trained_on(self):
        known = self.generator.part.read_trained_on()
        if known is None or self.examples.keys is None:
            return None
        count = int(np.isin(self.examples.keys, known).any(1).sum())
        if count and self.split == "test":
            print(f"warning: {count:,} of the {len(self):,} pictures of the split test have names "
                  "and captions that the run was trained on; for scores of new captions train "
                  "another --run on the data as it is split now.", flush=True)
        return count

    def turned(self, **knobs: float) -> "Drawings":
        """The same captions and noises, drawn with the knobs at these values."""
        other = copy.copy(self)
        other.knobs = Knobs(**knobs).turned()
        other._fake_folder += "".join(f"-{name}{value!r}" for name, value in other.knobs.items())
        return other

    def of_fakes(self, count: int, readers) -> dict:
        """What `readers` read off the first `count` pictures, as `collect` gives it."""
        def make(first, last):
            seeds = [(self.seed << 32) + i for i in range(first, last)]
            texts = self.texts(self.rows(count)[first:last]) if self.generator.text else None
            return self.generator.generate(texts, seeds, **self.knobs)

        return collect(self._fake_folder, count, make, readers, self._what())

    def of_each_caption(self, captions: int, each: int, readers) -> dict:
        """Likewise of `each` pictures of the first `captions` captions, those of one in a row."""
        def make(first, last):
            rows = np.arange(first, last) // each
            seeds = [(self.seed << 32) + 2**31 + i for i in range(first, last)]  # none of above
            return self.generator.generate(self.texts(rows), seeds, **self.knobs)

        return collect(f"{self._fake_folder}-each{each}", captions * each, make, readers,
                       f"{self._what()}, {each} of each caption")

    def _what(self):
        knobs = "".join(f" at {name} {value:g}" for name, value in self.knobs.items())
        return f"stage {self.generator.stage} pictures{knobs}"

    def of_real(self, readers) -> dict:
        """Likewise of the real pictures' centers, in the order of the data."""
        def make(first, last):
            return center_crop(self.examples.images[first:last], self.size)

        return collect(self._real_folder, len(self), make, readers, "real pictures")


def _load(config, split):
    if split:
        return build.load_examples(config, split, MOST_REAL), split
    try:
        return build.load_held_out(config, MOST_REAL), "test"
    except build.NoSplit as error:  # a folder need not have one
        examples = build.load_examples(config, "train", MOST_REAL)
        print("compared with the split train, from which the run has learnt: "
              f"{printable(str(error).splitlines()[0])}", flush=True)
        return examples, "train"


def _digest(examples):
    """Changes when captions, pictures or embeddings do: of pictures, a sixteenth of the rows and
    columns."""
    digest = hashlib.sha256(json.dumps(list(map(list, examples.captions))).encode())
    for first in range(0, len(examples.captions), 1000):
        digest.update(np.ascontiguousarray(examples.images[first:first + 1000, 8::16, 8::16]))
    if examples.embeddings is not None:
        for values in (examples.offsets, examples.embeddings):
            digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()[:12]


def _plain(name):
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
