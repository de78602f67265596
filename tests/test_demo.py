"""The page of `demo`: its functions, its mistakes, over a server, and in a real browser."""

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import serving
from conftest import ROOT, command
from fake_runs import DIM, NOISE, write_stage
from PIL import Image
from python2_pickle import dumps

from stackgan_tf import demo, export
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator
from stackgan_tf.served_generator import ServedGenerator

gradio = pytest.importorskip("gradio", reason="pip install -e '.[demo]' brings Gradio")
from stackgan_tf import page as pages  # noqa: E402

HOSTILE = """<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>
</textarea>"'; DROP TABLE -- ${7*7} {{7*7}} [a](javascript:alert(1)) \u202e\0"""


@pytest.fixture(scope="module")
def root(runs, folder, tmp_path_factory):
    """A checkpoint_dir with the runs of `runs`, where `both` knows its data: `folder`."""
    root = tmp_path_factory.mktemp("demo")
    for run in ("sketch", "silent"):
        os.symlink(os.path.join(runs, run), root / run)
    shutil.copytree(os.path.join(runs, "both"), root / "both")
    (root / "both/stage2/config.json").write_text(json.dumps({
        "dataset": "folder", "data_dir": folder, "crop_margin": 0.25, "image_size": 32}))
    return str(root)


@pytest.fixture(scope="module")
def page(root):
    return demo.of_run(root, "both")


@pytest.fixture(scope="module")
def served(root, tmp_path_factory):
    """{run: address} of a stand-in for TensorFlow Serving."""
    servers, addresses = [], {}
    for run in ("both", "sketch", "silent"):
        base = str(tmp_path_factory.mktemp("serving") / run)
        export.export_run(root, run, base)
        server, addresses[run] = serving.start_rest(serving.Model(base))
        servers.append(server)
    yield addresses
    for server in servers:
        server.shutdown()


# What its buttons do


def test_it_draws_what_the_run_draws(page, root):
    sketches, pictures = page.draw("a cab", 4, 3, 0.5, 0.25, 2.0)
    generator = Generator(root, "both")
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
def test_it_walks_from_the_picture_to_another(page, root, goal, ends):
    html, shown = page.walk("cab", 4, goal, 0.5)
    first, last = (Generator(root, "both").generate([c], [s], truncation=0.5)[0] for c, s in ends)
    assert (shown[0] == first).all() and (shown[-1] == last).all()
    assert len(np.unique(shown, axis=0)) == len(shown) == 8
    assert animation(html) == 2 * pages.STEPS


def test_it_finds_the_nearest_training_pictures(page, root, folder):
    found = page.find_nearest("cab", 0, 2, 1.0)
    assert len(found) == 2 * (1 + pages.NEIGHBORS)
    drawn, label = found[1 + pages.NEIGHBORS]
    assert label == "drawn, seed 1"
    assert (drawn == Generator(root, "both").generate(["cab"], [1])[0]).all()
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


def test_data_that_are_gone_are_said_and_the_page_goes_on(root, tmp_path, capsys):
    (tmp_path / "mine").symlink_to(os.path.join(root, "sketch"))
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


def test_a_run_without_text_draws_from_noise(root):
    silent = demo.of_run(root, "silent")
    (picture, _), (other, _) = silent.draw("", 3, 2, 1)[0]
    expected = Generator(root, "silent").generate(None, [3, 4])
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


# Over a server


@pytest.mark.parametrize("run", ["both", "sketch", "silent"])
def test_a_server_draws_as_the_run(root, served, run):
    generator, remote = Generator(root, run), ServedGenerator(served[run])
    captions = ["cab", HOSTILE] if generator.text else None
    assert remote.stages == generator.stages and remote.walks
    made, expected = (g.draw_stages(captions, [4, 2**53]) for g in (remote, generator))
    for stage in generator.stages:
        np.testing.assert_array_equal(made[stage], expected[stage])
    noise, there = remote.latents([4, 5]), generator.latents([4, 5])
    assert noise.keys() == there.keys() and noise["noise"].shape == (2, NOISE)
    for name in there:
        np.testing.assert_array_equal(noise[name], there[name])
    if captions:
        np.testing.assert_array_equal(remote.embed(captions), generator.embed(captions))


@pytest.mark.parametrize("run", ["both", "silent"])
def test_the_page_of_a_server(root, served, run):
    page, local = demo.of_server(served[run], ["cab"]), demo.of_run(root, run, ["cab"])
    drawn, expected = (each.draw("cab", 4, 2, 1.0) for each in (page, local))
    for made, there in zip(drawn, expected, strict=True):
        assert all((a == b).all() and c == d for (a, c), (b, d) in zip(made, there))
    html, shown = page.walk("cab", 4, "", 1.0)
    assert animation(html) == 2 * pages.STEPS
    for frame, there in zip(shown, local.walk("cab", 4, "", 1.0)[1], strict=True):
        assert np.abs(frame.astype(int) - there).max() <= 1  # other batches round otherwise
    blocks = page.build().blocks.values()
    labels = {getattr(block, "label", None) for block in blocks if block.visible}
    sliders = {label for label, _ in pages.SLIDERS.values()}
    assert page.nearest is None and not labels & {*sliders, "Nearest training pictures"}
    shown = {getattr(block, "label", None) for block in local.build().blocks.values()
             if block.visible}
    assert len(shown & sliders) == {"both": 3, "silent": 1}[run]  # those that turn something
    assert "not on the server" in page.notes[0]
    with pytest.raises(UserError, match="draws as it was exported"):
        page.draw("cab", 0, 1, 0.5)


