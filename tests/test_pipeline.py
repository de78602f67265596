"""Batches as functions of (seed, step)."""

import numpy as np
import pytest
import tensorflow as tf
from watched import Watched

from stackgan_tf import build, latents, pipeline, run_folder, stream
from stackgan_tf.config import UserError


def elements(count, labels=True, captions=3):
    for i in range(count):
        image = np.full((20, 30, 3), i % 256, np.uint8)
        yield {"image": image, "captions": [b"c%d %d" % (i, k) for k in range(captions)],
               **({"label": i % 3} if labels else {}), "extra": {"a": i}}


def numbered(captions):
    """Embeds "c7 1" as (7, 1)."""
    return np.array([[float(part) for part in c[1:].split()] for c in captions])


def make(count=10, labels=True, seed=0, batch_size=4, mean_of=1):
    examples = pipeline.Examples(elements(count, labels), 19)
    batches = pipeline.Batches(examples, 16, batch_size, seed, mean_of)
    batches.set_embeddings(*pipeline.embed(examples.captions, numbered))
    return batches


def test_examples_keep_everything():
    examples = pipeline.Examples(elements(300), 19)
    assert examples.images.shape == (300, 19, 19, 3)
    assert examples.images[:, 9, 9, 0].tolist() == [i % 256 for i in range(300)]
    assert examples.captions[7] == ["c7 0", "c7 1", "c7 2"]
    assert examples.extra["extra/a"].tolist() == list(range(300))


def test_a_note_tells_data_of_as_many_pictures_apart():
    """Without captions and classes too, by what is in the pictures, their names and embeddings."""
    def note(change=None, size=19):
        rows = [{"image": np.full((20, 20, 3), i % 256, np.uint8), "file_name": f"some/{i}.png",
                 "embeddings": np.full((16, 2), i, np.float32)} for i in range(300)]
        if change:
            change(rows)
        return pipeline.Examples(rows, size).note()

    assert note() == note() and note().startswith("300 pictures, captions and classes ")
    changes = [lambda rows: rows[299].update(image=np.full((20, 20, 3), 7, np.uint8)),
               lambda rows: rows[299].update(file_name="some/x.png"),
               lambda rows: rows[299].update(embeddings=np.zeros((16, 2), np.float32)),
               lambda rows: rows[299].update(label=3) or [r.setdefault("label", 1) for r in rows],
               lambda rows: rows.append(rows[0])]
    for change in changes:
        assert not run_folder.alike(note(), note(change))
    assert run_folder.alike(note(), note(changes[0]), pixels=False)
    assert run_folder.alike(note(), note(size=38))  # another stage's: not to be compared

    def moved(rows):
        for i, row in enumerate(rows):
            row["file_name"] = f"other/{i}.png".encode()

    assert note(moved) == note()


def test_few_pictures_are_in_memory_at_a_time():
    elements = Watched(np.zeros((20, 20, 3), np.uint8) for _ in range(300))
    assert len(pipeline.Examples(elements, 8)) == 300
    assert 0 < elements.most <= 4 * 8 + 2  # four for each of at most eight threads


def test_embeddings_that_come_with_the_data_are_those_of_the_batches():
    """Picture i has i % 3 + 1 embeddings (i, place)."""
    rows = [{**element, "embeddings": [(i, place) for place in range(i % 3 + 1)]}
            for i, element in enumerate(elements(300))]
    examples = pipeline.Examples(rows, 19)
    assert "embeddings" not in examples.extra
    batches = pipeline.Batches(examples, 16, 8, 0, captions_per_embedding=3)
    batches.set_embeddings(examples.embeddings, examples.offsets)
    for step in range(20):
        indices, batch = batches.indices(step), batches(step)
        np.testing.assert_array_equal(batch["embeddings"], np.stack([indices, indices % 3 / 2], 1))
    del rows[7]["embeddings"]
    with pytest.raises(UserError, match="299 of 300 pictures"):
        pipeline.Examples(rows, 19)
    rows[7]["embeddings"] = np.zeros((2, 3))
    with pytest.raises(UserError, match=r"sizes \[\(2,\), \(3,\)\]"):
        pipeline.Examples(rows, 19)


def test_an_epoch_shows_every_picture_once():
    batches = make(12)
    for epoch in range(3):
        seen = np.concatenate([batches.indices(3 * epoch + i) for i in range(3)])
        assert sorted(seen) == list(range(12))
    assert batches.indices(0).tolist() != batches.indices(3).tolist()


def test_batches_across_the_end_of_an_epoch():
    batches = make(10)
    seen = np.concatenate([batches.indices(step) for step in range(5)])  # two epochs of ten
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))


def test_workers_together_give_the_batch_of_one():
    one = make(30, batch_size=6, mean_of=2)
    parts = []
    for worker in range(3):
        part = pipeline.Batches(one.examples, 16, 6, 0, 2, worker=worker, workers=3)
        part.set_embeddings(one.embeddings, one.offsets)
        parts.append(part)
    for step in (0, 4, 7):  # the last ones reach into the second epoch
        batches = [part(step) for part in parts]
        for name, value in one(step).items():
            assert batches[0][name].shape[0] == 2
            np.testing.assert_array_equal(np.concatenate([b[name] for b in batches]), value)
    (first,) = parts[1].dataset(4, 5)
    assert first["real_images"].shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(first["embeddings"], parts[1](4)["embeddings"])


def test_a_batch_is_a_function_of_seed_and_step():
    one, two, other = make(seed=1), make(seed=1), make(seed=2)
    two(0), two(1)  # having made others before changes nothing
    for name, value in one(5).items():
        np.testing.assert_array_equal(value, two(5)[name])
    assert any(not np.array_equal(v, other(5)[k]) for k, v in one(5).items())


