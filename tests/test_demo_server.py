"""The page of `demo` over a server that has what `export` wrote."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import serving
from conftest import ROOT
from fake_runs import NOISE
from test_demo import HOSTILE, animation, free_port, gradio, pages

from stackgan_tf import demo, export
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator
from stackgan_tf.served_generator import ServedGenerator


@pytest.fixture(scope="module")
def served(demo_root, tmp_path_factory):
    """{run: address} of a stand-in for TensorFlow Serving."""
    servers, addresses = [], {}
    for run in ("both", "sketch", "silent"):
        base = str(tmp_path_factory.mktemp("serving") / run)
        export.export_run(demo_root, run, base)
        server, addresses[run] = serving.start_rest(serving.Model(base))
        servers.append(server)
    yield addresses
    for server in servers:
        server.shutdown()


@pytest.mark.parametrize("run", ["both", "sketch", "silent"])
def test_a_server_draws_as_the_run(demo_root, served, run):
    generator, remote = Generator(demo_root, run), ServedGenerator(served[run])
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
def test_the_page_of_a_server(demo_root, served, run):
    page, local = demo.of_server(served[run], ["cab"]), demo.of_run(demo_root, run, ["cab"])
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
