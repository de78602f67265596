"""experiments.curves on a run whose pictures follow from its captions, and from the knobs."""

import json

import numpy as np
import pytest
from fake_evaluation import CONFIG, FakeExamples, FakeJudge, FakeNetwork, write_run
from PIL import Image

from stackgan_tf import build, features
from stackgan_tf.attribute_classifier import ATTRIBUTES
from stackgan_tf.config import UserError
from stackgan_tf.experiments import curves

MEAN = 57  # the number of a caption, and of the picture drawn of it


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(**options) -> (what curves measures, its network): of a run that draws the very picture
    of the caption that an embedding is the number of."""
    examples = FakeExamples()
    monkeypatch.setattr(build, "load_examples", lambda *_: examples)
    captions = [c for row in examples.captions for c in row]
    part = write_run(tmp_path, examples.pictures(64), captions, 64, CONFIG)
    mean = part / "saved_model/assets.extra/text_mean.json"
    mean.write_text(json.dumps({"mean": [MEAN, MEAN]}))

    def measure(**options):
        network = FakeNetwork()
        with monkeypatch.context() as patch:
            patch.setattr(features, "small_network", lambda resize: network)
            return curves.measure(str(tmp_path), "run", judge=FakeJudge(), count=120,
                                  **options), network
    return measure


def test_without_the_caption_alignment_is_chance_and_all_pictures_are_one(run, capsys, tmp_path):
    found, network = run(values={"truncation": [0, 1], "epsilon_scale": [0, 1],
                                 "text_strength": [0, 1]})
    assert "left out: run 'run' draws without conditioning augmentation" in capsys.readouterr().out
    # where both knobs are at 1 pictures are the same; as many again for the diversity
    assert network.seen == 12 + 3 * (120 + 120)
    assert set(found["curves"]) == {"truncation", "text_strength"}
    for row in [*found["curves"]["truncation"], found["curves"]["text_strength"][1]]:
        assert row["accuracy/mean"] == row["precision_fake"] == row["recall_fake"] == 1.0
    none = found["curves"]["text_strength"][0]
    assert none["value"] == 0 and none["precision_fake"] == 1.0
    examples = FakeExamples()
    shown = {name: examples.extra[f"attributes/{name}"] for name in ATTRIBUTES}
    for i, name in enumerate(ATTRIBUTES):
        named = examples.extra["mentions"][:, :, i]
        right = (shown[name] == shown[name][MEAN // 10])[:, None] & named
        assert none[f"accuracy/{name}"] == pytest.approx(right.sum() / named.sum())
        assert none[f"chance/{name}"] == pytest.approx(none[f"accuracy/{name}"])
    alike = np.all([values == values[MEAN // 10] for values in shown.values()], 0)
    assert none["recall_fake"] == pytest.approx(alike.mean())
    assert none["kid_fake"] > found["curves"]["text_strength"][1]["kid_fake"]
    assert none["diversity_fake"] == 0  # no noise does anything here
    assert json.loads((tmp_path / "run/stage1/curves.json").read_text()) == found
    # of all metrics: precision and recall take as many fakes as there are real ones, 12
    assert (found["count"], found["real_count"]) == (120, 12)
    table = (tmp_path / "run/stage1/curves.md").read_text().splitlines()
    assert table[2].startswith("| truncation | precision | recall | density | coverage | kid | "
                               "diversity | petal color | petal shape |")
    assert table[4].startswith("| 0 | 1.000 ±0.243 |") and len(table) == 11
    again, network = run(values={"text_strength": [1, 0]})
    assert network.seen == 0  # all was kept
    assert again["curves"]["text_strength"][1] == none


def test_the_plot_has_a_panel_for_each_knob(run, tmp_path):
    pytest.importorskip("matplotlib", reason="needs pip install '.[metrics]'")
    widths = []
    for values in ({"truncation": [0, 1]}, {"truncation": [1], "text_strength": [1, 0]}):
        run(values=values)
        widths.append(Image.open(tmp_path / "run/stage1/curves.png").size[0])
    assert widths[1] == 2 * widths[0] > 600


def test_what_the_split_is_too_small_for_is_left_out(run, monkeypatch, capsys):
    monkeypatch.setattr(build, "load_examples", lambda *_: FakeExamples(5))
    found, _ = run(values={"truncation": [1]})
    assert found["metrics"] == ["kid", "diversity", "attribute_accuracy"]
    assert "precision_recall is left out: it needs 6 real pictures" in capsys.readouterr().out


def test_a_run_with_nothing_to_turn_is_refused(run, tmp_path):
    (tmp_path / "run/stage1/saved_model/assets.extra/text_mean.json").unlink()
    with pytest.raises(UserError, match="no knob is left to turn; give one of --truncation with"):
        run(values={"text_strength": [1, 2]})
