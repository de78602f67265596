"""sample.py and generate.py on tiny SavedModels (fake_runs.py): no training."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import command_here
from fake_runs import MEAN, write_stage
from PIL import Image

from stackgan_tf import caption_files, checkpoint, knobs, latents, sample
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator
from stackgan_tf.run_folder import Part
from stackgan_tf.saved_parts import TextEncoder


def contents(paths):
    return [open(path, "rb").read() for path in paths]


def test_writes_a_grid_and_single_pictures_of_both_stages(runs, tmp_path):
    out = str(tmp_path / "out")
    paths = sample.sample(runs, "both", ["a cab", "bad"], count=3, output=out)
    assert paths[0] == os.path.join(out, "grid.png")
    assert sorted(os.listdir(out)) == sorted(
        ["grid.png", *(f"{i}_{j}_stage{s}.png" for i in (0, 1) for j in range(3) for s in (1, 2))])
    assert Image.open(os.path.join(out, "1_2_stage1.png")).size == (16, 16)
    assert Image.open(os.path.join(out, "1_2_stage2.png")).size == (32, 32)
    grid = np.asarray(Image.open(paths[0]))
    assert grid.shape[1] == 3 * 34 + 2  # three pictures of 32 with 2 between and around
    single = np.asarray(Image.open(os.path.join(out, "1_0_stage2.png")))
    assert (grid[-34:-2, 2:34] == single).all()  # the last row is caption 1, Stage-II


def test_same_seed_same_bytes_and_never_overwrites(runs):
    first = sample.sample(runs, "both", ["a cab"], count=2, seed=7)
    again = sample.sample(runs, "both", ["a cab"], count=2, seed=7)
    assert os.path.dirname(first[0]) != os.path.dirname(again[0])
    assert os.path.basename(os.path.dirname(again[0])).startswith("sample-000")
    assert contents(first) == contents(again)
    assert contents(first) != contents(sample.sample(runs, "both", ["a cab"], count=2, seed=8))


def test_given_output_is_not_overwritten(runs, tmp_path):
    sample.sample(runs, "both", ["a cab"], count=1, output=str(tmp_path))
    before = contents(sorted(tmp_path.iterdir()))
    with pytest.raises(UserError, match="already holds grid.png; choose another"):
        sample.sample(runs, "both", ["bad"], count=1, output=str(tmp_path))
    assert contents(sorted(tmp_path.iterdir())) == before


def test_an_export_while_it_loads_is_loaded_anew(runs, monkeypatch):
    found, loaded = iter(["old", "new", "new", "new"]), []
    monkeypatch.setattr(Part, "fingerprint", lambda part: (
        next(found) if part.path.endswith("stage2") else ""))
    monkeypatch.setattr(Generator, "_load", lambda self, load=Generator._load: (
        loaded.append(self.fingerprint), load(self)))
    assert Generator(runs, "both").fingerprint == "new"
    assert loaded == ["old", "new"]  # what was loaded first may be of either


def test_a_picture_does_not_depend_on_its_batch(runs):
    generator = Generator(runs, "both")
    captions = [f"a{'b' * (i % 4)}{'cd' * (i % 3)}" for i in range(11)]
    seeds = [2**40 + i % 5 for i in range(11)]
    for stage in generator.stages:
        together = generator.generate(captions, seeds, stage)
        for i in (0, 4, 10):
            alone = Generator(runs, "both").generate([captions[i]], [seeds[i]], stage)
            assert (alone[0] == together[i]).all()
    assert len(np.unique(together, axis=0)) == 11


def test_stage_1_of_a_stage_2_is_the_sketch_beneath(runs):
    beneath = Generator(runs, "both").generate(["abc"], [0], stage=1)
    alone = Generator(runs, "both", stage=1).generate(["abc"], [0])
    assert beneath.shape == (1, 16, 16, 3) and (beneath == alone).all()


def test_noise_depends_on_seed_and_place_not_on_the_caption(runs, tmp_path):
    paths = sample.sample(runs, "sketch", ["ab", "ab", "cd"], count=2, output=str(tmp_path))
    pictures = contents(paths[1:])
    assert pictures[0:2] == pictures[2:4]
    assert len(set(pictures)) == 4


def test_stage_1_alone_is_said(runs, tmp_path, capsys):
    sample.sample(runs, "sketch", ["ab"], count=1, output=str(tmp_path))
    assert "no Stage-II yet" in capsys.readouterr().out


def test_run_without_text(runs, tmp_path):
    assert len(sample.sample(runs, "silent", count=9, output=str(tmp_path))) == 10
    with pytest.raises(UserError, match="without text; leave --captions out"):
        sample.sample(runs, "silent", ["a red flower"])


@pytest.mark.parametrize("run, captions, message", [
    ("both", [], "--captions="),
    ("both", ["ab", " \t"], "caption 2 of 2 is empty"),
    ("nowhere", ["ab"], "--run=nowhere: no such run"),
    ("begun", ["ab"], "train it with: python -m stackgan_tf.train --stage=1 --run=begun"),
])
def test_mistakes_are_named(runs, run, captions, message):
    with pytest.raises(UserError, match=message):
        sample.sample(runs, run, captions)


def test_text_encoder_of_another_size_is_refused(runs, tmp_path):
    write_stage(tmp_path / "odd/stage1", 16)
    checkpoint.export(str(tmp_path / "odd/text_encoder/saved_model"), [], {"serve": (
        lambda captions: {"embeddings": tf.zeros([tf.size(captions), 9])},
        [tf.TensorSpec([None], tf.string, "captions")])})
    with pytest.raises(UserError, match="gives 9 numbers a caption, .* reads 4"):
        Generator(str(tmp_path), "odd")


def test_another_text_encoder_of_the_same_size_is_refused(runs, tmp_path):
    shutil.copytree(os.path.join(runs, "sketch"), tmp_path / "sketch")
    encoder = TextEncoder(str(tmp_path / "sketch/text_encoder/saved_model"))
    path = tmp_path / "sketch/stage1/saved_model/assets.extra/text_encoder.json"
    kept = np.array(encoder.fingerprint())  # of the one it was trained with
    path.write_text(json.dumps({"fingerprint": (1.001 * kept).tolist()}))  # by rounding
    Generator(str(tmp_path), "sketch")
    path.write_text(json.dumps({"fingerprint": (1.2 * kept).tolist()}))
    with pytest.raises(UserError, match=f"text encoder {encoder.path} is not the one that .*stage1"
                                        ".* was trained with; put that one back"):
        Generator(str(tmp_path), "sketch")


def test_pictures_of_a_captions_file(runs, tmp_path):
    (tmp_path / "captions.txt").write_bytes("\ufeffa cab\r\n bad \r\ndab".encode())
    flagged, filed = tmp_path / "flagged", tmp_path / "filed"
    sample.sample(runs, "both", ["a cab", "bad", "dab"], count=2, output=str(flagged))
    sample.sample(runs, "both", captions_file=str(tmp_path / "captions.txt"), count=2,
                  output=str(filed))
    assert sorted(os.listdir(flagged)) == sorted(os.listdir(filed))
    assert contents(sorted(flagged.iterdir())) == contents(sorted(filed.iterdir()))


@pytest.mark.parametrize("caption", ["", " ", "\u200b", "\ufeff\u00a0"])
def test_a_caption_of_which_nothing_is_seen_is_refused(runs, caption):
    with pytest.raises(UserError, match="caption 2 of 2 is empty; say what to draw"):
        sample.sample(runs, "both", ["a cab", caption])


@pytest.mark.parametrize("data, message", [
    (b"", "no line holds a caption"),
    (b"\n \n", "no line holds a caption"),
    (b"a\n\nb\n \n", "lines 2, 4 are empty"),
    (b"a\n\n", "line 2 is empty"),
    (b"\n" * 9 + b"a", r"lines 1, 2, 3, 4, 5 ... \(9 in all\) are empty"),
    (b"a\nb\nfl\xe9ur\n", r"line 3 is no UTF-8 at its byte 3 \(0xe9\)"),
    ("a red bird".encode("utf-16"), "line 1 is no UTF-8 at its byte 1"),
    (b"a\n" + b"b" * 10_001, "line 2 has more than 10,000 bytes"),
    (b"a\nb\nc\nd\n", "line 4 is one too many: at most 3 captions"),
])
def test_a_bad_captions_file_is_answered_with_its_line(runs, tmp_path, monkeypatch, data, message):
    if b"c\n" in data:
        monkeypatch.setattr(caption_files, "MOST_LINES", 3)
    path = tmp_path / "captions.txt"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"--captions_file={path}: {message}") as caught:
        sample.sample(runs, "both", captions_file=str(path))
    assert "\n" not in str(caught.value)


def test_many_pictures_share_batches_and_are_the_same(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "GRID_PICTURES", 10)
    captions = ["a", "cab", "dad"]
    sample.sample(runs, "sketch", captions, count=9, seed=5, output=str(tmp_path))
    assert len(list(tmp_path.glob("*_stage1.png"))) == 27
    height = Image.open(tmp_path / "grid.png").height
    assert height == 3 * 20 + 2 * 19  # rows of 8, 1 and 1 pictures, and two labels; not of 27
    alone = Generator(runs, "sketch").generate(["dad"], [5 + 8])
    assert (np.asarray(Image.open(tmp_path / "2_8_stage1.png")) == alone[0]).all()


def test_picture_j_of_a_seed_is_the_first_of_seed_plus_j(runs, tmp_path):
    sample.sample(runs, "both", ["cab"], count=3, seed=2**40, output=str(tmp_path / "three"))
    sample.sample(runs, "both", ["cab"], count=1, seed=2**40 + 2, output=str(tmp_path / "one"))
    assert contents([tmp_path / "three/0_2_stage2.png"]) == contents([tmp_path
                                                                      / "one/0_0_stage2.png"])


@pytest.mark.parametrize("number", [0, 7, 2**31, 2**32 + 5, 2**63 - 1, -1, -2**63])
def test_the_noise_of_a_number_is_that_of_its_halves(number):
    dims = {"noise": 5, "epsilon": 3}
    low = number % 2**32
    halves = [number // 2**32, low - 2**32 if low >= 2**31 else low]
    alone = latents.draw(dims, tf.constant(halves, tf.int32), 1)
    among = tf.function(latents.draw_each)(dims, tf.constant([3, number, 4], tf.int64))
    for name in dims:
        assert (among[name][1:2] == alone[name]).numpy().all()
        assert len(np.unique(among[name])) == 3 * dims[name]


def test_truncation_scales_the_noise_and_nothing_else(runs):
    generator = Generator(runs, "both")
    full, half = generator.latents([5, 6]), generator.latents([5, 6], truncation=0.5)
    np.testing.assert_array_equal(half["noise"], full["noise"] / 2)
    np.testing.assert_array_equal(half["epsilon"], full["epsilon"])
    no_noise = generator.decode({**full, "noise": 0 * full["noise"]}, generator.embed(["ab"] * 2))
    assert (generator.generate(["ab"] * 2, [5, 6], truncation=0.0) == no_noise).all()


def test_epsilon_scale_scales_epsilon_and_nothing_else(runs):
    generator = Generator(runs, "both")
    full, half = generator.latents([5, 6]), generator.latents([5, 6], epsilon_scale=0.5)
    np.testing.assert_array_equal(half["noise"], full["noise"])
    np.testing.assert_array_equal(half["epsilon"], full["epsilon"] / 2)
    no_epsilon = {**full, "epsilon": 0 * full["epsilon"]}
    assert (generator.generate(["ab"] * 2, [5, 6], epsilon_scale=0.0)
            == generator.decode(no_epsilon, generator.embed(["ab"] * 2))).all()


def test_text_strength_moves_along_the_line_from_the_mean(runs):
    """The encoder counts a, b, c and d; the mean is that of fake_runs."""
    generator, mean = Generator(runs, "both"), np.array(MEAN)
    for strength, expected in ((0, mean), (1, [1, 2, 0, 1]), (3, [2, 5.5, -2, 3])):
        np.testing.assert_allclose(generator.embed(["bad b"], text_strength=strength),
                                   [expected], atol=1e-6)
    moved = np.float32([[2, 5.5, -2, 3]] * 2)
    assert (generator.generate(["bad b"] * 2, [5, 6], text_strength=3)
            == generator.generate(moved, [5, 6])).all()
    # without the caption, all captions draw the same
    one, other = (generator.generate([c], [5], text_strength=0) for c in ("bad b", "cc"))
    assert (one == other).all()


def test_a_run_has_the_knobs_that_turn_something(runs):
    assert Generator(runs, "both").knobs == knobs.NAMES
    assert Generator(runs, "sketch").knobs == ("truncation", "epsilon_scale")  # knows no mean
    assert Generator(runs, "silent").knobs == ("truncation",)


def test_knobs_at_1_leave_every_bit(runs):
    """Noise and embeddings of an odd last bit, which a sum or a product might round."""
    generator = Generator(runs, "both")
    ones = dict.fromkeys(knobs.NAMES, 1.0)
    plain, turned = generator.latents([5, 2**40]), generator.latents([5, 2**40], **ones)
    assert all(plain[name].tobytes() == turned[name].tobytes() for name in plain)
    odd = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert generator.embed(odd, **ones).tobytes() == odd.tobytes()
    assert knobs.Knobs(**ones).strengthen(odd, None) is odd


@pytest.mark.parametrize("run, options, message", [
    ("silent", {"epsilon_scale": ["0"]}, "no epsilon to multiply; leave epsilon_scale out"),
    ("silent", {"text_strength": ["1", "2"]}, "without text; leave text_strength out"),
    ("sketch", {"text_strength": ["2"]}, "mean embedding .* does not have; leave it out"),
    ("sketch", {"text_strength": ["2"], "interpolate": "noise"}, "does not have; leave it out"),
])
def test_a_knob_without_anything_to_turn_is_refused(runs, tmp_path, run, options, message):
    for place in ("folder", "output")[len(options) > 1 or len(*options.values()) > 1:]:
        with pytest.raises(UserError, match=message) as caught:
            sample.sample(runs, run, ["ab"] * (run == "sketch"),
                          **{place: str(tmp_path / "new")}, **options)
        assert "\n" not in str(caught.value) and not os.path.exists(tmp_path / "new")


@pytest.mark.parametrize("options, message", [
    ({"truncation": ["x"]}, "--truncation=x is no number"),
    ({"epsilon_scale": ["inf"]}, "--epsilon_scale=inf is no number"),
    ({"text_strength": [""]}, "--text_strength= is no number"),
    ({"text_strength": [1, 2], "epsilon_scale": [0, 1]}, "--epsilon_scale of several values and"),
    ({"truncation": ["-1"]}, "--truncation=-1 is no number"),
    *(({name: ["1e38"]}, rf"--{name}=1e38 is no number of at least 0 and at most 10")
      for name in knobs.NAMES),
    ({"truncation": ["1", "nan"]}, "--truncation=nan is no number"),
    ({"truncation": []}, "--truncation= names no number"),
    ({"captions_file": "x.txt"}, "--captions and --captions_file"),
    ({"folder": "x", "neighbors": 2}, "--folder and --neighbors make different things"),
    ({"truncation": [0, 1], "interpolate": "noise"}, "--truncation of several values make"),
    ({"folder": "x", "output": "y"}, "--folder and --output"),
    ({"interpolate": "captions"}, "give two or more"),
    ({"interpolate": "captions", "count": 3}, "leave --count out"),
    ({"interpolate": "noise", "count": 1}, "two noises or more"),
    ({"interpolate": "noise", "captions": ["a", "b"]}, "give one caption, not 2"),
    ({"neighbors": 2}, "no config.json"),
    ({"neighbors": 9, "count": 52}, "would show 520 pictures; at most 512"),
    ({"truncation": [0, 1], "captions": ["a"] * 65}, "would show 520 pictures"),
    ({"interpolate": "noise", "count": 34}, "would show 528 pictures"),
    ({"output": "gs://bucket/x"}, "cannot be written in gs://bucket/x"),
    ({"folder": "gs://bucket/x"}, "cannot be written in gs://bucket/x"),
])
def test_options_that_do_not_go_together(runs, options, message):
    with pytest.raises(UserError, match=message):
        sample.sample(runs, "both", **{"captions": ["ab"], **options})


def test_command_line(runs, tmp_path):
    flags = [f"--checkpoint_dir={runs}", "--run=both"]
    done = command_here("sample", *flags, "--captions=ab", "--captions=cd", "--count=1",
                        f"--output={tmp_path}")
    assert done.stdout.splitlines()[0] == str(tmp_path / "grid.png")
    assert (tmp_path / "1_0_stage2.png").exists()
    done = command_here("sample", *flags, "--captions= ", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: caption 1 of 1 is empty")
    assert "Traceback" not in done.stderr
