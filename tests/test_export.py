"""The served model, read by C++, OpenVINO, gRPC and REST, against the pictures of `sample`."""

import base64
import concurrent.futures
import dataclasses
import glob
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest
import serving
import tensorflow as tf
from conftest import ROOT, TINY, command_here
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from stackgan_tf import below, build, checkpoint, disk, export, knobs, latents, sample, saved_parts
from stackgan_tf.config import UserError, resolve
from stackgan_tf.generate import Generator
from stackgan_tf.run_folder import Part
from stackgan_tf.text_encoders import char_cnn_rnn, whitening

CAPTIONS = ["a red flower", "a blue flower", "a flower with six rounded petals"]
SEED = 2**31 - 2  # the seeds of its pictures pass 2**31 - 1
HOSTILE = [b"\xff\xfe\x80", b"\xc3", b"", b"a\0b", "赤い花".encode(), b"x" * 5000]


def randomized(model, scale):
    """Weights with which captions and noise show in the picture."""
    rng = np.random.default_rng(5)
    for v in model.variables:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if "norm" in v.path
                 else scale * rng.normal(size=v.shape))


def write_stage(root, run, stage, **changes):
    """An untrained stage as `train` leaves it."""
    part = Part(root, run, f"stage{stage}")
    config = resolve({**TINY, "stage": stage, "image_size": 16 * stage,
                      "precomputed_embeddings": False, **changes})
    below = saved_parts.Stage1(Part(root, run, "stage1").saved_model) if stage == 2 else None
    gan = build.generator_alone(config, below)
    randomized(gan.generator, {1: 0.3, 2: 0.2}[stage])
    os.makedirs(part.path)
    with open(os.path.join(part.path, "config.json"), "w") as file:
        json.dump(dataclasses.asdict(config), file)
    mean = np.linspace(-0.5, 0.7, 8) if config.embedding_dim else None
    checkpoint.StageExport(config, gan).write(part.saved_model, gan.generator, 6, text_mean=mean)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A checkpoint_dir with the runs `tiny`, `sketch` (Stage-I only), `silent` (no text) and
    `vectors` (on embeddings of its data)."""
    root = str(tmp_path_factory.mktemp("runs"))
    encoder = char_cnn_rnn.CharCnnRnn(8, 8)
    encoder(np.zeros((1, 201), np.int32))
    randomized(encoder, 0.3)
    path = os.path.join(root, "tiny/text_encoder/saved_model")
    checkpoint.export(path, [encoder], {"serve": (
        whitening.serving_function(encoder, np.zeros(8), np.eye(8)),
        [tf.TensorSpec([None], tf.string, "captions")])})
    shutil.copytree(path, os.path.join(root, "sketch/text_encoder/saved_model"))
    for stage in (1, 2):
        # bfloat16: an operation that C++ fuses otherwise than eager TensorFlow shows
        write_stage(root, "tiny", stage, condition_blocks=True, add_to_sketch=stage == 2,
                    noise_injection=True, precision="mixed_bfloat16")
    write_stage(root, "sketch", 1)
    write_stage(root, "silent", 1, embedding_dim=0)
    write_stage(root, "vectors", 1, precomputed_embeddings=True)
    return root


@pytest.fixture(scope="session")
def served(root, tmp_path_factory):
    """(folder of versions, what the command printed)"""
    base = str(tmp_path_factory.mktemp("serving") / "flowers")
    done = command_here("export", f"--checkpoint_dir={root}", "--run=tiny", f"--output={base}")
    return base, done.stdout


@pytest.fixture(scope="session")
def model(served):
    return serving.Model(served[0])


@pytest.fixture(scope="session")
def drawn(root, tmp_path_factory):
    """{stage: [9 PNGs]}, the files of `sample`: 3 of each caption."""
    folder = str(tmp_path_factory.mktemp("drawn"))
    sample.sample(root, "tiny", CAPTIONS, count=3, seed=SEED, output=folder)
    found = {stage: [Path(folder, f"{i}_{j}_stage{stage}.png").read_bytes()
                     for i in range(3) for j in range(3)] for stage in (1, 2)}
    assert len(set(found[2])) == 9 and pixels(found[2]).std() > 20
    return found


ROWS = {"captions": np.array([c.encode() for c in CAPTIONS for _ in range(3)], object),
        "seeds": np.array([SEED + j for _ in CAPTIONS for j in range(3)], np.int64)}


def pixels(pngs):
    return np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in pngs])


def first(count):
    return {name: value[:count] for name, value in ROWS.items()}


def test_constant_weights_draw_the_same_pictures(root, served, drawn, tmp_path):
    for run in ("tiny", "silent"):
        export.export_run(root, run, str(tmp_path / run), constant_weights=True)
    model = serving.Model(str(tmp_path / "tiny"))
    assert list(model.predict("serving_default", ROWS)["image_bytes"]) == drawn[2]
    assert list(model.predict("stage1_and_stage2", ROWS)["stage1_bytes"]) == drawn[1]
    kernels = [[shape for _, shape in tf.train.list_variables(f"{path}/variables/variables")
                if len(shape) == 4] for path in (tmp_path / "tiny/1", f"{served[0]}/1")]
    assert not kernels[0] and kernels[1]
    silent = serving.Model(str(tmp_path / "silent"))
    assert silent.predict("", {"seeds": [1, 2]})["image_bytes"].shape == (2,)


# In C++


def test_the_v1_loader_draws_what_sample_draws(model, drawn):
    made = model.predict("serving_default", ROWS)
    both = model.predict("stage1_and_stage2", ROWS)
    assert made.keys() == {"image_bytes"} and both.keys() == {"stage1_bytes", "stage2_bytes"}
    assert list(made["image_bytes"]) == drawn[2]
    assert list(both["stage1_bytes"]) == drawn[1]
    assert (both["stage2_bytes"] == made["image_bytes"]).all()


def test_a_row_is_the_same_alone_and_in_any_batch(model):
    all_rows = {name: np.resize(value, 19) for name, value in ROWS.items()}
    expected = model.predict("", all_rows)["image_bytes"]
    for rows in (1, 2, 7, 8, 9, 17):
        some = {name: value[19 - rows:] for name, value in all_rows.items()}
        assert (model.predict("", some)["image_bytes"] == expected[19 - rows:]).all(), rows


def test_no_rows_and_rows_that_do_not_match(model):
    for name in ("serving_default", "stage1_and_stage2", "mean"):
        made = model.predict(name, {"captions": np.array([], object), "seeds": []})
        assert all(value.shape == (0,) for value in made.values()) and made
    assert model.predict("embed", {"captions": np.array([], object)})["embeddings"].shape == (0, 8)
    for counts in ((2, 3), (3, 2), (1, 2), (0, 1)):
        rows = {name: ROWS[name][:count] for name, count in zip(ROWS, counts)}
        with pytest.raises(tf.errors.InvalidArgumentError, match="give as many seeds as captions"):
            model.predict("", rows)


def test_any_bytes_and_any_seed_are_drawn(model):
    seeds = np.array([0, -1, 2**63 - 1, -2**63, 2**31, 2**32], np.int64)
    made = pixels(model.predict("", {"captions": np.array(HOSTILE, object),
                                     "seeds": seeds})["image_bytes"])
    assert made.shape == (6, 32, 32, 3) and len(np.unique(made, axis=0)) == 6


def test_saved_model_cli(served, drawn, tmp_path):
    tool = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")
    subprocess.run([tool, "run", f"--dir={served[0]}/1", "--tag_set=serve",
                    "--signature_def=serving_default", f"--outdir={tmp_path}", "--input_exprs",
                    f"captions={CAPTIONS[:2]};seeds={[SEED, SEED]}"],
                   check=True, capture_output=True, timeout=300)
    made = np.load(tmp_path / "image_bytes.npy", allow_pickle=True)
    assert list(made) == [drawn[2][0], drawn[2][3]]


def test_a_c_program(served, model, drawn, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    libraries = [name for kind in ("cc", "framework") for name in
                 glob.glob(os.path.join(tf.sysconfig.get_lib(), f"libtensorflow_{kind}.*"))]
    if not compiler or len(libraries) != 2:
        pytest.skip("no C compiler, or this TensorFlow has no C library")
    program = str(tmp_path / "serve")
    subprocess.run([compiler, "-Wall", "-o", program, os.path.join(ROOT, "tests/serve.c"),
                    f"-I{tf.sysconfig.get_include()}", *libraries,
                    f"-Wl,-rpath,{tf.sysconfig.get_lib()}"], check=True, timeout=300)
    signature = model.signatures["serving_default"]
    names = [signature.inputs["captions"].name, signature.inputs["seeds"].name,
             signature.outputs["image_bytes"].name]
    done = subprocess.run([program, f"{served[0]}/1", *names, CAPTIONS[1], str(SEED + 2)],
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == drawn[2][5]


# Under load


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="memory is read there")
@pytest.mark.parametrize("requests, most", [
    (300, 20), pytest.param(20_000, 20, marks=pytest.mark.slow)])
def test_hostile_requests_from_eight_threads(served, figure, requests, most):
    """Growth of the process, from a fifth of the requests on, in megabytes."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tests/soak.py"), served[0],
                           str(requests)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    count, memory = found["count"], np.array(found["memory"])
    assert count.get("wrong", 0) == count.get("not refused", 0) == 0
    assert count["right"] + count["refused"] == requests and count["refused"] > requests / 100
    warm, end = np.median(memory[3:8], 0), np.median(memory[-5:], 0)
    figure(f"{requests:,} requests of {count['rows']:,} rows by 8 threads, {count['refused']} of "
           f"them to be refused: 0 wrong; memory {warm[0]:.0f} -> {end[0]:.0f} MB (allocated "
           f"{warm[1]:.0f} -> {end[1]:.0f})")
    assert end[0] - warm[0] < most


