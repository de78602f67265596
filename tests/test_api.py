"""stackgan_tf.api, as a notebook uses it."""

import numpy as np
import pytest
from fake_runs import write_stage, write_text_encoder
from PIL import Image

import stackgan_tf.api as sg
from stackgan_tf import sample
from stackgan_tf.generate import Generator


def test_pictures_are_those_of_sample(runs, tmp_path):
    sample.sample(runs, "both", ["cab", "dad"], count=2, seed=4, output=str(tmp_path))
    one = sg.generate("cab", "both", seed=4, count=2, checkpoint_dir=runs)
    several = sg.generate(["cab", "dad"], run="both", seed=4, count=2, checkpoint_dir=runs)
    assert [picture.tobytes() for picture in one] == [p.tobytes() for p in several[0]]
    for i, row in enumerate(several):
        for j, picture in enumerate(row):
            assert isinstance(picture, Image.Image) and picture.size == (32, 32)
            assert picture.tobytes() == Image.open(tmp_path / f"{i}_{j}_stage2.png").tobytes()


def test_stage_and_knobs(runs):
    sketch, = sg.generate("cab", "both", stage=1, checkpoint_dir=runs)
    assert sketch.size == (16, 16)
    for knob, value in {"truncation": 0, "epsilon_scale": 0, "text_strength": 2}.items():
        turned, = sg.generate("cab", "both", checkpoint_dir=runs, **{knob: value})
        expected = Generator(runs, "both").generate(["cab"], [0], **{knob: float(value)})
        assert (np.asarray(turned) == expected[0]).all()


def test_loads_once_and_anew_when_trained_further(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(sg, "Generator", lambda *a: loaded.append(a) or Generator(*a))
    write_stage(tmp_path / "one/stage1", 16)
    write_text_encoder(tmp_path / "one/text_encoder")
    for seed in range(3):
        before, = sg.generate("cab", "one", seed=seed, checkpoint_dir=str(tmp_path))
    assert len(loaded) == 1 and before.size == (16, 16)
    write_stage(tmp_path / "one/stage1", 32)  # exported anew
    after, = sg.generate("cab", "one", checkpoint_dir=str(tmp_path))
    assert len(loaded) == 2 and after.size == (32, 32)


def test_runs_without_captions(runs, tmp_path):
    assert len(sg.generate(run="silent", count=3, checkpoint_dir=runs)) == 3
    write_stage(tmp_path / "vectors/stage1", 16)
    (tmp_path / "vectors/stage1/config.json").write_text('{"precomputed_embeddings": true}')
    made = sg.generate(np.eye(4)[:2], "vectors", checkpoint_dir=str(tmp_path))
    assert [len(row) for row in made] == [1, 1] and made[0][0] != made[1][0]
    with pytest.raises(ValueError, match="has no text encoder"):
        sg.generate("cab", "vectors", checkpoint_dir=str(tmp_path))


@pytest.mark.parametrize("arguments, message", [
    ({"run": "nowhere"}, "no such run"),
    ({"captions": " "}, "is no text"),
    ({"captions": ["ab", None]}, "the caption None is no text"),
    ({"captions": []}, "neither a string nor a list"),
    ({"captions": 7}, "captions=7 is neither"),
    ({"captions": np.array("ab")}, "neither a string nor a list"),
    ({"captions": np.zeros((2, 90), int)}, "is no text"),
    ({"captions": "\u200b"}, "is no text"),
    ({"captions": "\ud800"}, "half a character"),
    ({"run": None}, "run=None is no text"),
    ({"checkpoint_dir": 3}, "checkpoint_dir=3 is no text"),
    ({"captions": None}, "draws what a caption says"),
    ({"captions": np.zeros((2, 3))}, r"captions are \(2, 3\); .* \(n, 4\)"),
    ({"captions": np.full((1, 4), np.nan)}, "finite floats"),
    ({"run": "silent"}, "without text; leave captions out"),
    ({"count": 0}, "count=0 is no whole number"),
    ({"count": 10**12}, "count=1000000000000 is more than 10000000"),
    ({"stage": np.array([1, 2])}, r"stage=array\(\[1, 2\]\) is unknown"),
    ({"checkpoint_dir": "s3x://y"}, "s3x.*give a folder of this machine"),
    ({"count": 1.5}, "count=1.5 is no whole number"),
    ({"seed": 2**63}, "beyond"),
    ({"seed": np.int64(2**63 - 1), "count": np.int64(2)}, "beyond"),
    ({"seed": np.uint64(2**64 - 1)}, "beyond"),
    ({"seed": "0"}, "seed='0' is no whole number"),
    ({"stage": 3}, "stage=3 is unknown"),
    ({"stage": 2, "run": "sketch"}, "no trained stage 2"),
    ({"truncation": -1}, "truncation=-1 is no number"),
    ({"truncation": float("nan")}, "truncation=nan"),
    ({"epsilon_scale": "1"}, "epsilon_scale='1' is no number"),
    ({"text_strength": 1e38}, r"text_strength=1e\+38 .* at most 10"),
    ({"text_strength": float("inf")}, "text_strength=inf is no number"),
    ({"text_strength": 2, "run": "sketch"}, "does not have; leave it out"),
])
def test_mistakes_are_one_line(runs, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        sg.generate(**{"captions": "ab", "run": "both", "checkpoint_dir": runs, **arguments})
    assert "\n" not in str(caught.value)
