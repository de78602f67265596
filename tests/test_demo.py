"""The page of `demo`: what its buttons do, and its mistakes."""

import base64
import io
import json
import os
import re
import socket

import numpy as np
import pytest
from conftest import command_here
from fake_runs import DIM, write_stage
from PIL import Image
from python2_pickle import dumps

from stackgan_tf import demo
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator

gradio = pytest.importorskip("gradio", reason="pip install -e '.[demo]' brings Gradio")
from stackgan_tf import page as pages  # noqa: E402

HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>
</textarea>"'; DROP TABLE -- ${7*7} {{7*7}} [a](javascript:alert(1)) \u202e\0"""


@pytest.fixture(scope="module")
def page(demo_root):
    return demo.of_run(demo_root, "both")


# What its buttons do


def test_its_files_are_in_a_folder_of_its_own():
    """Gradio's own is one for all users of a machine: the second could not write there."""
    place = os.environ["GRADIO_TEMP_DIR"]
    assert os.stat(place).st_mode & 0o777 == 0o700 and "stackgan_tf_demo_" in place


def test_it_draws_what_the_run_draws(page, demo_root):
    sketches, pictures = page.draw("a cab", 4, 3, 0.5, 0.25, 2.0)
    generator = Generator(demo_root, "both")
    for stage, made in ((1, sketches), (2, pictures)):
        expected = generator.generate(["a cab"] * 3, [4, 5, 6], stage, truncation=0.5,
                                      epsilon_scale=0.25, text_strength=2.0)
        np.testing.assert_array_equal(np.stack([picture for picture, _ in made]), expected)
        assert [label for _, label in made] == ["seed 4", "seed 5", "seed 6"]


def animation(html):
    """The frames of an <img> that holds its data."""
    data = base64.b64decode(html.partition("base64,")[2].partition('"')[0])
    shown = Image.open(io.BytesIO(data))
    assert shown.format == "WEBP" and shown.info["loop"] == 0
    return shown.n_frames


@pytest.mark.parametrize("goal, ends", [
    ("", [("cab", 4), ("cab", 5)]), (None, [("cab", 4), ("cab", 5)]),
    (" dad", [("cab", 4), ("dad", 4)])])
def test_it_walks_from_the_picture_to_another(page, demo_root, goal, ends):
    html, shown = page.walk("cab", 4, goal, 0.5)
    first, last = (Generator(demo_root, "both").generate([c], [s], truncation=0.5)[0]
                   for c, s in ends)
    assert (shown[0] == first).all() and (shown[-1] == last).all()
    assert len(np.unique(shown, axis=0)) == len(shown) == 8
    assert animation(html) == 2 * pages.STEPS


def test_it_finds_the_nearest_training_pictures(page, demo_root, folder):
    found = page.find_nearest("cab", 0, 2, 1.0)
    assert len(found) == 2 * (1 + pages.NEIGHBORS)
    drawn, label = found[1 + pages.NEIGHBORS]
    assert label == "drawn, seed 1"
    assert (drawn == Generator(demo_root, "both").generate(["cab"], [1])[0]).all()
    # by hand, of the folder's files: the middle 32x32 of each at 40x40, as 16x16 means
    middle = np.stack([np.asarray(Image.open(f"{folder}/{i}.png"))[4:36, 4:36] for i in range(12)])

    def small(pictures):
        return pictures.reshape(-1, 16, 2, 16, 2, 3).astype(float).mean((2, 4))

    distances = np.minimum(*(np.sqrt(((side - small(drawn)) ** 2).mean((1, 2, 3)))
                             for side in (small(middle), small(middle[:, :, ::-1]))))
    for (picture, label), i in zip(found[2 + pages.NEIGHBORS:], np.argsort(distances)):
        assert (picture == middle[i]).all() and label == f"distance {distances[i]:.1f}"


def test_the_examples_are_captions_of_the_data(page):
    assert 2 <= len(set(page.examples)) == len(page.examples) <= demo.EXAMPLES
    assert all(re.fullmatch(r"a (red|green|blue) square|this picture number \d+ is \w+", caption)
               for caption in page.examples)


def test_data_that_are_gone_are_said_and_the_page_goes_on(demo_root, tmp_path, capsys):
    (tmp_path / "mine").symlink_to(os.path.join(demo_root, "sketch"))
    moved = demo.of_run(str(tmp_path), "mine")
    assert moved.examples == [] and "no captions to click on: " in capsys.readouterr().out
    assert len(moved.draw("cab", 0, 1, 1)) == 1
    with pytest.raises(UserError, match="no config.json"):
        moved.find_nearest("cab", 0, 1, 1)
    assert demo.of_run(str(tmp_path), "mine", ["a b"]).examples == ["a b"]


@pytest.mark.parametrize("caption", [HOSTILE, "a\0b", "\ud800", "赤い花", "b" * 1000, "  c\n"])
def test_any_text_is_drawn(page, caption):
    (picture, _), = page.draw(caption, 0, 1, 1)[1]
    assert picture.shape == (32, 32, 3)


