"""What a training shows, of a game that draws plain colors."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_tf import images, reports
from stackgan_tf.run_folder import Part
from stackgan_tf.watchdog import REPORTS


class Colors:
    """A Stage-II that draws its generator, a number, on a Stage-I that draws its noise."""

    latent_dims = {"noise": 3}

    def __init__(self):
        self.sketched = 0

    def stage1(self, inputs):
        self.sketched += len(inputs["noise"])
        return tf.tanh(inputs["noise"])[:, None, None] + tf.zeros([1, 16, 16, 3])

    def generate(self, inputs, embeddings, generator):
        return {"images": tf.fill([len(inputs["noise"]), 32, 32, 3], generator)}


@pytest.fixture
def made(tiny, tmp_path):
    """Reports of a stage without text, begun at step 1000."""
    one = reports.Reports(tiny(2, embedding_dim=0), Part(str(tmp_path), "run", "stage2"), Colors(),
                          None)
    one.begin(1000, 0.0)
    return one


def test_the_frozen_stage1_is_drawn_once_and_shown_at_each_checkpoint(made, monkeypatch):
    shown = []
    monkeypatch.setattr(images, "labelled_grid", lambda rows, labels: (
        shown.append(rows), np.zeros((8, 8, 3), np.uint8))[1])
    for step, color in ((3, -1.0), (6, 1.0)):
        made.write_samples(step, color)
    assert made.drawing.sketched == 32  # eight rows of four
    first, second = shown
    noise = made.grid_latents["noise"].numpy().reshape(8, 4, 3)
    for row in range(8):
        np.testing.assert_array_equal(first[2 * row], second[2 * row])
        np.testing.assert_allclose(first[2 * row][:, 5, 5] / 127.5 - 1, np.tanh(noise[row]),
                                   atol=1 / 127.5)
        assert (first[2 * row + 1] == 0).all() and (second[2 * row + 1] == 255).all()


def test_the_projector_waits_until_it_is_due_or_the_end(made, monkeypatch):
    drawn = []
    monkeypatch.setattr(made, "write_samples", lambda step, _: None)
    monkeypatch.setattr(made, "write_projector", drawn.append)
    for step, last, hurried in ((1499, False, False), (1500, False, True), (1501, False, False),
                                (1600, False, False), (1700, True, False)):
        made.write_pictures(step, step, last, hurried)
    assert drawn == [1501, 1700]


def test_the_watchdog_speaks_in_the_log_and_in_tensorboard(made, capsys):
    parts = {"accuracy/real": 1.0, "accuracy/fake": 1.0, "loss/discriminator": 0.1,
             "loss/generator": 9.0}
    for step in range(1, REPORTS + 3):
        made.write_numbers(step, parts, 1e-4, 9.0)
    assert capsys.readouterr().out.count(f"warning: step {REPORTS}: the discriminator's") == 1
    logs = EventAccumulator(made.part.logs, size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in logs.Tensors("watchdog")] == [REPORTS]
