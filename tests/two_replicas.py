"""Trains a row of CASES on one device and on two; for tests/test_distribution.py, in a process of
its own: logical devices are made before TensorFlow starts.

Prints one line of JSON: how far the two are from each other, see `main`.
"""

import dataclasses
import json
import os
import sys

import numpy as np
import tensorflow as tf
from conftest import TINY

from stackgan_tf import (
    build,
    checkpoint,
    distribution,
    joint_space,
    latents,
    pipeline,
    saved_parts,
    train,
    train_step,
)
from stackgan_tf.config import resolve
from stackgan_tf.run_folder import Part
from stackgan_tf.text_encoders import joint_embedding

HALF, STEPS = 3, 6
# With Stage-II's seed 0 something passes a ReLU's kink by rounding alone, which moves gradients by
# a thousandth; with 1, 2, 3 and 4 one device and two are a millionth apart.
SEEDS = {1: 0, 2: 1}
# What is trained: the stage, and settings.
CASES = {
    "stage 1": (1, {}),
    "stage 2": (2, {}),
    "R1": (1, {"discriminator_norm": "none", "r1_weight": 0.5, "r1_every": 2}),
    "matching": (1, {"matching_weight": 0.5}),
}
BAD = 2  # the step that is poisoned, before the first checkpoint


class Observed(train.Trainer):
    """Keeps each step's numbers."""

    def _steps(self, batches, done):
        step, parts = super()._steps(batches, done)
        self.numbers = {**getattr(self, "numbers", {}),
                        step: {name: float(value) for name, value in (parts or {}).items()}}
        return step, parts

    def weights(self, *names):
        """All that a checkpoint has, or the variables with one of these words in their names."""
        chosen = [v for part in self.checkpoints._parts.values() for v in part
                  if not names or any(name in v.path for name in names)]
        return np.concatenate([np.ravel(v.numpy()) for v in chosen]).astype(np.float64)

    def go_on(self, directory, start, steps_per_call=1):
        """The weights after STEPS steps, begun from a checkpoint of any run."""
        self.steps_per_call = steps_per_call
        own, self.checkpoints.directory = self.checkpoints.directory, directory
        self.checkpoints.read(start)
        self.checkpoints.directory = own
        batches, step = self._batches(start), start
        while step < STEPS:
            step, _ = self._steps(batches, step)
        return self.weights()

    def move(self, run):
        """From now on the checkpoints are those of another run; returns the folder of before."""
        before, path = self.checkpoints.directory, self.config.checkpoint_dir
        self.checkpoints.directory = Part(path, run, f"stage{self.config.stage}").checkpoints
        return before

    def roll_back(self, run):
        """The weights after STEPS steps, one of them poisoned; begun from the run's step 0."""
        self.move(run)
        self.config = dataclasses.replace(self.config, on_nan="rollback")
        self.export = self.reports.write_pictures = self.reports.write_numbers = lambda *_: None
        self.first_bad.assign([0, 0])
        assert self.run() == 0 and self.skipped == [BAD]
        return self.weights()


def poison():
    """From now on the second caption of step BAD, counted from 1, has a number that is none."""
    real = pipeline.Batches.__call__

    def poisoned(self, step):
        batch = real(self, step)
        if int(step) + 1 == BAD:
            batch["embeddings"][1, 2] = np.nan
        return batch

    pipeline.Batches.__call__ = poisoned


def trainer(run, cluster, stage, root, folder, encoder, stage1, **changes):
    config = resolve({**TINY, "stage": stage, "image_size": {1: 16, 2: 32}[stage], "run": run,
                      "seed": SEEDS[stage],
                      "dataset": "folder", "data_dir": folder, "checkpoint_dir": root,
                      "precomputed_embeddings": False, "log_steps": 1, **changes})
    part, text = (Part(root, run, name) for name in (f"stage{stage}", "text_encoder"))
    text.saved_model = encoder
    with cluster.strategy.scope():
        below = saved_parts.Stage1(stage1) if stage == 2 else None
        space = matched(root) if config.matching_weight else None
    return Observed(config, part, text, build.load_batches(config), below, cluster, space)


