"""Reads the attributes of drawn flowers off pictures: a classifier, trained once for all runs."""

import contextlib
import hashlib
import json
import os
import time

import numpy as np
import tensorflow as tf

from stackgan_tf import attribute_classifier, build, checkpoint, disk, saved_parts
from stackgan_tf.attribute_classifier import ATTRIBUTES, IMAGE_SIZE
from stackgan_tf.config import Config, UserError
from stackgan_tf.datasets import drawn_flowers
from stackgan_tf.flower_drawing import TEST_CLASS_NAMES
from stackgan_tf.progress import Progress
from stackgan_tf.run_folder import lock, refuse_unwritable

FOLDER = "attribute_classifier"  # in --checkpoint_dir
BATCH_SIZE = 8  # pictures read at a time


def targets(examples) -> np.ndarray:
    """What drawn flowers really show, as `Judge.read` reads it: int (N, 5)."""
    return np.stack([examples.extra[f"attributes/{name}"] for name in ATTRIBUTES], 1)


class Judge:
    """The attribute classifier, trained at first use and kept for all runs.

    It learns from the train split and from as many new drawings of the test classes: a judge that
    had never seen an orange rounded flower would blame the generator for its own mistakes.

    Args:
        checkpoint_dir, data_dir, crop_margin: as in Config.
        images_per_class, steps: of its training, the same whatever a run was trained with.

    Attributes:
        accuracy: {attribute: on the real test split}, and their mean.
        key: tells this classifier from any other.
    """

    def __init__(self, checkpoint_dir: str, data_dir: str, crop_margin: float = Config.crop_margin,
                 images_per_class: int = Config.images_per_class, steps: int = 1500):
        folder = os.path.join(checkpoint_dir, FOLDER, f"margin-{crop_margin:g}")
        self._model, self._card = (os.path.join(folder, name)
                                   for name in ("saved_model", "classifier.json"))
        self.settings = {"dataset_version": str(drawn_flowers.DrawnFlowers.VERSION),
                         "classifier_version": attribute_classifier.VERSION,
                         "crop_margin": crop_margin, "images_per_class": images_per_class,
                         "steps": steps}
        card = self._trained()
        if card is None:
            refuse_unwritable(folder)
            with _alone(folder):
                card = self._trained() or self._train(data_dir)
        self.accuracy = card["accuracy"]
        self.key = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()[:12]

    def _trained(self):
        """The card of a classifier of these settings, which is loaded; None if there is none."""
        card = self._read_card()
        if card.get("settings") == self.settings:
            with contextlib.suppress(UserError):  # damaged: train it again
                self._classify = self._load()
                return card
        return None

    def _load(self):
        return saved_parts.SavedPart(self._model, "attribute classifier").function

    def _read_card(self):
        try:
            with tf.io.gfile.GFile(self._card) as file:
                return dict(json.load(file))
        except (tf.errors.OpError, ValueError, TypeError):
            return {}  # none yet, or cut short: train it (again)

    def read(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 (N, 64, 64, 3) -> int (N, 5), indices of the values of each attribute."""
        values = []
        for first in range(0, len(pictures), BATCH_SIZE):
            images = pictures[first:first + BATCH_SIZE].astype(np.float32) / 127.5 - 1.0
            logits = self._classify(images=tf.constant(images))
            values.append(np.stack([np.argmax(logits[name], -1) for name in ATTRIBUTES], 1))
        return np.concatenate(values)

    def _train(self, data_dir):
        print("training the classifier that reads attributes off pictures (once)", flush=True)
        begin, count = time.monotonic(), self.settings["images_per_class"]
        config = Config(data_dir=data_dir, images_per_class=count,
                        crop_margin=self.settings["crop_margin"])
        train, test = (build.load_examples(config, split) for split in ("train", "test"))
        drawn, attributes = attribute_classifier.draw(TEST_CLASS_NAMES, count, config.load_size)
        bar = Progress("classifier", 0, self.settings["steps"], every=250,
                       per_step=attribute_classifier.BATCH_SIZE)
        model = attribute_classifier.train(
            np.concatenate([train.images, drawn]), np.concatenate([targets(train), attributes]),
            self.settings["steps"], show=bar.update)
        bar.close()
        spec = tf.TensorSpec([None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.float32, "images")
        checkpoint.export(self._model, [model],
                          {"serve": (lambda x: attribute_classifier.views(model, x), [spec])})
        self._classify = self._load()
        card = {"settings": self.settings, "accuracy": self._measure(test),
                "seconds": round(time.monotonic() - begin)}
        disk.write_whole(self._card, (json.dumps(card, indent=2) + "\n").encode())
        return card

    def _measure(self, test):
        """Accuracy on real pictures, cropped at random as the ones that a generator imitates."""
        generator = np.random.default_rng(0)
        corners = generator.integers(test.images.shape[1] - IMAGE_SIZE + 1, size=(len(test), 2))
        crops = np.stack([picture[top:top + IMAGE_SIZE, left:left + IMAGE_SIZE]
                          for picture, (top, left) in zip(test.images, corners)])
        right = self.read(crops) == targets(test)
        return dict(zip(ATTRIBUTES, right.mean(0).tolist())) | {"mean": float(right.mean())}


def _alone(folder):
    """Held by one process at a time, which trains there; UserError for another."""
    if "://" in folder:
        return contextlib.nullcontext()
    disk.make_folders(folder)
    return lock(os.path.join(folder, "lock"), f"another process is training {folder}, which reads "
                "attributes off pictures; wait for it, then give the same command again.")