# By others


def test_openvino_reads_the_numeric_signature(root, tmp_path):
    openvino = pytest.importorskip("openvino", reason="pip install -e '.[test]' brings openvino")
    base = str(tmp_path / "float32")
    copy = shutil.copytree(export.export_run(root, "tiny", base, precision="float32"),
                           tmp_path / "numeric")
    graph = saved_model_pb2.SavedModel.FromString((copy / "saved_model.pb").read_bytes())
    signatures = graph.meta_graphs[0].signature_def
    signatures["serving_default"].CopyFrom(signatures["from_embeddings"])  # it reads no other
    (copy / "saved_model.pb").write_bytes(graph.SerializeToString())
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(3, info.tensor_shape.dim[1].size)).astype(np.float32)
             for name, info in signatures["from_embeddings"].inputs.items()}
    assert {name: value.shape[1] for name, value in feeds.items()} == {
        "embeddings": 8, "noise": 5, "epsilon": 6}
    compiled = openvino.Core().compile_model(str(copy), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = serving.Model(base).predict("from_embeddings", feeds)["images"]
    assert expected.shape == (3, 32, 32, 3) and expected.std() > 0.1
    np.testing.assert_allclose(compiled(feeds)["images"], expected, atol=1e-4)


def request(rows, signature_name="", model_name="flowers"):
    made = predict_pb2.PredictRequest()
    made.model_spec.name, made.model_spec.signature_name = model_name, signature_name
    for name, value in rows.items():
        made.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return made


def test_grpc(model, drawn):
    server, stub = serving.start_grpc(model)
    answer = stub.Predict(request(ROWS), timeout=60)
    assert list(answer.outputs["image_bytes"].string_val) == drawn[2]
    with pytest.raises(grpc.RpcError, match="give as many seeds as captions"):
        stub.Predict(request({**ROWS, "seeds": ROWS["seeds"][:2]}), timeout=60)
    server.stop(None)


def test_requests_that_are_joined_to_batches_answer_as_alone(model):
    alone = [model.predict("", {name: value[i:i + 1] for name, value in ROWS.items()})
             for i in range(5)]
    batching = serving.Batching(model)
    server, stub = serving.start_grpc(batching)
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(
            lambda i: stub.Predict(request({name: v[i:i + 1] for name, v in ROWS.items()}),
                                   timeout=60), range(5)))
    server.stop(None)
    assert sum(batching.sizes) < 5 * 4  # else each had run in a batch of its own
    for answer, expected in zip(answers, alone):
        assert list(answer.outputs["image_bytes"].string_val) == list(expected["image_bytes"])