NO_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # an import of them fails
from stackgan_tf import demo
demo.show = lambda page, host, port: print(
    [len(made) for made in page.draw("cab", 0, 2, 1.0)], len(page.walk("cab", 0, "dad", 1.0)[1]),
    page.examples, type(page.build()).__name__)
from absl import flags
demo.define_own_flags()
flags.FLAGS(["demo", *sys.argv[1:]])
demo.main([])
"""


def test_the_readme_s_command_for_a_server_needs_no_tensorflow(served, tmp_path):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        (given,) = re.findall(r"^    python -m stackgan_tf\.demo --server=(.*)$", file.read(), re.M)
    assert given == "http://localhost:8501/v1/models/flowers"
    (tmp_path / "captions.txt").write_text("a red flower\na blue one\n")
    done = subprocess.run(
        [sys.executable, "-c", NO_TENSORFLOW, f"--server={served['both']}", f"--port={free_port()}",
         f"--captions_file={tmp_path}/captions.txt"], text=True, capture_output=True, timeout=120,
        env={**os.environ, "PYTHONPATH": ROOT})
    assert done.stdout == "[2, 2] 8 ['a red flower', 'a blue one'] Blocks\n", done.stderr


def answering(status, body):
    """(server, address) that gives one answer to everything."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/v1/models/flowers"


def metadata(**inputs):
    signatures = {"serving_default": {"inputs": inputs, "outputs": {"image_bytes": {}}}}
    return json.dumps({"metadata": {"signature_def": {"signature_def": signatures}}}).encode()


@pytest.mark.parametrize("status, body, message", [
    (404, b'{"error": "Could not find any versions\\n of model flowers"}',
     "answers 404: Could not find any versions of model flowers"),
    (502, b"<html>Bad gateway</html>", "answers 502: Bad Gateway"),
    (200, b"<html>hello</html>", "not as TensorFlow Serving's REST port does"),
    (200, b"[]", "not as TensorFlow Serving"),
    (200, b'{"metadata": 1}', "not as TensorFlow Serving"),
    (200, b"\xff\xfe", "not as TensorFlow Serving"),
    (200, metadata(x={}), "no model of stackgan_tf.export: its serving_default reads x, not"),
    (200, metadata(), "reads nothing, not captions and seeds"),
    (200, metadata(embeddings={}, seeds={}), "draws from embeddings, not from captions"),
])
def test_other_servers_are_refused(status, body, message):
    server, address = answering(status, body)
    with pytest.raises(UserError, match=message) as caught:
        ServedGenerator(address)
    server.shutdown()
    assert "\n" not in str(caught.value) and address in str(caught.value)


@pytest.mark.parametrize("address", [
    "localhost:8501", "http://localhost:8501", "file:///v1/models/flowers", "http:///v1/models/a",
    "http://localhost:8501/v1/models/", "http://localhost:8501/v1/models/a b"])
def test_an_address_of_no_model_is_refused(address):
    with pytest.raises(UserError, match="--server=.* it looks like http://localhost:8501/v1"):
        ServedGenerator(address)


def test_a_server_that_is_not_there_or_goes_away(served):
    with pytest.raises(UserError, match="nothing answers there .*start TensorFlow Serving"):
        ServedGenerator(f"http://127.0.0.1:{free_port()}/v1/models/flowers")
    remote = ServedGenerator(served["both"] + ":predict")  # as the README's client writes it
    remote.run = f"http://127.0.0.1:{free_port()}/v1/models/flowers"
    with pytest.raises(UserError, match="nothing answers there"):
        remote.draw_stages(["cab"], [0])


@pytest.mark.parametrize("answer", [
    {}, {"predictions": []}, {"predictions": [{"stage1_bytes": {"b64": "AAAA"}}]},
    {"predictions": [{"stage1_bytes": {"b64": "AAAA"}, "stage2_bytes": {"b64": "AAAA"}}]},
    {"predictions": [7]}])
def test_an_answer_without_pictures_is_said(served, answer, monkeypatch):
    remote = ServedGenerator(served["both"])
    monkeypatch.setattr(remote, "_ask", lambda *_: answer)
    with pytest.raises(UserError, match="not as TensorFlow Serving"):
        remote.draw_stages(["cab"], [0])
    monkeypatch.setattr(remote, "_ask", lambda *_: {"predictions": [{"noise": [float("nan")]}]})
    with pytest.raises(UserError, match="not as TensorFlow Serving"):
        remote.latents([0])


