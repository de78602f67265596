"""Scores a trained run: do the pictures show what held-out captions say?

    python -m stackgan_tf.evaluate
    python -m stackgan_tf.evaluate --run=mine --stage=1 --count=500

For captions of the test split a classifier reads petal color, shape and count, center and
background off the generated pictures. The first time it is trained on drawn flowers, which takes
three minutes on two CPU cores, and kept in checkpoints/attribute_classifier. Prints a table and
adds a line to checkpoints/<run>/stage<N>/metrics.jsonl and a point to TensorBoard's log. A thousand
pictures take a minute.
"""

import dataclasses
import datetime
import json
import os
import time

import numpy as np
import tensorflow as tf
from absl import flags
from PIL import Image

from stackgan_tf import __version__, attribute_classifier, build, checkpoint
from stackgan_tf.attribute_classifier import ATTRIBUTES, IMAGE_SIZE
from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.datasets import drawn_flowers
from stackgan_tf.flower_drawing import TEST_CLASS_NAMES
from stackgan_tf.generate import BATCH_SIZE, Generator
from stackgan_tf.logs import Logs
from stackgan_tf.metrics import attribute_accuracy
from stackgan_tf.progress import Progress
from stackgan_tf.run_folder import refuse_unwritable


def main(_):
    values, given = flags.FLAGS, given_flags()
    record = evaluate(given.get("checkpoint_dir", Config.checkpoint_dir),
                      given.get("run", Config.run), values.stage, values.count, values.seed)
    print(table(record))


def evaluate(checkpoint_dir: str, run: str, stage: int | None = None, count: int = 1000,
             seed: int = 0, judge: "Judge | None" = None) -> dict:
    """Scores a stage of a run, the highest if None, and appends the record to its metrics."""
    generator = Generator(checkpoint_dir, run, stage)
    config = drawn_flowers_config(generator)
    refuse_unwritable(generator.part.path)
    judge = judge or Judge(checkpoint_dir, config.data_dir, config.crop_margin)
    examples = build.load_examples(config, "test")
    pictures, places = choose_pairs(list(map(len, examples.captions)), count, seed)
    captions = [examples.captions[i][j] for i, j in zip(pictures, places)]
    begin = time.monotonic()
    predicted = read_pictures(generator, judge, captions, seed)
    values = attribute_accuracy.compute(
        predicted, _targets(examples)[pictures], examples.extra["mentions"][pictures, places],
        ATTRIBUTES)
    record = {
        "metric": "attribute_accuracy", "stage": generator.stage,
        "step": checkpoint.exported_step(generator.part.saved_model),
        "count": len(captions), "seed": seed, **values,
        "classifier_accuracy": judge.accuracy, "seconds": round(time.monotonic() - begin, 1),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
    }
    append_line(generator.part.metrics, record)
    write_log(generator.part.logs, values, record["step"] or 0)
    return record


def drawn_flowers_config(generator: Generator) -> Config:
    """The run's data settings, at the classifier's picture size; UserError without attributes."""
    stored = generator.part.read_config() or {}
    dataset = stored.get("dataset", "unknown")
    if dataset != "drawn_flowers":
        raise UserError(f"run {generator.run!r} was trained on --dataset={dataset}; this score "
                        "reads the attributes that only drawn_flowers' captions name.")
    if not generator.text:
        raise UserError(f"run {generator.run!r} was trained without text, so no caption can be "
                        "checked; evaluate a run with --embedding_dim above 0.")
    fields = {field.name for field in dataclasses.fields(Config)}
    known = {name: value for name, value in stored.items() if name in fields}
    return Config(**{**known, "image_size": IMAGE_SIZE})


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
    return tuple(np.array(pairs).T)


def read_pictures(generator: Generator, judge: "Judge", captions, seed: int) -> np.ndarray:
    """Generates a picture of each caption and reads its attributes: int (N, 5)."""
    seeds = [(seed << 32) + i for i in range(len(captions))]
    bar = Progress(f"stage {generator.stage} pictures", 0, len(captions), every=200)
    predicted, done = [], 0
    for made in generator.batches(captions, seeds):
        predicted.append(judge.read(shrink(made)))
        done += len(made)
        bar.update(done, {})
    bar.close()
    return np.concatenate(predicted)


