"""Streaming a prepared set: an order that follows from (seed, step), and the same pictures."""

import dataclasses
import io
import json
import os
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import command_here, tiny_flags
from PIL import Image
from test_train import variables

from stackgan_tf import build, images, picture_files, pipeline, prepare, stream, train_text_encoder
from stackgan_tf.config import UserError, resolve
from stackgan_tf.datasets import prepared

COUNT = 61


def ramps(i):
    """A smooth picture, unlike that of any other i, wide for odd i."""
    y, x = np.mgrid[:40, :40 + 10 * (i % 2)]
    return np.stack([4 * i + 0 * x, 3 * x, 128 + 2 * y - x], -1).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Prepared sets of 61 pictures in 7 shards: make(classes, dim) -> path."""
    made = {}

    def make(classes=3, dim=0):
        if (classes, dim) not in made:
            output = str(tmp_path_factory.mktemp("prepared") / "out")
            patch = pytest.MonkeyPatch()
            patch.setattr(build, "load_elements",
                          lambda config, split: iter(list(elements(classes, dim))))
            config = resolve({"dataset": "drawn_flowers", "image_size": 256, "crop_margin": 0.1875})
            with patch.context():
                prepare.prepare(prepare.Settings(config, output, 304, 0, 7, 1, "", ()))
            patch.undo()
            made[classes, dim] = output
        return made[classes, dim]

    def elements(classes, dim):
        for i in range(COUNT):
            element = {"image": ramps(i), "file_name": f"{i}",
                       "captions": [f"c{i} {k}" for k in range(1 + i % 3)]}
            if classes:
                element["label"] = i % classes if i else 0
            if dim:
                element["embeddings"] = np.array([[i, k] + [0] * (dim - 2)
                                                  for k in range(1 + i % 3)], np.float32)
            yield element

    return make


def open_stream(path, batch_size=4, buffer=16, seed=0, mean_of=1, size=16, load=19, **more):
    described = prepared.describe(types.SimpleNamespace(data_dir=path), "train")
    return stream.Stream(described, size, load, batch_size, seed, buffer, mean_of, **more)


def names(rows):
    return [int(name) for batch in rows for name in batch["file_name"].numpy()]


def numbers(captions):
    """b"c7 1" -> 7, of any shape."""
    return np.vectorize(lambda c: int(c[1:].split()[0]))(captions)


# The order


def test_every_picture_once_an_epoch_in_another_order_each(sets):
    rows = open_stream(sets(), batch_size=61).rows(0, 3)
    epochs = [names([batch]) for batch in rows]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert names(open_stream(sets(), batch_size=61, seed=1).rows(0, 1)) != epochs[0]
    # shards move as a whole, but what stood together in one epoch is spread in the next
    place = np.argsort(epochs[1])[np.array(epochs[0])]
    assert np.abs(np.diff(place)).mean() > 5


def test_tf_data_does_not_search_for_the_best_parallelism(sets):
    assert not open_stream(sets())._batches(0, 1).options().autotune.enabled


def test_a_stream_begins_at_any_step(sets):
    whole = list(open_stream(sets()).rows(0, 40))  # two epochs and a half
    for start in (1, 3, 4, 15, 16, 37, 39):
        for step, batch in enumerate(open_stream(sets()).rows(start, 40), start):
            for name, value in batch.items():
                np.testing.assert_array_equal(value, whole[step][name], f"{name} of step {step}")
        assert step == 39
    assert len(list(open_stream(sets()).rows(40, 40))) == 0


@pytest.mark.parametrize("lengths,buffer", [((5,), 16), ((7, 0, 30, 1, 2), 16), ((40, 40), 17),
                                            (tuple(range(1, 40)), 64), ((300,), 16)])
def test_blocks_cover_an_epoch_exactly(lengths, buffer):
    order = stream.Order(lengths, buffer, 3)
    sizes = [order.bounds(b)[1] - order.bounds(b)[0] for b in range(order.blocks)]
    assert sum(sizes) == sum(lengths) and max(sizes) <= buffer and max(sizes) - min(sizes) <= 1
    for row in range(2 * order.total):
        number = order.block_of(row)
        assert order.first_row(number) <= row < order.first_row(number + 1)
    for epoch in range(2):
        seen = []
        for block in range(order.blocks):
            shards, skip, take = order.segment(epoch * order.blocks + block)
            records = [(s, i) for s in shards for i in range(lengths[s])][skip:skip + take]
            assert skip < lengths[shards[0]]  # no shard is opened in vain
            seen += records
        assert sorted(seen) == [(s, i) for s, n in enumerate(lengths) for i in range(n)]


def test_workers_together_give_the_batch_of_one(sets):
    one = list(open_stream(sets(), batch_size=6).rows(3, 25))
    parts = [list(open_stream(sets(), batch_size=6, worker=w, workers=3).rows(3, 25))
             for w in range(3)]
    assert len(one) == len(parts[0]) == 22
    for step, batch in enumerate(one):
        for name, value in batch.items():
            together = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(value, together, name)


# What a row holds


def test_wrong_captions_are_of_another_class_or_else_of_another_picture(sets):
    for classes, same in ((3, lambda a, b: a % 3 == b % 3), (0, lambda a, b: a == b),
                          (1, lambda a, b: a == b)):
        seen = set()
        for batch in open_stream(sets(classes)).rows(0, 60):
            rows = batch["file_name"].numpy().astype(int)
            np.testing.assert_array_equal(numbers(batch["captions"][:, 0].numpy()), rows)
            wrong = numbers(batch["mismatched_captions"][:, 0].numpy())
            assert not any(same(a, b) for a, b in zip(rows, wrong))
            seen |= {(a, b) for a, b in zip(rows, wrong)}
        assert len(seen) > 150  # of 240 rows: another partner each time


def test_wrong_pairs_are_spread_evenly():
    """Each record of another class alike: a chi-square test of a block with one large class."""
    labels = np.array([0] * 20 + [1] * 5 + [2] * 5)
    counts, generator = np.zeros(30), np.random.default_rng(0)
    for _ in range(3000):
        counts[pipeline.of_another_class(np.array([0]), labels, generator)] += 1
    assert counts[:20].sum() == 0
    assert ((counts[20:] - 300) ** 2 / 300).sum() < 28  # 9 degrees of freedom, p = 0.001


def test_pictures_are_those_of_the_way_through_memory(sets, tiny):
    """Decoding a crop alone gives what reading, resizing and cropping the whole picture gives."""
    config = tiny(dataset="prepared", data_dir=sets(), crop_margin=0.1875)
    examples = build.load_examples(config, "train")
    place = {name: i for i, name in enumerate(examples.extra["file_name"].astype(int))}
    streamed, worst, crops, flips = open_stream(sets()), 0, set(), []
    for batch in streamed.rows(0, 15):
        flips += list(batch["flip"].numpy())
        for name, image in zip(batch["file_name"].numpy().astype(int), batch["image"].numpy()):
            square = examples.images[place[name]].astype(int)
            off = {t: np.abs(square[t[0]:t[0] + 16, t[1]:t[1] + 16] - image).max()
                   for t in np.ndindex(4, 4)}
            best = min(off, key=off.get)
            worst, crops = max(worst, off[best]), crops | {best}
    assert worst <= 5
    assert len(crops) > 12  # of 16: 60 crops reach all but one or two of them
    assert 15 < sum(flips) < 45


@pytest.mark.parametrize("height,width,load,size", [
    (304, 304, 304, 256), (400, 300, 76, 64), (50, 64, 76, 64), (256, 256, 304, 256)])
def test_a_crop_alone_equals_the_crop_of_the_whole(height, width, load, size):
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    image = np.stack([127 + 90 * np.sin(x / 9 + y / 17 + k) for k in range(3)], -1)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=95, subsampling=0)
    whole = images.resize_square(picture_files.read_rgb(data.getvalue()), load).astype(int)
    room = load - size
    for top, left in ((0, 0), (room, room), (room // 2, 1)):
        got = stream.crop_jpeg(data.getvalue(), load, size, tf.constant(top, tf.int64),
                               tf.constant(left, tf.int64)).numpy()
        off = np.abs(got - whole[top:top + size, left:left + size])
        assert off.max() <= 5 and off.mean() < 0.3  # Pillow rounds and clips between two passes


@pytest.mark.parametrize("size", [40, 32])
def test_known_squares_give_what_a_look_at_each_gives(sets, size):
    known = open_stream(sets(), size=size, load=40)
    assert known.prepared.squares == {"image": 40}
    looking = open_stream(sets(), size=size, load=40)
    looking.prepared = dataclasses.replace(known.prepared, squares={})
    for a, b in zip(known.rows(0, 20), looking.rows(0, 20), strict=True):
        assert a["image"].shape == (4, size, size, 3)
        np.testing.assert_array_equal(a["image"], b["image"])


def test_captions_are_embedded_in_one_batch_and_averaged(sets):
    calls = []

    def encode(captions):
        calls.append(len(captions))
        texts = [c.decode()[1:].split() or ["-1", "-1"] for c in captions.numpy()]
        return tf.constant([[float(a), float(b)] for a, b in texts])

    streamed = open_stream(sets(), mean_of=2)
    streamed.encoder = encode
    for batch, rows in zip(streamed.dataset(0, 20), streamed.rows(0, 20)):
        pictures = rows["file_name"].numpy().astype(int)
        np.testing.assert_allclose(batch["embeddings"][:, 0], pictures)
        for i, mean in zip(pictures, batch["embeddings"][:, 1].numpy()):
            # the mean of two different ones of the captions 0 .. i % 3
            assert mean in ({0}, {0.5}, {0.5, 1.0, 1.5})[i % 3]
        assert batch["mismatched_embeddings"].shape == (4, 2)
        np.testing.assert_array_equal(batch["real_images"], rows["image"])
        np.testing.assert_array_equal(batch["flips"], rows["flip"])
    assert set(calls) == {2 * 4 * 2}


def test_the_mean_of_the_texts_is_of_the_first_pictures(sets):
    streamed = open_stream(sets(3, dim=4))
    # 16 batches of 4: an epoch of all 61 pictures, and three again
    pictures = names(streamed.rows(0, 16))
    assert len(set(pictures)) == COUNT
    mean = streamed.text_mean(COUNT)
    assert mean.shape == (4,) and mean[0] == pytest.approx(np.mean(pictures))
    streamed.prepared = dataclasses.replace(streamed.prepared, embedding_dim=0)
    streamed.encoder = lambda texts: tf.constant(numbers(texts.numpy())[:, None], tf.float32)
    assert streamed.text_mean(8) == pytest.approx(np.mean(names(streamed.rows(0, 2))))


def test_stored_embeddings_are_used_as_they_are(sets):
    streamed = open_stream(sets(3, dim=4), mean_of=1)
    seen = set()
    for batch, rows in zip(streamed.dataset(0, 40), streamed.rows(0, 40)):
        pictures = rows["file_name"].numpy().astype(int)
        np.testing.assert_array_equal(batch["embeddings"][:, 0], pictures)
        assert ((batch["mismatched_embeddings"][:, 0].numpy() - pictures) % 3 != 0).all()
        seen |= set(batch["embeddings"][:, 1].numpy())
    assert seen == {0.0, 1.0, 2.0}
    with pytest.raises(StopIteration):
        next(streamed.dataset(2, 2))


def test_a_damaged_shard_is_said_in_one_line(sets, tmp_path):
    described = prepared.describe(types.SimpleNamespace(data_dir=sets()), "train")
    for i, path in enumerate(described.paths):
        data = open(path, "rb").read()
        (tmp_path / str(i)).write_bytes(data[:-9] if i == 3 else data)
    damaged = dataclasses.replace(described, paths=tuple(str(tmp_path / str(i)) for i in range(7)))
    with pytest.raises(UserError, match="cannot be read: .*prepare it anew") as caught:
        list(stream.Stream(damaged, 16, 19, 4, 0, 16).rows(0, 16))
    assert "\n" not in str(caught.value)


def test_stage_1_streams_the_small_copies(sets, tmp_path, tiny):
    config = resolve({"dataset": "prepared", "data_dir": sets(), "image_size": 256})
    prepare.prepare(prepare.Settings(config, str(tmp_path / "out"), 304, 19, 3, 1, "", ()))
    config = tiny(dataset="prepared", data_dir=str(tmp_path / "out"), crop_margin=0.1875)
    examples = build.load_examples(config, "train")  # the small copies, too
    place = {name: i for i, name in enumerate(examples.extra["file_name"].astype(int))}
    streamed = open_stream(str(tmp_path / "out"))
    assert streamed.field == "small"
    assert open_stream(str(tmp_path / "out"), load=20).field == "image"
    for batch in streamed.rows(0, 15):
        for name, image in zip(batch["file_name"].numpy().astype(int), batch["image"].numpy()):
            square = examples.images[place[name]]
            assert any(np.array_equal(square[t:t + 16, u:u + 16], image)
                       for t, u in np.ndindex(4, 4))


# In training


def test_large_sets_are_streamed_and_small_ones_are_not(sets, tiny):
    config = tiny(dataset="prepared", data_dir=sets())
    assert isinstance(build.load_batches(config), pipeline.Batches)
    pictures = COUNT * config.load_size**2 * 3
    embeddings = sum(1 + i % 3 for i in range(COUNT)) * 8 * 4
    for more, kind in ((-9, stream.Stream), (9, pipeline.Batches)):
        limit = (pictures + embeddings + more) / 2**30
        assert isinstance(build.load_batches(tiny(
            dataset="prepared", data_dir=sets(), memory_gb=limit)), kind)


def test_fewer_pictures_than_a_batch_and_sets_that_are_none(sets, tiny, tmp_path):
    for memory in (0.0, 4.0):
        with pytest.raises(UserError, match="--batch_size=62 is more than the 61 pictures"):
            build.load_batches(tiny(dataset="prepared", data_dir=sets(), batch_size=62,
                                    memory_gb=memory))
    with pytest.raises(UserError, match="is not divisible by 3 workers"):
        open_stream(sets(), workers=3)
    for path, words in (("", "is empty"), (str(tmp_path), "no prepared set")):
        with pytest.raises(UserError, match=words):
            build.load_batches(tiny(dataset="prepared", data_dir=path))
    with pytest.raises(UserError, match="no split 'test'; it has"):
        config = tiny(dataset="prepared", data_dir=only_train(sets(), tmp_path))
        build.load_examples(config, "test")


def only_train(path, tmp_path):
    """A set of the pictures of another one, without its split test."""
    output = str(tmp_path / "again")
    config = resolve({"dataset": "prepared", "data_dir": path, "image_size": 256})
    patch = pytest.MonkeyPatch()
    load = build.load_elements
    with patch.context() as context:
        context.setattr(build, "load_elements", lambda config, split: (
            iter(()) if split == "test" else load(config, split)))
        prepare.prepare(prepare.Settings(config, output, 64, 0, 0, 1, "", ()))
    return output


def test_one_picture_without_a_caption_is_refused(tmp_path, tiny, monkeypatch):
    """Others have several, so there are as many captions as pictures."""
    monkeypatch.setattr(build, "load_elements", lambda config, split: iter([
        {"image": ramps(i), "file_name": f"{i}", "captions": ["a", "b", "c"] * (i > 0)}
        for i in range(4)] if split == "train" else []))
    config = resolve({"dataset": "drawn_flowers", "image_size": 256, "embedding_dim": 0})
    path = str(tmp_path / "out")
    prepare.prepare(prepare.Settings(config, path, 304, 0, 2, 1, "", ()))
    silent = tiny(dataset="prepared", data_dir=path, memory_gb=0, embedding_dim=0)
    assert len(build.load_batches(silent)) == 4
    with pytest.raises(UserError, match="1 of 4 pictures have no caption.*--embedding_dim=0"):
        build.load_batches(tiny(dataset="prepared", data_dir=path, memory_gb=0))


def test_training_resumes_bit_for_bit(sets, tmp_path, no_pictures):
    """Six steps are three and three, on a text encoder that was trained on the same stream."""
    def flags(run, **changes):
        return tiny_flags(1, checkpoint_dir=tmp_path, run=run, dataset="prepared", memory_gb=0,
                          data_dir=sets(), shuffle_buffer=16, **changes)

    def go_on(run, **changes):
        """From step 3 of `whole`, as another run."""
        shutil.copytree(tmp_path / "whole", tmp_path / run)
        shutil.rmtree(tmp_path / run / "stage1/ckpt/step-00000006")
        done = command_here("train", *flags(run, text_encoder=encoder, **changes))
        assert "going on from the checkpoint of step 3" in done.stdout
        return variables(str(tmp_path), run, 1, 6)

    command_here("train_text_encoder", *flags("text"))
    encoder = os.path.join(tmp_path, "text", "text_encoder", "saved_model")
    command_here("train", *flags("whole", text_encoder=encoder))
    whole, halves = variables(str(tmp_path), "whole", 1, 6), go_on("halves")
    assert whole.keys() == halves.keys() and len(whole) > 50
    for name, value in whole.items():
        np.testing.assert_array_equal(value, halves[name], name)
    for name, value in go_on("calls", steps_per_call=2).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-3, atol=1e-5, err_msg=name)
    text = [json.loads(line) for line in open(
        os.path.join(tmp_path, "text", "text_encoder", "metrics.jsonl"))]
    assert [line["step"] for line in text if "text_encoder/loss" in line] == [2, 4]


def test_text_encoder_data_of_a_step_does_not_depend_on_the_steps_before(sets):
    rows = open_stream(sets(), size=64, load=76)
    straight, jumping = (train_text_encoder.StreamData(rows, 30, 0.3) for _ in range(2))
    batches = [straight(step) for step in range(5)]
    for step in (3, 4, 1):
        for one, other in zip(batches[step], jumping(step)):
            np.testing.assert_array_equal(one, other)
    tokens, pictures, labels = batches[0]
    assert tokens.shape == (4, 201) and pictures.shape == (4, 64, 64, 3)
    sample, images, places = straight.pairs()  # of all 30 steps
    assert len(sample) == len(images) == 120 and list(places) == list(range(120))
    np.testing.assert_array_equal(sample[:4], tokens)
    np.testing.assert_array_equal(images[:4], pictures)
    assert not np.array_equal(batches[0][0], batches[1][0])


def test_text_encoder_pictures_are_mirrored_where_the_row_says_so():
    """A picture worked out by hand: a white column at the left, on a ramp downwards."""
    picture = np.repeat(np.arange(8, dtype=np.uint8)[:, None, None] * 20, 8, 1).repeat(3, 2)
    picture[:, 0] = 255
    row = {"image": np.stack([picture] * 3), "flip": np.array([False, True, False]),
           "captions": np.array([["a"], ["b"], ["c"]], object), "label": np.array([4, 2, 4])}
    row = {name: tf.constant(value) for name, value in row.items()}

    class Rows(list):
        prepared = types.SimpleNamespace(has_labels=True)
        batch_size, order = 3, types.SimpleNamespace(seed=0)

        def rows(self, start, stop):
            return iter([row] * (stop - start))

    _, pictures, labels = train_text_encoder.StreamData(Rows(range(3)), 5, 0.0)(0)
    np.testing.assert_array_equal(pictures, [picture, np.fliplr(picture), picture])
    assert pictures[1][0, 7, 0] == 255 and pictures[1][0, 0, 0] == 0  # the column is at the right
    np.testing.assert_array_equal(labels, [4, 2, 4])
