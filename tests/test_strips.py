"""Interpolation, truncation sweeps and nearest neighbors, on tiny runs and by hand."""

import io
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from stackgan_tf import build, neighbors, pipeline, sample, strips
from stackgan_tf.config import Config, UserError
from stackgan_tf.generate import Generator
from stackgan_tf.run_folder import Part


def frames(path):
    animation = Image.open(path)
    found = []
    for i in range(animation.n_frames):
        animation.seek(i)
        found.append(np.asarray(animation.convert("RGB")))
    return np.stack(found), animation.info["loop"]


def test_slerp_walks_the_circle_in_equal_angles():
    a, b = np.array([2.0, 0.0]), np.array([0.0, 2.0])
    for share in (0.0, 0.25, 1 / 3, 1.0):
        angle = share * np.pi / 2
        np.testing.assert_allclose(strips.slerp(a, b, share),
                                   [2 * np.cos(angle), 2 * np.sin(angle)], atol=1e-12)
    # the mean of 100 normal numbers is shorter than any: the arc is not
    a, b = np.random.default_rng(0).normal(size=(2, 1000))
    assert np.linalg.norm((a + b) / 2) < 24 < 30 < np.linalg.norm(strips.slerp(a, b, 0.5)) < 33


@pytest.mark.parametrize("b", [[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0]])
def test_slerp_on_one_line_is_finite_and_ends_where_it_should(b):
    a, b = np.array([1.0, 2.0]), np.array(b)
    np.testing.assert_array_equal(strips.slerp(a, b, 0.0), a)
    np.testing.assert_array_equal(strips.slerp(a, b, 1.0), b)
    assert np.isfinite(strips.slerp(a, b, 0.5)).all()


def test_walk_passes_every_end():
    ends = np.array([[0.0], [4.0], [2.0]])
    assert strips.walk(ends, 4, strips.lerp)[:, 0].tolist() == [0, 1, 2, 3, 4, 3.5, 3, 2.5, 2]


def test_a_walk_begins_at_each_end_bit_for_bit():
    ends = np.random.default_rng(0).standard_normal((200, 64)).astype(np.float32)
    walked = strips.walk(ends, 2, strips.slerp)
    np.testing.assert_array_equal(walked[::2], ends)


@pytest.mark.parametrize("options", [
    {"captions": ["a cab", "bad"], "interpolate": "captions"},
    {"captions": ["a cab"], "interpolate": "noise"},
])
def test_interpolation_ends_at_the_pictures_of_sample(runs, tmp_path, options):
    paths = sample.sample(runs, "both", seed=3, steps=5, output=str(tmp_path), **options)
    assert [os.path.basename(path) for path in paths] == [
        "strip.png", "animation.gif", "animation.png", "animation.webp"]
    captions = (options["captions"] * 2)[:2]
    seeds = [3, 3 + (options["interpolate"] == "noise")]
    ends = Generator(runs, "both").generate(captions, seeds)
    shown, loop = frames(tmp_path / "animation.png")
    assert loop == 0 and len(shown) == 6 + 4  # there and back, an end is not shown twice
    assert (shown[0] == ends[0]).all() and (shown[5] == ends[1]).all()
    assert (shown[6:] == shown[4:0:-1]).all()
    assert len(np.unique(shown[:6], axis=0)) == 6
    for kind in ("gif", "webp"):
        lossy, loop = frames(tmp_path / f"animation.{kind}")
        assert loop == 0 and lossy.shape == shown.shape
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    assert strip.shape[1] == 6 * 34 + 2  # six pictures of 32, 2 between and around
    assert (strip[-34:-2, 2:34] == ends[0]).all() and (strip[-34:-2, -34:-2] == ends[1]).all()


def test_a_long_walk_has_a_strip_of_eight(runs, tmp_path):
    sample.sample(runs, "sketch", ["ab"], interpolate="noise", count=3, steps=10,
                  output=str(tmp_path))
    assert Image.open(tmp_path / "strip.png").width == 8 * 18 + 2
    assert Image.open(tmp_path / "animation.gif").n_frames == 21 + 19