def matched(root):
    """A joint space as train_text_encoder exports it, of random weights."""
    tf.random.set_seed(0)
    encoder, path = joint_embedding.ImageEncoder(8, width=4), os.path.join(root, "image_encoder")
    if not os.path.exists(path):
        encoder(np.zeros((1, 64, 64, 3), np.float32))
        images, text = joint_embedding.joint_functions(encoder, np.zeros(8), np.eye(8), True)
        checkpoint.export(path, [encoder], {
            "serve": (images, [tf.TensorSpec([None, 64, 64, 3], tf.float32, "images")]),
            "from_text": (text, [tf.TensorSpec([None, 8], tf.float32, "embeddings")])})
    return joint_space.JointSpace(path)


def images(path):
    """What a run's SavedModel draws."""
    model, rng = saved_parts.Stage1(path), np.random.default_rng(0)
    return model({name: tf.constant(rng.normal(size=(3, spec.shape[1])), tf.float32)
                  for name, spec in model.inputs.items()}).numpy()


def apart(a, b):
    return float(np.abs(a - b).max())


def whole(cluster, value):
    """The rows of all replicas, in their order."""
    return np.concatenate([part.numpy() for part in cluster.strategy.experimental_local_results(
        value)])


def noise(cluster):
    """The latents that the replicas take for a step: float (8, 5)."""
    def draw():
        return train_step.own_rows(latents.draw({"noise": 5}, [3, 4], 8))["noise"]
    return whole(cluster, tf.function(cluster.strategy.run)(draw))


def batches(each, feeds_from_here=False):
    """The first two batches as the replicas get them."""
    each.cluster.__class__.feeds_from_here = feeds_from_here
    spread = each.cluster.spread(each.batches.dataset(0, STEPS))
    rows = [{name: whole(each.cluster, value) for name, value in next(spread).items()}
            for _ in range(2)]
    each.cluster.__class__.feeds_from_here = False
    return rows


def bad_step(two):
    """What is noted when the last row, which is the second replica's, has a number that is none."""
    batch = {name: np.array(value) for name, value in two.batches(0).items()}
    batch["embeddings"][-1, 0] = np.nan
    data = tf.data.Dataset.from_tensors({k: tf.constant(v) for k, v in batch.items()})
    two.train_step(next(two.cluster.spread(data)), tf.constant(41, tf.int64))
    return [local.numpy().tolist() for local in
            two.cluster.strategy.experimental_local_results(two.first_bad)]


def main(case, *paths):
    stage, changes = CASES[case]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = trainer("one", distribution.start("none", ""), stage, *paths, **changes)
    two = trainer("two", distribution.start("mirrored", ""), stage, *paths, **changes)
    for each, run in ((one, "one back"), (two, "two back")):
        own = each.move(run)
        each.checkpoints.save(0)
        each.checkpoints.directory = own
    assert two.cluster.replicas == 2 and not two.run() and not one.run()
    ends = [each.weights() for each in (one, two)]
    statistics, gradients = ([each.weights(*names) for each in (one, two)] for names in (
        ("moving_mean", "moving_variance"), ("momentum",)))
    folders = [each.checkpoints.directory for each in (one, two)]
    found = {
        "weights": apart(*ends),
        "statistics": apart(*statistics),
        # Adam's first moments; of all, or most would be compared with the few largest
        "gradients": np.linalg.norm(np.subtract(*gradients)) / np.linalg.norm(gradients[0]),
        "images": apart(*[images(each.part.saved_model) for each in (one, two)]),
        "losses": max(abs(value - two.numbers[step][name]) for step, parts in one.numbers.items()
                      for name, value in parts.items()),
        "one from two": apart(ends[0], one.go_on(folders[1], HALF)),
        "two from one": apart(ends[0], two.go_on(folders[0], HALF, steps_per_call=2)),
        "two from two": apart(ends[1], two.go_on(folders[1], HALF)),
        "noise": apart(noise(two.cluster), latents.draw({"noise": 5}, [3, 4], 8)["noise"]),
        "noise of the rows": apart(*np.split(noise(two.cluster), 2)),
        "batches": [max(apart(rows[name], two.batches(step)[name]) for name in rows)
                    for feeds in (False, True)
                    for step, rows in enumerate(batches(two, feeds))],
        "bad step": bad_step(two),
    }
    poison()
    found["rolled back"] = apart(one.roll_back("one back"), two.roll_back("two back"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
