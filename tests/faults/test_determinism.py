"""--deterministic: two runs in two processes end with the same bits."""

import numpy as np
import pytest
import tensorflow as tf
from test_crashes import STEPS, nursery, start  # noqa: F401 - fixtures
from test_train import variables

from stackgan_tf import build, settings, train

KINDS = {"": {}, "r1": {"discriminator_norm": "none", "r1_weight": 0.1, "condition_blocks": True},
         "recipe": {"recipe": "modern", "discriminator_norm": "spectral", "minibatch_std": 2},
         "bfloat16": {"precision": "mixed_bfloat16"}, "xla": {"jit_compile": "on"},
         "calls": {"steps_per_call": 3, "unconditional_head": True}}


def exported(part):
    """{name: values} of a part's SavedModel; the file itself is in no fixed order."""
    loaded = tf.saved_model.load(str(part / "saved_model"))
    return {f"export {i}": v.numpy() for i, v in enumerate(loaded.variables)}


@pytest.mark.slow  # in short in test_crashes: a run that was killed, and one that was not
@pytest.mark.parametrize("stage, kind", [
    (stage, kind) for stage in (1, 2) for kind in KINDS if (stage, kind) != (1, "calls")])
def test_two_runs_are_equal_bit_for_bit(start, tmp_path, stage, kind):  # noqa: F811
    found = []
    for run in ("one", "two"):
        child = start(stage, run, deterministic=True, **KINDS[kind])
        assert child.wait() == 0, child.text()  # UnimplementedError would end it
        found.append(variables(str(tmp_path), run, stage, STEPS))
        found[-1] |= exported(tmp_path / run / f"stage{stage}")
    one, two = found
    assert one.keys() == two.keys() and len(one) > 50
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], name)
    start_of = variables(str(tmp_path), "one", stage, STEPS // 2)
    assert any(np.abs(value - one[name]).max() > 0 for name, value in start_of.items())


@pytest.mark.slow
def test_two_text_encoders_are_equal_bit_for_bit(start, tmp_path):  # noqa: F811
    """With captions of its own: a process that the first one starts, with the same flag."""
    found = []
    for run in ("one", "two"):
        child = start(1, run, deterministic=True, text_encoder="", train_steps=3)
        assert child.wait() == 0 and "training it first" in child.text(), child.text()
        found.append({**exported(tmp_path / run / "text_encoder"),
                      **variables(str(tmp_path), run, 1, 3)})
    one, two = found
    assert one.keys() == two.keys() and len(one) > 50
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name], name)


@pytest.mark.parametrize("given", [True, False])
def test_the_flag_comes_before_any_work(tiny, monkeypatch, given):
    asked = []
    monkeypatch.setattr("tensorflow.config.experimental.enable_op_determinism",
                        lambda: asked.append("determinism"))
    monkeypatch.setattr(settings, "from_flags",
                        lambda _: tiny(deterministic=given, embedding_dim=0))
    monkeypatch.setattr(build, "load_batches", lambda *_: asked.append("data") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main(None)
    assert asked == ["determinism"] * given + ["data"]