def post(address, body):
    data = json.dumps(body).encode()
    with urllib.request.urlopen(f"{address}:predict", data, timeout=60) as answer:
        return json.load(answer)


def test_rest(model, drawn):
    server, address = serving.start_rest(model)
    rows = [{"captions": c.decode(), "seeds": int(s)} for c, s in zip(*ROWS.values())]
    made = post(address, {"instances": rows})["predictions"]
    assert [base64.b64decode(png["b64"]) for png in made] == drawn[2]
    columns = {"captions": CAPTIONS, "seeds": [SEED] * 3}
    made = post(f"{address}/versions/1", {"inputs": columns})["outputs"]
    assert [base64.b64decode(png["b64"]) for png in made] == drawn[2][::3]
    both = post(address, {"signature_name": "stage1_and_stage2", "instances": rows[:2]})
    sketches = [base64.b64decode(row["stage1_bytes"]["b64"]) for row in both["predictions"]]
    assert sketches == drawn[1][:2]
    embedded = post(address, {"signature_name": "embed", "instances": CAPTIONS})["predictions"]
    odd = {"signature_name": "embed", "inputs": [{"b64": base64.b64encode(HOSTILE[0]).decode()}]}
    assert np.shape(embedded) == (3, 8) and np.shape(post(address, odd)["outputs"]) == (1, 8)
    assert post(address, {"instances": []})["predictions"] == []
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, {"inputs": {"captions": CAPTIONS, "seeds": [1]}})
    assert "give as many seeds as captions" in json.load(caught.value)["error"]
    server.shutdown()