@pytest.mark.parametrize("changes, message", [
    ({"caption": ""}, "Say what to draw: the caption is empty"),
    ({"caption": " \n\t"}, "the caption is empty"),
    ({"caption": None}, "the caption is empty"),
    ({"caption": "b" * 1001}, "has 1,001 letters; write at most 1,000"),
    ({"seed": None}, "seed is a whole number from 0"),
    ({"seed": -1}, "seed is a whole number from 0"),
    ({"seed": 2**53}, "seed is a whole number"),
    ({"seed": 0.5}, "seed is a whole number"),
    ({"seed": float("nan")}, "seed is a whole number"),
    ({"seed": "1"}, "seed is a whole number"),
    ({"count": 0}, "number of pictures is a whole number from 1 to 8"),
    ({"count": 10**9}, "number of pictures is a whole number from 1 to 8"),
    ({"count": float("inf")}, "number of pictures is a whole number"),
    ({"truncation": -0.1}, "truncation is a number of at least 0"),
    ({"truncation": float("inf")}, "truncation is a number"),
    ({"truncation": float("nan")}, "truncation is a number"),
    ({"truncation": 1e38}, "truncation is a number of at least 0 and at most 10"),
    ({"truncation": None}, "truncation is a number"),
    ({"epsilon_scale": -1}, "epsilon scale is a number of at least 0"),
    ({"text_strength": float("nan")}, "text strength is a number of at least 0"),
])
def test_what_cannot_be_drawn_is_said(page, changes, message):
    values = {"caption": "cab", "seed": 0, "count": 1, "truncation": 1.0, "epsilon_scale": 1.0,
              "text_strength": 1.0, **changes}
    with pytest.raises(UserError, match=message):
        page.draw(*values.values())


def test_a_message_is_no_html():
    def fail():
        raise UserError("<img src=x> & co")

    with pytest.raises(gradio.Error) as caught:
        pages.plain(fail)()
    assert caught.value.message == "&lt;img src=x&gt; &amp; co"


def test_a_run_without_text_draws_from_noise(demo_root):
    silent = demo.of_run(demo_root, "silent")
    (picture, _), (other, _) = silent.draw("", 3, 2, 1)[0]
    expected = Generator(demo_root, "silent").generate(None, [3, 4])
    assert (picture == expected[0]).all() and (other == expected[1]).all()
    _, shown = silent.walk("", 3, "ignored: there is no text", 1)
    assert (shown[0] == expected[0]).all() and (shown[-1] == expected[1]).all()
    boxes = [block for block in silent.build().blocks.values()
             if isinstance(block, gradio.Textbox)]
    assert boxes and not any(box.visible for box in boxes)


def test_a_run_on_embeddings_draws_from_those_of_its_data(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, 2, DIM)).astype(np.float32)
    data = tmp_path / "data"
    for split, count in (("train", 1), ("test", 3)):
        (data / split).mkdir(parents=True)
        names = [f"class/{split}_{i}" for i in range(count)]
        (data / split / "filenames.pickle").write_bytes(dumps(names, 2))
        (data / split / "char-CNN-RNN-embeddings.pickle").write_bytes(
            dumps(list(vectors[:count]), 2))
        for name in names:
            (data / "images/class").mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(data / "images" / f"{name}.png")
    write_stage(tmp_path / "vectors/stage1", 16)
    settings = {"precomputed_embeddings": True, "dataset": "reed", "data_dir": str(data),
                "embedding_dim": DIM}
    (tmp_path / "vectors/stage1/config.json").write_text(json.dumps(settings))
    page = demo.of_run(str(tmp_path), "vectors")
    assert sorted(page.vectors) == [f"class/test_{i}" for i in range(3)]
    (picture, _), = page.draw("class/test_2", 5, 1, 1)[0]
    found = page.vectors["class/test_2"]
    assert any((found == row).all() for row in vectors[2])
    assert (picture == Generator(str(tmp_path), "vectors").generate(found[None], [5])[0]).all()
    with pytest.raises(UserError, match="Choose one"):
        page.draw("a red bird", 0, 1, 1)
    assert page.walk("class/test_0", 0, "class/test_1", 1)[1][0].shape == (16, 16, 3)
    page.build()
    with pytest.raises(UserError, match="no text encoder.* and they cannot be read: .*gone") as e:
        demo.of_run(str(tmp_path), "vectors", data_dir=str(tmp_path / "gone"))
    assert "\n" not in str(e.value)


# The command


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unknown_run(demo_root):
    with pytest.raises(UserError, match=r"no such run in .*there are: both, silent, sketch"):
        demo.of_run(demo_root, "nowhere")


@pytest.mark.parametrize("flags, message", [
    (["--server=flowers"], "--server=flowers is no address of a served model"),
    (["--server=http://localhost:1/v1/models/a", "--run=mine"],
     "--server and --run=mine are two places that draw; give one"),
    (["--captions_file=nowhere.txt"], "--captions_file=nowhere.txt cannot be read: No such file"),
    (["--host=300.1.1.1"], "--host=300.1.1.1 --port=7860: the page cannot be shown there"),
    (["--host=192.0.2.1"], "give another --port, or an address of this machine as --host")])
def test_mistakes_are_one_line(flags, message):
    if not any(flag.startswith("--host") for flag in flags):
        flags = [*flags, f"--port={free_port()}"]
    done = command_here("demo", *flags, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port}: .*in use.*give another --port"):
            demo.check_place("127.0.0.1", port)


def test_without_gradio_the_command_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[demo\]'"):
        demo.check_gradio()