def test_a_server_turns_no_knob(served):
    remote = ServedGenerator(served["both"])
    assert remote.knobs == ()
    for draw in (remote.draw_stages, lambda _, seeds, **knobs: remote.latents(seeds, **knobs),
                 lambda captions, _, **knobs: remote.embed(captions, **knobs)):
        with pytest.raises(UserError, match="--text_strength of stackgan_tf.export"):
            draw(["cab"], [0], text_strength=2.0)


def test_an_older_export_has_no_walk(served, monkeypatch):
    read = ServedGenerator._read_signatures
    monkeypatch.setattr(ServedGenerator, "_read_signatures", lambda self: {
        name: ends for name, ends in read(self).items() if name != "latents"})
    page = demo.of_server(served["both"])
    assert not page.walks and "export the run again" in page.notes[1]
    assert "Walk" not in [block.value for block in page.build().blocks.values()
                          if isinstance(block, gradio.Button)]


# The command


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unknown_run(root):
    with pytest.raises(UserError, match=r"no such run in .*there are: both, silent, sketch"):
        demo.of_run(root, "nowhere")


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
    done = command("demo", *flags, check=False)
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


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, which reaches this machine only."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install -e '.[test]'")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update",
                 "--window-size=1280,1600", f"--user-data-dir={tmp_path_factory.mktemp('user')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Visitor:
    """Looks at a page and uses it as a person does."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        browser.get(address)

    def until(self, look, what):
        """What `look` returns, as soon as it is true."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait
        return WebDriverWait(self.browser, 20, 0.1, [WebDriverException]).until(
            lambda _: look(), what)

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def click(self, selector):
        self.until(lambda: self.find(selector)[0].click() or True, f"{selector} to click")

    def type(self, selector, text):
        box, = self.find(f"{selector} textarea")
        box.clear()
        box.send_keys(text)

    def sources(self, selector):
        return [picture.get_attribute("src") for picture in self.find(f"{selector} img")]

    def pictures(self, selector, count):
        """The pixels of `count` pictures that a gallery shows, once they are loaded."""
        loaded = ("return [...document.querySelectorAll(arguments[0] + ' img')]"
                  ".filter(one => one.complete && one.naturalWidth).length")
        self.until(lambda: self.browser.execute_script(loaded, selector) == count,
                   f"{count} pictures in {selector}")
        shown = []
        for source in self.sources(selector):
            with urllib.request.urlopen(source, timeout=20) as answer:
                shown.append(np.asarray(Image.open(io.BytesIO(answer.read()))))
        return np.stack(shown)

    def new_pictures(self, selector, count, action):
        """`pictures` after an action that changes them."""
        before = self.sources(selector)
        action()
        self.until(lambda: not set(before) & set(self.sources(selector)), "other pictures")
        return self.pictures(selector, count)


def test_a_visitor_draws_walks_and_compares(page, root, browser, tmp_path):
    blocks = page.launch("127.0.0.1", free_port(), prevent_thread_lock=True)
    visitor, generator = Visitor(browser, blocks.local_url), Generator(root, "both")

    def expect(caption, stage=None, seed=0):
        return generator.generate([caption] * 4, range(seed, seed + 4), stage)

    # it opens with pictures of its first example
    first = page.examples[0]
    np.testing.assert_array_equal(visitor.pictures("#stage2", 4), expect(first))
    np.testing.assert_array_equal(visitor.pictures("#stage1", 4), expect(first, 1))
    # a caption is typed
    visitor.type("#caption", "a bad cab")
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#draw"))
    np.testing.assert_array_equal(made, expect("a bad cab"))
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#more"))
    np.testing.assert_array_equal(made, expect("a bad cab", seed=4))
    # a hostile one is text
    text = HOSTILE.replace("\0", "").replace("\n", " ")
    visitor.type("#caption", text)
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#draw"))
    np.testing.assert_array_equal(made, expect(text, seed=4))
    assert browser.title == "StackGAN: both" and not visitor.find('img[src="x"]')
    # an empty one is said
    visitor.type("#caption", " ")
    visitor.click("#draw")
    visitor.until(lambda: "the caption is empty" in visitor.find("body")[0].text, "the message")
    # an example is clicked
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#examples button"))
    np.testing.assert_array_equal(made, expect(first, seed=4))
    # the walk, to another caption
    visitor.type("#goal", "dad")
    visitor.click("#walk")
    strip = visitor.pictures("#walk-strip", 8)
    assert (strip[0] == expect(first, seed=4)[0]).all()
    assert (strip[-1] == expect("dad", seed=4)[0]).all()
    assert visitor.sources("#walk-animation")[0].startswith("data:image/webp;base64,")
    # the neighbors
    visitor.click("button[role=tab]:nth-of-type(2)")
    visitor.click("#nearest")
    rows = visitor.pictures("#neighbors", 4 * (1 + pages.NEIGHBORS))
    np.testing.assert_array_equal(rows[::1 + pages.NEIGHBORS], expect(first, seed=4))

    assert browser.save_screenshot(str(tmp_path / "page.png"))
    assert np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).std() > 10
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked and all(url.startswith((blocks.local_url, "data:", "blob:")) for url in asked)
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not severe
    blocks.close()