def test_a_run_without_text_walks_its_noise(runs, tmp_path):
    sample.sample(runs, "silent", interpolate="noise", steps=2, output=str(tmp_path))
    assert Image.open(tmp_path / "animation.png").n_frames == 4


def test_truncation_sweep_is_a_row_of_each(runs, tmp_path):
    path, = sample.sample(runs, "both", ["cab"], truncation=["0", "1"], count=2, seed=1,
                          output=str(tmp_path))
    sweep = np.asarray(Image.open(path))
    generator = Generator(runs, "both")
    zero, one = (generator.generate(["cab"] * 2, [1, 2], truncation=t) for t in (0.0, 1.0))
    assert (sweep[-34:-2, 2:34] == one[0]).all() and (sweep[-34:-2, 36:68] == one[1]).all()
    half = len(sweep) // 2
    assert (sweep[half - 34:half - 2, 2:34] == zero[0]).all()
    assert (sweep[:19] < 128).any()  # its label


@pytest.mark.parametrize("name, value", [("epsilon_scale", 0.0), ("text_strength", 2.0)])
def test_sweeps_of_the_other_knobs(runs, tmp_path, name, value):
    path, = sample.sample(runs, "both", ["cab"], count=1, seed=1, output=str(tmp_path),
                          truncation=["0.5"], **{name: [str(value), "1"]})
    assert os.path.basename(path) == f"{name}.png"
    shown, generator = np.asarray(Image.open(path)), Generator(runs, "both")
    half = len(shown) // 2
    turned = generator.generate(["cab"], [1], truncation=0.5, **{name: value})[0]
    plain = generator.generate(["cab"], [1], truncation=0.5)[0]
    assert (shown[half - 34:half - 2, 2:34] == turned).all() and (turned != plain).any()
    assert (shown[-34:-2, 2:34] == plain).all()


@pytest.mark.parametrize("knob", ["truncation", "epsilon_scale", "text_strength"])
def test_a_turned_walk_ends_at_turned_pictures(runs, knob):
    generator = Generator(runs, "both")
    walked = strips.between(generator, ["cab", "dad"], [1, 2], 2, **{knob: 0.5})
    for place, caption, seed in ((0, "cab", 1), (-1, "dad", 2)):
        alone, = generator.generate([caption], [seed], **{knob: 0.5})
        assert (walked[place] == alone).all()
        assert (alone != generator.generate([caption], [seed])[0]).any()


def test_overviews_are_not_overwritten(runs, tmp_path):
    sample.sample(runs, "sketch", ["ab"], truncation=[0, 1], output=str(tmp_path))
    before = (tmp_path / "truncation.png").read_bytes()
    with pytest.raises(UserError, match="already holds truncation.png"):
        sample.sample(runs, "sketch", ["cd"], truncation=[0, 1], output=str(tmp_path))
    assert (tmp_path / "truncation.png").read_bytes() == before


def test_nearest_is_that_of_every_distance_written_out():
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)  # 16x16: the feature is the picture
    training = rng.integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    training[7], training[290] = made[1], made[2][:, ::-1]  # a copy, and a mirrored one
    found, distances = neighbors.nearest(made, training, 2, 0.0)
    assert found.shape == (3, 2, 16, 16, 3) and distances[1, 0] == distances[2, 0] == 0
    assert (found[2, 0] == training[290]).all()
    for picture, near, distance in zip(made.astype(float), found, distances):
        every = [min(np.sqrt(((picture - side) ** 2).mean()) for side in (other, other[:, ::-1]))
                 for other in training.astype(float)]
        order = np.argsort(every)[:2]
        np.testing.assert_allclose(distance, np.array(every)[order], rtol=1e-5)
        assert (near == training[order]).all()


def test_the_feature_is_the_mean_color_of_16_by_16_parts():
    picture = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    means = picture.reshape(16, 4, 16, 4, 3).astype(float).mean((1, 3))
    np.testing.assert_allclose(neighbors.features(picture), means, rtol=1e-5)