def test_the_readme_s_requests(model, tmp_path):
    """Its curl's body, and its Python client as it stands but for the port."""
    server, address = serving.start_rest(model)
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    (client,) = [block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
                 if "localhost" in block]
    (body,) = re.findall(r"curl .*:predict.*\n.*-d '(.*)'", text)
    client = client.replace("http://localhost:8501/v1/models/flowers", address)
    subprocess.run([sys.executable, "-c", client], cwd=tmp_path, check=True, timeout=60)
    (by_curl,) = post(address, json.loads(body))["predictions"]
    png = (tmp_path / "flower.png").read_bytes()
    assert png == base64.b64decode(by_curl["b64"]) and pixels([png]).shape == (1, 32, 32, 3)
    server.shutdown()


def test_warm_up_requests_are_serving_s_own_and_run(served, model):
    path = f"{served[0]}/1/assets.extra/tf_serving_warmup_requests"
    found = {}
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        sent = log.predict_log.request
        found[sent.model_spec.signature_name] = model.predict(
            sent.model_spec.signature_name,
            {name: tf.make_ndarray(value) for name, value in sent.inputs.items()})
    assert set(found) == {"serving_default", "stage1_and_stage2", "mean", "embed", "latents",
                          "from_embeddings"}
    assert all(len(value) == 1 for made in found.values() for value in made.values())


# What is in it


def test_the_served_graph_touches_no_files(served):
    """What `saved_model_cli scan` warns of, and whatever calls back into Python."""
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], os.path.join(served[0], "1"))
    nodes = list(meta.graph_def.node) + [node for function in meta.graph_def.library.function
                                         for node in function.node_def]
    used = {node.op for node in nodes}
    assert len(used) > 30 and "EncodePng" in used
    # its variables are restored by RestoreV2, and saving them again is part of every SavedModel
    assert not {op for op in used if re.search("File|PrintV|PyFunc|Socket|Dataset", op)} - {
        "MergeV2Checkpoints", "ShardedFilename"}


def noise(seeds, scale=1.0, epsilon_scale=1.0):
    drawn = latents.draw_each({"noise": 5, "epsilon": 6}, seeds)
    return {"noise": scale * drawn["noise"].numpy(),
            "epsilon": epsilon_scale * drawn["epsilon"].numpy()}


def near(pngs, images):
    """Other batches round otherwise."""
    off = np.abs(pixels(pngs) - (images + 1) * 127.5)
    assert off.mean() < 0.6 and off.max() < 8  # of 255; rounding to bytes alone gives 0.25


def test_mean_is_epsilon_zero(model):
    inputs = noise(ROWS["seeds"]) | {"epsilon": np.zeros((9, 6), np.float32)}
    inputs |= model.predict("embed", {"captions": ROWS["captions"]})
    made = model.predict("mean", ROWS)["image_bytes"]
    near(made, model.predict("from_embeddings", inputs)["images"])
    assert (made != model.predict("", ROWS)["image_bytes"]).all()


