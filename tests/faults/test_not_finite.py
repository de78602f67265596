"""A loss or gradient that is not finite: found at its step, never saved, skipped on demand."""

import os

import numpy as np
import pytest
import tensorflow as tf

from stackgan_tf import build, pipeline, train_step
from stackgan_tf.config import UserError

STEPS = {"train_steps": 12, "checkpoint_steps": 3, "log_steps": 5}


class Poisoned(pipeline.Batches):
    """Batches whose embeddings are no numbers in the steps `bad`, counted from 1."""

    bad = ()

    def __call__(self, step):
        batch = super().__call__(step)
        if int(step) + 1 in self.bad:
            batch["embeddings"][1, 2] = np.nan
        return batch


@pytest.fixture
def trainer(make_trainer, no_pictures, tiny, folder):
    """trainer(bad steps, **changes); it makes no pictures and no SavedModel."""
    config = tiny(dataset="folder", data_dir=folder)
    examples = build.load_examples(config, "train")

    def make(bad=(), **changes):
        batches = Poisoned(examples, config.image_size, config.batch_size, config.seed)
        batches.bad = bad
        return make_trainer(batches, **{**STEPS, **changes})

    return make


def weights(trainer):
    return [v.numpy() for part in (trainer.gan.generator, trainer.gan.discriminator,
                                   trainer.ema_generator, trainer.generator_adam)
            for v in part.variables]


def same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def by_hand(trainer, skipped):
    """The weights after all steps but those, in a plain loop."""
    for step in range(trainer.total):
        if step + 1 not in skipped:
            trainer.train_step({name: tf.constant(value) for name, value in
                                trainer.batches(step).items()}, tf.constant(step, tf.int64))
    return weights(trainer)


def test_training_stops_with_the_step_and_the_names(trainer, figure):
    one = trainer(bad=(7,))
    one.first_bad.assign([2, 1])
    with pytest.raises(UserError, match="^loss not finite at step 2; there is no checkpoint"):
        one.stop_or_roll_back(["loss", "gradient"])
    one.first_bad.assign([0, 0])
    with pytest.raises(UserError) as caught:
        one.run()
    said = str(caught.value)
    assert "gradient/discriminator" in said and "loss/generator" in said and "\n" not in said
    assert "not finite at step 7; the checkpoint of step 6 is kept" in said
    assert sorted(os.listdir(one.part.checkpoints)) == ["step-00000003", "step-00000006"]
    again = trainer()
    assert again.checkpoints.restore() == 6
    assert all(np.isfinite(value).all() for value in weights(again))
    figure("1 fault injected, 1 step lost")


def test_rollback_is_training_without_those_batches(trainer, figure):
    """Three bad steps, one of them before the first checkpoint; then the fourth."""
    bad = (2, 7, 8)
    assert trainer(bad=bad, on_nan="rollback", train_steps=7).run() == 0
    second = trainer(bad=bad, on_nan="rollback")  # what was skipped is known to a new process
    assert second.checkpoints.restore() == 7
    assert second.checkpoints.notes["skipped"] == [2, 7]
    assert second.run() == 0
    same(weights(second), by_hand(trainer(run="hand"), bad))
    fourth = trainer(bad=(*bad, 14), on_nan="rollback", train_steps=15)
    with pytest.raises(UserError, match="at step 14, after steps 2, 7, 8 were skipped.*"
                                        "checkpoint of step 12 is kept"):
        fourth.run()
    figure("4 faults injected, 3 batches skipped, no checkpoint lost")


@pytest.mark.slow
def test_rollback_between_many_steps_a_call(trainer, figure):
    calls = {"steps_per_call": 4, "checkpoint_steps": 4, "log_steps": 4}
    one = trainer(bad=(6, 9), on_nan="rollback", run="calls", **calls)
    assert one.run() == 0 and one.skipped == [6, 9]
    for a, b in zip(weights(one), by_hand(trainer(run="hand"), (6, 9)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    figure("2 faults injected, 2 batches skipped")


def test_only_the_first_bad_step_is_noted_and_every_name_of_it():
    first_bad = tf.Variable([0, 0], dtype=tf.int64)
    note = tf.function(train_step.note_bad)
    nan, inf = float("nan"), float("inf")
    for step, parts in enumerate([{"b": 1.0, "a": 2.0, "c": 3.0}, {"b": inf, "a": 0.0, "c": nan},
                                  {"b": 0.0, "a": nan, "c": 0.0}]):
        note(first_bad, tf.constant(step, tf.int64), {k: tf.constant(v) for k, v in parts.items()})
    assert first_bad.numpy().tolist() == [2, 0b110]  # of a, b, c
