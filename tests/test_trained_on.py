"""Which pictures a run has learnt from: kept as it trains, counted where it is scored."""

import os

import numpy as np
import pytest
from fake_evaluation import FakeExamples
from test_pipeline import elements

from stackgan_tf import below, build, pipeline, run_folder
from stackgan_tf.config import UserError
from stackgan_tf.run_folder import Part


def test_a_picture_keeps_its_key_in_another_split_folder_and_size():
    def keys(places, size=19, folder="", extra="", shuffle=False):
        examples = pipeline.Examples(({
            "image": np.zeros((20, 20, 3), np.uint8), "file_name": f"{folder}{i}.png",
            "captions": [b"one", f"c{i}{extra}".encode()]} for i in places), size)
        if shuffle:
            examples.shuffle_captions(0)
        return examples.keys[:, 0].tolist()

    every = keys(range(10))
    assert len({*every}) == 10
    assert keys([7, 3], size=8, folder="test/") == [every[7], every[3]]
    assert keys(range(10), shuffle=True) == every
    assert not {*keys([7, 3], extra="?")} & {*every}  # 7.png of another set
    assert pipeline.Examples(elements(5), 19).keys is None  # no file names
    rows = ({"image": np.zeros((9, 9, 3), np.uint8), "file_name": f"{i}.png"} for i in range(5))
    assert pipeline.Examples(rows, 8).keys is None  # no captions


def test_pictures_numbered_in_each_folder_are_not_taken_for_each_other():
    """Captions made from classes: train/robin/0.png is not test/robin/0.png."""
    def examples(split, captions):
        return pipeline.Examples(({
            "image": np.zeros((8, 8, 3), np.uint8), "file_name": f"{split}/robin/{i}.png",
            "captions": [captions(i)]} for i in range(4)), 8)

    def shared(captions):
        trained, held_out = examples("train", captions), examples("test", captions)
        assert np.isin(trained.keys, trained.kept_keys).any(1).all()
        return np.isin(held_out.keys, trained.kept_keys).any(1).sum()

    assert shared(lambda i: "a photo of a robin") == 0
    assert shared(lambda i: f"robin {i} of its own") == 4  # moved to another folder


def test_pictures_without_names_are_not_known():
    rows = [{"image": np.zeros((8, 8, 3), np.uint8), "file_name": b"", "captions": [f"c{i}"]}
            for i in range(3)]
    assert pipeline.Examples(rows, 8).keys is None


def test_the_pictures_trained_on_are_those_of_all_lists_or_not_known(tmp_path):
    part, last = Part(str(tmp_path), "run", "stage1"), 2**64 - 1
    assert part.read_trained_on() is None
    part.write_trained_on(np.array([last, 1], np.uint64), np.array([3, 1], np.uint64))
    assert part.read_trained_on().tolist() == [1, 3, last]
    assert run_folder.read_trained_on(part.path).tolist() == [1, 3, last]
    part.write_trained_on(np.array([1], np.uint64), None)
    assert part.read_trained_on() is None
    for text in ("rubbish", f"{2**64:x}\n", f"{1:016x}\n{2**63:015x}"):
        with open(part.trained_on, "w") as file:
            file.write(text)
        with pytest.raises(UserError, match="trained_on.txt is damaged .*or remove it"):
            part.read_trained_on()


def test_a_run_keeps_what_it_was_trained_on(make_trainer, no_pictures):
    trainer = make_trainer(train_steps=1, run="elsewhere")
    trainer.run()
    assert trainer.part.read_trained_on() is None  # its text encoder has learnt nobody knows what
    trainer = make_trainer(train_steps=1)
    trainer.text.write_trained_on(trainer.batches.examples.kept_keys[:3])
    trainer.run()
    assert {*trainer.part.read_trained_on()} == {*trainer.batches.examples.kept_keys}
    trainer.part.write_trained_on(None)
    make_trainer(train_steps=1).run()  # is finished: nothing is learnt
    assert trainer.part.read_trained_on() is None


def test_a_run_has_learnt_what_it_stands_on_has_learnt(make_trainer, tiny, tmp_path):
    """5 by its text encoder, 9 before it was stopped, 3 by the Stage-I of another run."""
    trainer = make_trainer()
    part, own = trainer.part, trainer.batches.examples.kept_keys.tolist()
    trainer.text.write_trained_on(np.array([5], np.uint64))
    trainer._note_pictures(0)
    assert part.read_trained_on().tolist() == sorted([5, *own])
    part.write_trained_on(np.array([9], np.uint64))
    trainer._note_pictures(2)
    assert part.read_trained_on().tolist() == sorted([5, 9, *own])
    trainer.text.write_trained_on(None)
    trainer._note_pictures(2)
    assert part.read_trained_on() is None
    theirs, ours = (Part(str(tmp_path), *names) for names in (("a", "stage1"), ("b", "stage2")))
    os.makedirs(theirs.saved_model)
    theirs.write_trained_on(np.array([3], np.uint64))
    below.keep_stage1(theirs.saved_model, ours)
    assert ours.read_trained_on().tolist() == [3]
    trainer.part, trainer.config = ours, tiny(2, precomputed_embeddings=True)
    trainer._note_pictures(0)
    assert ours.read_trained_on().tolist() == sorted([3, *own])


def test_pictures_held_out_late_are_counted(obeying, tmp_path, monkeypatch, capsys):
    def trained_on(**options):
        return obeying(metrics=["kid"], count=20, **options)[0][0]["real_trained_on"]

    examples, part = FakeExamples(), Part(str(tmp_path), "run", "stage1")
    examples.keys = np.stack([[*range(11), 2], np.full(12, 50)], 1).astype(np.uint64)
    monkeypatch.setattr(build, "load_examples", lambda *_: examples)
    assert trained_on() is None  # an older run
    part.write_trained_on(np.array([77, 78], np.uint64))
    assert trained_on() == 0
    part.write_trained_on(np.array([2, 3, 77, 9], np.uint64))
    assert trained_on(split="train") == 4
    assert "warning" not in capsys.readouterr().out
    assert trained_on() == 4
    assert ("warning: 4 of the 12 pictures of the split test have names and captions that the run "
            "was trained on" in capsys.readouterr().out)
    examples.keys = None  # names or captions are missing
    assert trained_on() is None