def test_knobs_turn_what_they_do_in_sample(root, model):
    generator = Generator(root, "tiny")
    assert generator.knobs == knobs.NAMES
    functions, _ = export.in_precision(generator, root, None)
    turned = {"truncation": 0.5, "epsilon_scale": 0.25, "text_strength": 3.0}
    endpoints = export.ServedModel(generator, functions, knobs.Knobs(**turned), 2).endpoints()
    rows = {name: tf.constant(value) for name, value in ROWS.items()}
    made = endpoints["serve"][0](rows)["image_bytes"].numpy()
    plain = model.predict("embed", {"captions": ROWS["captions"]})["embeddings"]
    inputs = noise(ROWS["seeds"], 0.5, 0.25)
    inputs["embeddings"] = 3 * plain - 2 * np.linspace(-0.5, 0.7, 8, dtype=np.float32)
    near(made, model.predict("from_embeddings", inputs)["images"])
    captions = [c.decode() for c in ROWS["captions"]]
    near(made, generator.generate(captions, ROWS["seeds"], **turned) / 127.5 - 1)
    embedded = endpoints["embed"][0]({"captions": rows["captions"]})["embeddings"]
    np.testing.assert_allclose(embedded, inputs["embeddings"], atol=1e-5)


@pytest.mark.parametrize("run, trained, other", [("tiny", "bfloat16", "float32"),
                                                 ("sketch", "float32", "bfloat16")])
def test_other_precisions_draw_the_same_but_for_rounding(root, run, trained, other):
    generator = Generator(root, run)
    inputs = {name: tf.constant(value) for name, value in noise(ROWS["seeds"]).items()}
    inputs["embeddings"] = tf.random.normal([9, 8], seed=0)
    plain, _ = export.in_precision(generator, root, None)
    for stage in plain:
        expected = plain[stage](inputs)
        same, tracked = export.in_precision(generator, root, trained)
        assert len(tracked) == len(plain)  # each stage's network
        changed, _ = export.in_precision(generator, root, other)
        # functions: operation by operation, bfloat16 is rounded more often
        off = [np.abs(tf.function(made[stage])(inputs) - expected).mean()
               for made in (same, changed)]
        assert off[0] < 1e-6 and 1e-4 < off[1] < 0.05  # bfloat16 has 8 bits: 2^-9 a rounding


def test_another_precision_needs_the_config(root, tmp_path):
    copy = str(tmp_path)
    shutil.copytree(os.path.join(root, "tiny"), os.path.join(copy, "tiny"))
    os.remove(os.path.join(copy, "tiny/stage1/config.json"))
    generator = Generator(copy, "tiny")
    with pytest.raises(UserError, match="--precision=float32 .* no config.json in .*stage1"):
        export.in_precision(generator, copy, "float32")
    shutil.copy(os.path.join(root, "silent/stage1/config.json"),
                os.path.join(copy, "tiny/stage1/config.json"))
    with pytest.raises(UserError, match="not hold the network that its config.json describes"):
        export.in_precision(generator, copy, "float32")


def test_another_precision_of_a_stage1_that_was_trained_anew_since(root, tmp_path):
    """Nearest and bilinear maps have weights of the same shapes, and other pictures."""
    copy = str(tmp_path)
    shutil.copytree(os.path.join(root, "tiny"), os.path.join(copy, "tiny"))
    theirs, kept = os.path.join(copy, "tiny/stage1"), os.path.join(copy, "tiny/stage2/stage1")
    below.keep_stage1(os.path.join(theirs, "saved_model"), Part(copy, "tiny", "stage2"))
    with open(os.path.join(theirs, "config.json")) as file:
        was = json.load(file)
    assert was["upsampling"] == "bilinear"
    with open(os.path.join(theirs, "config.json"), "w") as file:
        json.dump({**was, "upsampling": "nearest"}, file)
    generator = Generator(copy, "tiny")
    assert export.below(generator, copy)[1].path == kept
    export.in_precision(generator, copy, "float32")
    os.remove(os.path.join(kept, "config.json"))  # as older versions kept it
    with pytest.raises(UserError, match="stage1/config.json is not of the weights.*precision out"):
        export.in_precision(generator, copy, "float32")


def test_another_precision_of_a_stage2_on_a_stage2(root, tmp_path):
    copy = str(tmp_path)
    shutil.copytree(os.path.join(root, "tiny"), os.path.join(copy, "tiny"))
    shutil.copy(os.path.join(copy, "tiny/stage2/config.json"),
                os.path.join(copy, "tiny/stage1/config.json"))
    with pytest.raises(UserError, match="not on another Stage-II .*leave --precision out"):
        export.in_precision(Generator(copy, "tiny"), copy, "float32")