def test_neighbors_of_a_run_are_its_training_pictures(runs, folder, tmp_path):
    root = tmp_path / "checkpoints"
    os.makedirs(root / "mine")
    for part in os.listdir(os.path.join(runs, "sketch")):
        os.symlink(os.path.join(runs, "sketch", part), root / "mine" / part)
    os.unlink(root / "mine/stage1")
    os.makedirs(root / "mine/stage1")
    os.symlink(os.path.join(runs, "sketch/stage1/saved_model"), root / "mine/stage1/saved_model")
    settings = {"dataset": "folder", "data_dir": "gone", "crop_margin": 0.25, "image_size": 16}
    (root / "mine/stage1/config.json").write_text(json.dumps(settings))
    path, = sample.sample(str(root), "mine", ["ab", "cd"], neighbors=3, count=1, data_dir=folder,
                          output=str(tmp_path / "out"))
    sheet = np.asarray(Image.open(path))
    made = Generator(str(root), "mine").generate(["cd"], [0])[0]
    row = sheet[-18:-2]
    assert sheet.shape[1] == 4 * 18 + 2 and (row[:, 2:18] == made).all()
    # by hand, of the folder's files: the middle 16x16 of each at 20x20
    small = [Image.open(f"{folder}/{i}.png").resize((20, 20), Image.Resampling.BICUBIC)
             .crop((2, 2, 18, 18)) for i in range(12)]
    small = np.stack([np.asarray(picture) for picture in small]).astype(float)
    every = np.minimum(((small - made) ** 2).mean((1, 2, 3)),
                       ((small[:, :, ::-1] - made) ** 2).mean((1, 2, 3)))
    for place, i in enumerate(np.argsort(every)[:3], 1):
        assert (row[:, 2 + 18 * place:18 + 18 * place] == small[i]).all()
    with pytest.raises(UserError, match="captions.jsonl"):
        sample.sample(str(root), "mine", ["ab"], neighbors=3)


def test_neighbors_of_other_data_are_said_to_be_that(monkeypatch, tmp_path, capsys):
    rows = [{"image": np.zeros((20, 20, 3), np.uint8), "file_name": f"a/{i}.png",
             "captions": [f"c{i}".encode()]} for i in range(5)]
    monkeypatch.setattr(build, "load_elements", lambda *_: iter(rows))
    part, made = Part(str(tmp_path), "run", "stage1"), np.zeros((1, 16, 16, 3), np.uint8)
    generator = SimpleNamespace(part=part, run="run", data_config=lambda **_: Config())
    neighbors.of_run(generator, made, 2)
    assert "warning" not in capsys.readouterr().out  # it is not known what was trained on
    part.write_trained_on(pipeline.Examples(rows, 16).kept_keys)
    neighbors.of_run(generator, made, 2)
    assert "warning" not in capsys.readouterr().out
    rows[1]["captions"] = [b"other"]
    neighbors.of_run(generator, made, 2)
    assert "warning: 1 of these 5 pictures have other names or captions than those that run 'run'" \
        in capsys.readouterr().out


def test_no_training_picture_is_said():
    with pytest.raises(UserError, match="hold no picture"):
        neighbors.nearest(np.zeros((1, 16, 16, 3), np.uint8), [], 2, Config.crop_margin)


@pytest.mark.parametrize("kind, options, error", [
    ("PNG", {}, 0), ("GIF", {}, 5), ("WEBP", {"quality": 90}, 5)])
def test_an_animation_shows_its_frames_endlessly(kind, options, error):
    y, x = np.mgrid[:64, :64] * 4
    shown = np.stack([np.stack([y, x, np.full_like(x, 120 * i)], -1) for i in range(3)])
    data = strips.encode_animation(shown.astype(np.uint8), kind, **options)
    read, loop = frames(io.BytesIO(data))
    assert loop == 0 and read.shape == shown.shape
    assert np.abs(read.astype(float) - shown).mean() <= error
    assert Image.open(io.BytesIO(data)).format == kind


def test_a_gif_takes_its_time():
    shown = [np.full((4, 4, 3), value, np.uint8) for value in (0, 99, 200)]
    animation = Image.open(io.BytesIO(strips.encode_animation(shown, "GIF")))
    assert animation.info["duration"] == strips.FRAME_MILLISECONDS