def test_captions_belong_to_their_pictures_and_wrong_ones_to_another_class():
    batches = make(30, batch_size=8)
    for step in range(20):
        batch = batches(step)
        pictures = batch["real_images"][:, 0, 0, 0]
        np.testing.assert_array_equal(batch["embeddings"][:, 0], pictures)
        assert ((batch["mismatched_embeddings"][:, 0] - pictures) % 3 != 0).all()


def test_without_classes_the_wrong_caption_is_of_another_picture():
    batches = make(5, labels=False)
    for step in range(50):
        batch = batches(step)
        assert (batch["mismatched_embeddings"][:, 0] != batch["embeddings"][:, 0]).all()


def test_wrong_captions_of_the_nearest_of_eight_classes():
    """Classes on a plane, ids 7 apart: pairs at distance 1, the pairs 10 apart."""
    rows = [{"image": np.zeros((8, 8, 3), np.uint8), "captions": ["a", "b"], "label": 7 * (i % 6)}
            for i in range(600)]
    examples = pipeline.Examples(rows, 8)
    label = np.repeat(np.arange(600) % 6, 2)
    places = np.stack([label // 2 * 10.0, label % 2], 1)
    places += np.random.default_rng(0).normal(0, 3, places.shape)  # captions scatter
    batches = pipeline.Batches(examples, 8, 100, 0, mismatch_candidates=8)
    batches.set_embeddings(places.astype(np.float32), np.arange(0, 1201, 2))
    indices = np.arange(600)
    wrong = batches.mismatched(indices, np.random.default_rng(1))
    assert (wrong % 6 != indices % 6).all()
    # the one near class is among eight draws from the five others
    nearest = np.mean(wrong % 6 // 2 == indices % 6 // 2)
    assert nearest == pytest.approx(1 - 0.8**8, abs=0.06)
    plain = pipeline.Batches(examples, 8, 100, 0).mismatched(indices, np.random.default_rng(1))
    assert np.mean(plain % 6 // 2 == indices % 6 // 2) == pytest.approx(0.2, abs=0.06)


def test_wrong_captions_where_a_single_picture_is_of_another_class():
    """Drawing until it comes takes 100,000 draws a picture: all others get that one, it any."""
    batches = make()
    batches.examples, batches.labels = range(100_000), np.zeros(100_000, int)
    batches.labels[7] = 1
    indices = np.array([7, 3, 99_999] * 20)
    wrong = batches.mismatched(indices, np.random.default_rng(0))
    assert (wrong[indices != 7] == 7).all()
    assert len(set(wrong[indices == 7])) == 20 and 7 not in wrong[indices == 7]


def test_mean_of_captions():
    batch = make(mean_of=3)(0)
    np.testing.assert_allclose(batch["embeddings"][:, 1], 1.0)  # mean of 0, 1, 2
    assert set(np.ravel([make()(s)["embeddings"][:, 1] for s in range(9)])) == {0.0, 1.0, 2.0}


def test_crops_reach_every_place_and_are_mirrored():
    ramp = np.tile(np.arange(19, dtype=np.uint8)[None, :, None], (19, 1, 3))
    examples = pipeline.Examples([{"image": ramp, "captions": ["x"]}] * 2, 19)
    batches = pipeline.Batches(examples, 16, 2, 0)
    rows = np.concatenate([batches(step)["real_images"][:, 0, :, 0] for step in range(60)])
    assert {row[0] for row in rows.astype(int)} == {0, 1, 2, 3, 15, 16, 17, 18}
    assert (np.abs(np.diff(rows.astype(int), axis=1)) == 1).all()


def test_dataset_gives_the_same_batches_as_tensors():
    batches = make()
    for step, batch in enumerate(batches.dataset(3, 6), 3):
        np.testing.assert_array_equal(batch["embeddings"], batches(step)["embeddings"])
        np.testing.assert_array_equal(batch["real_images"], batches(step)["real_images"])


def test_tf_data_does_not_search_for_the_best_parallelism():
    def numbers():
        yield from ({"x": np.zeros(2)} for _ in range(3))

    for batches in (make().dataset(0, 2), stream.as_dataset(numbers())):
        assert not batches.options().autotune.enabled
        assert not batches.map(lambda batch: batch).options().autotune.enabled  # as spread's


def test_refusals():
    with pytest.raises(UserError, match="--batch_size=16 is more than the 10 pictures"):
        make(10, batch_size=16)
    with pytest.raises(UserError, match="no picture; add some to --data_dir"):
        pipeline.Examples([], 19)


def test_unknown_dataset(tiny):
    with pytest.raises(UserError, match="--dataset=cats is unknown; choose one of .*folder"):
        build.load_examples(tiny(dataset="cats"), "train")


def test_noise_is_normal_and_the_same_under_xla():
    noise = latents.normal([3, 4], [200, 500]).numpy()
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.1  # kurtosis of a normal distribution
    assert np.isfinite(noise).all()
    draw = tf.function(lambda seed: latents.draw({"a": 5, "b": 3}, seed, 4), jit_compile=True)
    plain, compiled = latents.draw({"a": 5, "b": 3}, [7, 8], 4), draw(tf.constant([7, 8]))
    for name in plain:
        np.testing.assert_allclose(plain[name], compiled[name], rtol=1e-5, atol=1e-6)
    assert np.abs(plain["a"][:, :3] - plain["b"]).min() > 1e-6


def test_a_single_picture_is_refused_without_a_circle():
    examples = pipeline.Examples([{"image": np.zeros((8, 8, 3), np.uint8), "captions": ["x"]}], 8)
    with pytest.raises(UserError, match="single picture; training needs 2"):
        pipeline.Batches(examples, 8, 4, seed=0)