def shrink(pictures: np.ndarray) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, 64, 64, 3) by the mean of each block."""
    if pictures.shape[1] == IMAGE_SIZE:
        return pictures
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
                     for picture in pictures])


def append_line(path: str, record: dict) -> None:
    """One line in one write, so that a reader never sees half of it."""
    try:
        with tf.io.gfile.GFile(path, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'message', error)}; make room, or "
                        "see to its permissions.") from error


def write_log(folder: str, values: dict, step: int) -> None:
    """The accuracies as metrics of TensorBoard's HParams. In a log of their own, for TensorBoard
    reads on in the newest file of a folder, and a training may be at work in the other."""
    with Logs(os.path.join(folder, "evaluate")).writing():
        for name, value in values.items():
            if name.startswith("accuracy/"):
                tf.summary.scalar(name, value, step)


def table(record: dict) -> str:
    lines = [f"{'attribute':14}{'generated':>10}{'real test':>11}{'chance':>8}{'captions':>10}"]
    for name in (*ATTRIBUTES, "mean"):
        if f"accuracy/{name}" in record:
            lines.append(f"{name:14}{record[f'accuracy/{name}']:10.3f}"
                         f"{record['classifier_accuracy'][name]:11.3f}"
                         f"{record[f'chance/{name}']:8.3f}"
                         f"{record.get(f'count/{name}', record['count']):10.0f}")
    return "\n".join(lines)


def _targets(examples) -> np.ndarray:
    """int (N, 5)"""
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
    """

    def __init__(self, checkpoint_dir: str, data_dir: str, crop_margin: float = Config.crop_margin,
                 images_per_class: int = Config.images_per_class, steps: int = 1500):
        folder = os.path.join(checkpoint_dir, "attribute_classifier", f"margin-{crop_margin:g}")
        self._model, self._card = (os.path.join(folder, name)
                                   for name in ("saved_model", "classifier.json"))
        self.settings = {"dataset_version": str(drawn_flowers.DrawnFlowers.VERSION),
                         "classifier_version": attribute_classifier.VERSION,
                         "crop_margin": crop_margin, "images_per_class": images_per_class,
                         "steps": steps}
        card = self._read_card()
        if card.get("settings") != self.settings:
            refuse_unwritable(folder)
            card = self._train(data_dir)
        self.accuracy = card["accuracy"]
        self._classify = build.SavedPart(self._model, "attribute classifier").function

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
            np.concatenate([train.images, drawn]), np.concatenate([_targets(train), attributes]),
            self.settings["steps"], show=bar.update)
        bar.close()
        spec = tf.TensorSpec([None, IMAGE_SIZE, IMAGE_SIZE, 3], tf.float32, "images")
        checkpoint.export(self._model, [model],
                          {"serve": (lambda x: attribute_classifier.views(model, x), [spec])})
        self._classify = build.SavedPart(self._model, "attribute classifier").function
        card = {"settings": self.settings, "accuracy": self._measure(test),
                "seconds": round(time.monotonic() - begin)}
        with tf.io.gfile.GFile(self._card, "w") as file:
            file.write(json.dumps(card, indent=2) + "\n")
        return card

    def _measure(self, test):
        """Accuracy on real pictures, cropped at random as the ones that a generator imitates."""
        generator = np.random.default_rng(0)
        corners = generator.integers(test.images.shape[1] - IMAGE_SIZE + 1, size=(len(test), 2))
        crops = np.stack([picture[top:top + IMAGE_SIZE, left:left + IMAGE_SIZE]
                          for picture, (top, left) in zip(test.images, corners)])
        right = self.read(crops) == _targets(test)
        return dict(zip(ATTRIBUTES, right.mean(0).tolist())) | {"mean": float(right.mean())}


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_integer("stage", None, "1 or 2; the highest that is trained if not given",
                         lower_bound=1, upper_bound=2)
    flags.DEFINE_integer("count", 1000, "pictures to generate", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "chooses the captions and the noise", lower_bound=0,
                         upper_bound=2**31 - 1)


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