def test_an_export_beside_another_takes_the_next_number(root, tmp_path, monkeypatch):
    def export_beside(path, *args, write=checkpoint.export, **kwargs):
        write(path, *args, **kwargs)
        os.makedirs(tmp_path / "1", exist_ok=True)

    monkeypatch.setattr(checkpoint, "export", export_beside)
    assert export.export_run(root, "sketch", str(tmp_path)) == str(tmp_path / "2")
    assert os.listdir(tmp_path / "1") == []
    os.makedirs(tmp_path / "7" / str(2**63 - 1))
    with pytest.raises(UserError, match="holds the version 9223372036854775807, behind which none"):
        export.version_folder(str(tmp_path / "7"), None)


def test_no_picture_of_weights_that_are_not_finite():
    with pytest.raises(tf.errors.InvalidArgumentError, match="weights are not finite"):
        export.to_png(tf.fill([1, 2, 2, 3], float("nan")))


@pytest.mark.parametrize("run, given, others, said", [
    ("sketch", {"captions", "seeds"}, {"mean", "embed", "latents", "from_embeddings"},
     "no Stage-II yet"),
    ("silent", {"seeds"}, {"latents", "from_noise"}, "no Stage-II yet"),
    ("vectors", {"embeddings", "seeds"}, {"mean", "latents", "from_embeddings"},
     "has no text encoder")])
def test_runs_without_one_part_or_another(root, tmp_path, capsys, run, given, others, said):
    path = export.export_run(root, run, str(tmp_path / "m"))
    assert said in capsys.readouterr().out
    model, generator = serving.Model(str(tmp_path / "m")), Generator(root, run)
    assert set(model.signatures["serving_default"].inputs) == given and path.endswith("/m/1")
    assert set(model.signatures) - {"serve", "serving_default", "__saved_model_init_op"} == others
    vectors = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    rows = {name: value for name, value in {**ROWS, "embeddings": vectors}.items() if name in given}
    what = {"sketch": [c.decode() for c in ROWS["captions"]], "vectors": vectors}.get(run)
    np.testing.assert_array_equal(pixels(model.predict("", rows)["image_bytes"]),
                                  generator.generate(what, ROWS["seeds"]))


# Versions


def test_the_command_says_how_to_serve_it(served):
    base, said = served
    assert "serving_default(captions, seeds)\n" in said
    assert f"docker run -p 8501:8501 -v {base}:/models/flowers -e MODEL_NAME=flowers" in said
    assert sorted(os.listdir(base)) == ["1"]
    assert checkpoint.exported_step(f"{base}/1") == 6


def test_versions_count_up_and_are_not_written_over(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    assert export.version_folder(str(base), None) == str(base / "1")
    for name in ("2", "10", "labels", ".11.123.tmp", str(2**63)):  # no server reads the last
        (base / name).mkdir()
    (base / "10" / "saved_model.pb").write_text("mine")
    assert export.version_folder(str(base), None) == str(base / "11")
    assert export.version_folder(str(base), 3) == str(base / "3")
    with pytest.raises(UserError, match="--version=10 is in .* leave --version out for 11"):
        export.version_folder(str(base), 10)
    (base / "new").mkdir()
    with pytest.raises(UserError, match="nothing was written over"):  # made by another meanwhile
        checkpoint.publish(str(base / "new"), str(base / "10"))
    assert (base / "10" / "saved_model.pb").read_text() == "mine"


def test_what_a_killed_export_left_is_removed_by_the_next(root, tmp_path, monkeypatch):
    os.makedirs(disk.own_folder(str(tmp_path / "5")) + ".tmp")  # of a process of the same number
    for module, name in ((checkpoint, "export"), (checkpoint, "publish"), (export, "write_warmup")):
        monkeypatch.setattr(module, name, lambda *_: None)
    export.export_run(root, "silent", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_nothing(root, tmp_path, monkeypatch):
    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", full)
    with pytest.raises(UserError, match="could not be written: No space left on device"):
        export.export_run(root, "silent", str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_sigterm_leaves_nothing(runs, tmp_path, monkeypatch, sigterm):
    monkeypatch.setattr(checkpoint, "publish", sigterm)  # all is there, beside
    done = command_here("export", f"--checkpoint_dir={runs}", "--run=silent",
                        f"--output={tmp_path}", check=False)
    assert done.returncode == 143 and os.listdir(tmp_path) == []


@pytest.mark.parametrize("output, message", [
    ("", "--output=FOLDER"), (__file__, "is no folder; choose another --output")])
def test_mistakes_are_named(root, output, message):
    with pytest.raises(UserError, match=message) as caught:
        export.export_run(root, "silent", output)
    assert "\n" not in str(caught.value)
