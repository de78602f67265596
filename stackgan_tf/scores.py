"""From a run's pictures to records of scores: what each metric reads, and what its numbers are
called.

A metric is a function of arrays in metrics/; its protocol stands in its record.
"""

import copy
import datetime
import math
import time

import numpy as np

from stackgan_tf import __version__, images
from stackgan_tf.attribute_classifier import ATTRIBUTES, IMAGE_SIZE
from stackgan_tf.attribute_judge import Judge, targets
from stackgan_tf.drawings import Drawings, Split
from stackgan_tf.features import Network
from stackgan_tf.joint_space import JointSpace
from stackgan_tf.metrics import (
    attribute_accuracy,
    diversity,
    frechet_distance,
    inception_score,
    kid,
    precision_recall,
    r_precision,
)
from stackgan_tf.readings import Reader
from stackgan_tf.run_folder import Part
from stackgan_tf.score_report import commit

OTHERS = 99  # captions that R-precision compares the own one with
CAPTIONS, EACH = 100, 10  # of diversity: so many pictures of so many captions at most
OF_NETWORK = ("frechet_distance", "kid", "inception_score", "precision_recall", "diversity")
REAL, GENERATED = "real pictures", "generated pictures"
OTHER = "different captions of other pictures to compare each with"
# The fewest that a metric is defined for: see metrics/. Any number will do for the others.
NEEDS = {"frechet_distance": {REAL: 2, GENERATED: 2}, "kid": {REAL: 2, GENERATED: 2},
         "inception_score": {GENERATED: 20}, "precision_recall": {REAL: 6, GENERATED: 6},
         "diversity": {REAL: 2}, "r_precision": {OTHER: OTHERS}}
# Names that belong to the 2015 Inception; those of any other network have its name behind them.
OF_INCEPTION = {"frechet_distance": "fid", "kid": "kid", "inception_score": "inception_score"}


def too_few(name: str, split: Split, count: int) -> tuple[str, str]:
    """What a metric needs more of than `count` pictures of this data give, and what helps; ("", "")
    if it can be measured."""
    found = {REAL: lambda count: len(split), GENERATED: lambda count: count,
             OTHER: split.other_captions}
    for what, needed in NEEDS.get(name, {}).items():
        if (there := found[what](count)) >= needed:
            continue
        if (most := found[what](math.inf)) < needed:
            return (f"needs {needed} {what}, and the split {split.split} has {most}",
                    "take more data" + " (or evaluate --split=train)" * (split.split == "test"))
        return (f"needs {needed} {what}, and --count={count} gives {there}",
                f"give a larger --count than {count}")
    return "", ""


