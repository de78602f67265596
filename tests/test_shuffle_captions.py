"""--shuffle_captions, the control: other pictures' captions, and scores that fall to chance."""

import numpy as np
import pytest
from caption_reader import named_attributes
from test_pipeline import elements
from test_stream import COUNT, sets  # noqa: F401 - a fixture

from stackgan_tf import build, pipeline, train_text_encoder
from stackgan_tf.config import UserError, resolve
from stackgan_tf.flower_drawing import ATTRIBUTES, BACKGROUNDS, make_flower


def shuffled(rows, seed):
    examples = pipeline.Examples(rows, 19)
    examples.shuffle_captions(seed)
    return examples


def test_every_picture_has_the_captions_of_another_one():
    plain = pipeline.Examples(elements(50), 19).captions
    for seed in range(20):
        examples = shuffled(elements(50), seed)
        assert sorted(examples.captions) == sorted(plain)
        assert all(new != old for new, old in zip(examples.captions, plain))
        assert examples.images[:, 9, 9, 0].tolist() == list(range(50))  # where they were
    assert shuffled(elements(50), 3).captions == shuffled(elements(50), 3).captions
    assert len({str(shuffled(elements(50), seed).captions) for seed in range(20)}) == 20


def test_embeddings_go_with_their_captions():
    """Picture i has i % 3 + 1 captions "ci k" with the embeddings (i, k)."""
    rows = [{"image": np.zeros((19, 19, 3), np.uint8), "captions": [f"c{i} {k}" for k in places],
             "embeddings": [(i, k) for k in places]}
            for i in range(40) for places in [range(i % 3 + 1)]]
    examples = shuffled(rows, 0)
    seen = []
    for i, (first, last) in enumerate(zip(examples.offsets, examples.offsets[1:])):
        vectors = examples.embeddings[first:last].astype(int).tolist()
        assert [f"c{a} {b}" for a, b in vectors] == examples.captions[i]
        assert vectors[0][0] != i
        seen += vectors
    assert sorted(seen) == [[i, k] for i in range(40) for k in range(i % 3 + 1)]


def test_a_judge_of_real_pictures_falls_to_chance():
    """It reads the background off the corners of real drawings, by the nearest of its colors; what
    the captions say is read from their words."""
    flowers = [make_flower(0, index) for index in range(120)]
    rows = [{"image": flower.image, "captions": flower.captions} for flower in flowers]
    plain = pipeline.Examples(rows, 16)
    corners = np.asarray(plain.images)[:, [[0, 0, -1, -1]], [[0, -1, 0, -1]]].reshape(120, 4, 3)
    colors = np.array(list(BACKGROUNDS.values()), float)
    read = np.linalg.norm(corners.mean(1)[:, None] - colors, axis=-1).argmin(1)

    def pairs(captions):
        """(read, said), (n, 2), of the first caption of each picture that names a background."""
        said = [next((found["background"] for caption in row
                      if "background" in (found := named_attributes(caption))), -1)
                for row in captions]
        return np.stack([read, said], 1)[np.array(said) >= 0]

    right = pairs(plain.captions)
    assert (right[:, 0] == right[:, 1]).mean() > 0.9
    shares = [np.bincount(column, minlength=len(ATTRIBUTES["background"])) / len(right)
              for column in right.T]
    chance = shares[0] @ shares[1]
    assert 0.15 < chance < 0.3
    wrong = np.concatenate([pairs(shuffled(rows, seed).captions) for seed in range(5)])
    deviation = np.sqrt(chance * (1 - chance) / len(wrong))
    assert abs((wrong[:, 0] == wrong[:, 1]).mean() - chance) < 3.3 * deviation < 0.06


def test_training_sees_them_and_evaluation_does_not(folder, tiny):
    config = tiny(dataset="folder", data_dir=folder, shuffle_captions=True)
    plain = build.load_examples(config, "train").captions  # what evaluate compares with
    control = build.load_batches(config).examples.captions
    assert plain == build.load_batches(tiny(dataset="folder", data_dir=folder)).examples.captions
    assert sorted(control) == sorted(plain)
    assert not any(new == old for new, old in zip(control, plain))
    data = train_text_encoder._load(config)  # of the same seed: the same ones
    assert data.batches.examples.captions == control


def test_both_stages_and_the_text_encoder_share_the_choice():
    assert resolve({"stage": 2}, {"shuffle_captions": True}).shuffle_captions
    assert "shuffle_captions" in train_text_encoder.RELEVANT


def test_sets_that_are_streamed_are_refused(sets, tiny):  # noqa: F811
    config = tiny(dataset="prepared", data_dir=sets(), shuffle_captions=True)
    assert len(build.load_batches(config)) == COUNT
    with pytest.raises(UserError, match="--shuffle_captions is for sets in memory; .* larger "
                       "--memory_gb than 0") as caught:
        build.load_batches(tiny(dataset="prepared", data_dir=sets(), shuffle_captions=True,
                                memory_gb=0.0))
    assert "\n" not in str(caught.value)