class Scores:
    """The scores of one exported stage.

    Args:
        drawings: its pictures and the real ones.
        names: the metrics, all possible (see evaluation.py).
        count, seed: as in evaluation.Options.
        network, space, judge: what the metrics in `names` need; the rest is not asked.
    """

    def __init__(self, drawings: Drawings, names: list[str], count: int, seed: int,
                 network: Network | None, space: JointSpace | None, judge: Judge | None):
        self.drawings, self.names, self.count, self.seed = drawings, names, count, seed
        self.network, self.space, self.judge = network, space, judge
        self._begin, self._commit = time.monotonic(), commit()
        if "r_precision" in names and _learnt_by(drawings.generator.part):
            print("r_precision asks the encoders that the generator learnt by (--matching_weight): "
                  "no independent judge", flush=True)

    def turned(self, **knobs: float) -> "Scores":
        """The same of the same captions and noises, with the generator's knobs at these values."""
        other = copy.copy(self)
        other.drawings = self.drawings.turned(**knobs)
        return other

    def draw(self) -> None:
        """Reads off the pictures what any of the metrics needs, in one go; the rest is sums."""
        drawings, readers, names = self.drawings, [], {*self.names}
        if names & {*OF_NETWORK}:
            readers.append(Reader("network", f"{self.network.key}-{drawings.size}", self._features))
        if "r_precision" in names:
            readers.append(Reader("joint", f"image_encoder-{self.space.key}", self.space.read))
        if readers:
            self.real = drawings.of_real(readers)
        fakes = readers if names - {"attribute_accuracy", "diversity"} else []
        if "attribute_accuracy" in names:
            self.once = min(self.count, len(drawings.pictures))  # each caption counts once
            # with the others, so that no picture is drawn twice
            self.shown = drawings.of_fakes(self.once, [*fakes, Reader(
                "attributes", f"attributes-{self.judge.key}",
                lambda pictures: {"values": self.judge.read(images.shrink(pictures, IMAGE_SIZE))})])
        if fakes:
            self.fake = drawings.of_fakes(self.count, fakes)
        if "diversity" in names:
            each = max(2, min(EACH, self.count))
            captions = max(1, min(CAPTIONS, self.count // each, len(drawings.pictures)))
            within = drawings.of_each_caption(captions, each, readers[:1])["network"]["features"]
            self.within = within.reshape(captions, each, -1)

    def _features(self, pictures):
        size = self.drawings.size
        if pictures.shape[1] != size:
            pictures = np.stack([images.resize_square(picture, size) for picture in pictures])
        return self.network.read(pictures)

    def record(self, name: str) -> dict:
        """One metric's numbers, and all that decides on them; ValueError if there are none."""
        return getattr(self, f"_{name}")()

    # ------------------------------------------------------------------ of a network's features

    def _frechet_distance(self):
        real, fake = self._both("features")
        if min(len(real), len(fake)) <= real.shape[1]:
            print(f"warning: the covariance of {real.shape[1]:,} features of {len(real):,} real "
                  f"and {len(fake):,} generated pictures is singular; compare by kid.", flush=True)
        values = frechet_distance.compute(real, fake, seed=self.seed)
        return self._of_network("frechet_distance", values,
                                "means and covariances (N - 1) in float64")

    def _kid(self):
        values = kid.compute(*self._both("features"), seed=self.seed)
        return self._of_network("kid", values, "cubic kernel, unbiased, all pairs")

    def _inception_score(self):
        real, fake = self._both("logits")
        if len(fake) < 500:
            print(f"warning: the Inception Score of {len(fake)} pictures is that of parts of "
                  f"{len(fake) // 10}, which it cannot exceed; give a larger --count.", flush=True)
        values = inception_score.compute(fake, seed=self.seed)
        if len(real) >= 20:  # mixed: in the data's order a split may hold a few classes alone
            mixed = real[np.random.default_rng(self.seed).permutation(len(real))[:self.count]]
            values["inception_score/real"] = inception_score.compute(mixed, replicates=2)[
                "inception_score"]
        return self._of_network("inception_score", values, "10 splits in order; no bias in "
                                "Inception's logits")

    def _precision_recall(self):
        real, fake = self._both("features")
        number = min(len(real), len(fake))
        chosen = np.random.default_rng(self.seed).permutation(len(real))[:number]
        values = precision_recall.compute(real[np.sort(chosen)], fake[:number], seed=self.seed)
        return self._of_network("precision_recall", values, "k = 3; density and coverage k = 5; as "
                                "many real as generated", count=number, real_count=number)

    def _diversity(self):
        real = self.real["network"]["features"]
        chosen = np.random.default_rng(self.seed).permutation(len(real))[:1000]
        values = diversity.compute(self.within, real[chosen], seed=self.seed)
        captions, each = self.within.shape[:2]
        return self._of_network("diversity", values, f"{each} pictures of each of {captions} "
                                "captions; of 1: as two real pictures of any captions",
                                count=captions * each, real_count=len(chosen))

    def _both(self, what):
        return self.real["network"][what], self.fake["network"][what]

    def _of_network(self, metric, values, protocol, **more):
        network = self.network
        named = {}
        for key, value in values.items():
            name, slash, rest = key.partition("/")
            known = OF_INCEPTION.get(name) if network.is_inception else None
            named[(known or f"{name}_{network.name}") + slash + rest] = value
        known = OF_INCEPTION.get(metric) if network.is_inception else None
        return self._record(
            known or f"{metric}_{network.name}", named, protocol, network=network.name,
            weights=network.weights, resize=network.resize, **more)

    # ------------------------------------------------------------------ of captions

    def _r_precision(self):
        drawings = self.drawings
        rows = drawings.rows(self.count)
        texts = drawings.texts(rows)
        others = r_precision.choose_others(drawings.pictures[rows], texts, OTHERS, self.seed)
        captions = self.space.of_captions(drawings.generator.embed(texts))
        own, fake = np.arange(len(rows)), self.fake["joint"]["embeddings"]
        values = r_precision.compute(fake, captions, own, others)
        real = self.real["joint"]["embeddings"][drawings.pictures[rows]]
        values["r_precision/real"] = r_precision.compute(real, captions, own, others)["r_precision"]
        values["r_precision/chance"] = 1 / (1 + OTHERS)
        protocol = f"own caption against {OTHERS} of other pictures"
        if _learnt_by(drawings.generator.part):
            protocol += "; the generator learnt by these encoders"
        return self._record("r_precision", values, protocol, network="the run's own encoders",
                            weights=self.space.key)

    def _attribute_accuracy(self):
        drawings = self.drawings
        rows = drawings.rows(self.once)
        pictures, places = drawings.pictures[rows], drawings.places[rows]
        examples = drawings.examples
        arrays = (self.shown["attributes"]["values"], targets(examples)[pictures],
                  examples.extra["mentions"][pictures, places], ATTRIBUTES)
        values = {**attribute_accuracy.compute(*arrays),
                  **attribute_accuracy.intervals(*arrays, seed=self.seed)}
        return self._record("attribute_accuracy", values, "where the caption names it",
                            count=self.once, network="attribute_classifier", weights=self.judge.key,
                            classifier_accuracy=self.judge.accuracy)

    def _record(self, metric, values, protocol, **more):
        drawings = self.drawings
        return {
            "metric": metric, "stage": drawings.generator.stage,
            "step": drawings.generator.step,
            "count": self.count, "real_count": len(drawings),
            "real_trained_on": drawings.trained_on, "seed": self.seed, **values,
            "split": drawings.split, "size": drawings.size,
            "crop_margin": drawings.crop_margin, "protocol": protocol, **more,
            "seconds": round(time.monotonic() - self._begin, 1),
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "version": __version__, "commit": self._commit,
        }


def _learnt_by(part):
    """Whether a stage, or the Stage-I under it, learnt by the text encoder's image encoder."""
    below = Part(part.path, "stage1", "")  # as below.keep_stage1 keeps it
    return any((one.read_config() or {}).get("matching_weight") for one in (part, below))
