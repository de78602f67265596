"""The newest checkpoint damaged in each of these ways: it is reported, the one before it taken."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY

from stackgan_tf import build, checkpoint
from stackgan_tf.config import resolve

DATA, INDEX, CARD = "variables.data-00000-of-00001", "variables.index", "checkpoint.json"


def flip(name, share):
    def damage(folder):
        with open(folder / name, "r+b") as file:
            data = file.read()
            file.seek(int(share * (len(data) - 1)))
            file.write(bytes([data[int(share * (len(data) - 1))] ^ 0x10]))
    return damage


def cut(name, size):
    """Down to `size` bytes; from the end if negative, a share of all if a float."""
    def damage(folder):
        whole = os.path.getsize(folder / name)
        os.truncate(folder / name, int(size * whole) if isinstance(size, float)
                    else size if size >= 0 else whole + size)
    return damage


def zeros(name):
    def damage(folder):
        size = os.path.getsize(folder / name)
        (folder / name).write_bytes(bytes(size))
    return damage


def card(change):
    def damage(folder):
        stored = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(change(stored)))
    return damage


def of_the_other(*names):
    def damage(folder):
        for name in names:
            shutil.copy(folder.parent / "step-00000003" / name, folder / name)
    return damage


def as_folder(folder):
    os.remove(folder / DATA)
    os.mkdir(folder / DATA)


def emptied(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "bit at the front of the data": flip(DATA, 0.0),
    "bit in the middle of the data": flip(DATA, 0.5),
    "bit at the end of the data": flip(DATA, 1.0),
    "bit at the front of the index": flip(INDEX, 0.0),
    "bit in the middle of the index": flip(INDEX, 0.5),
    "bit at the end of the index": flip(INDEX, 1.0),
    "bit in the card": flip(CARD, 0.5),
    "data cut in half": cut(DATA, 0.5),
    "data one byte short": cut(DATA, -1),
    "data empty": cut(DATA, 0),
    "index cut in half": cut(INDEX, 0.5),
    "index empty": cut(INDEX, 0),
    "card cut in half": cut(CARD, 0.5),
    "card empty": cut(CARD, 0),
    "data zeroed": zeros(DATA),
    "index zeroed": zeros(INDEX),
    "data missing": lambda folder: os.remove(folder / DATA),
    "index missing": lambda folder: os.remove(folder / INDEX),
    "card missing": lambda folder: os.remove(folder / CARD),
    "all missing": emptied,
    "data a folder": as_folder,
    "data of another step": of_the_other(DATA),
    "variables of another step": of_the_other(DATA, INDEX),
    "folder of another step": of_the_other(DATA, INDEX, CARD),
    "card a list": card(lambda stored: [stored]),
    "card of other variables": card(lambda stored: {**stored, "variables": {}}),
    "card of other notes": card(lambda stored: {**stored, "notes": {"skipped": [1]}}),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 3 and 6 of a tiny network: (folder, variables, values at step 3)."""
    gan, _ = build.gan(resolve({**TINY, "image_size": 16}))
    variables = gan.generator.variables
    path = tmp_path_factory.mktemp("saved") / "ckpt"
    checkpoints = checkpoint.Checkpoints(str(path), {"generator": variables})
    checkpoints.save(3, {"skipped": [2]})
    kept = [v.numpy() for v in variables]
    for variable in variables:
        variable.assign(variable + 1.0)
    checkpoints.save(6, {"skipped": [2, 5]})
    return path, variables, kept


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_one_before_it_is_taken(saved, tmp_path, caplog, figure, kind):
    path, variables, kept = saved
    shutil.copytree(path, tmp_path / "ckpt")
    DAMAGE[kind](tmp_path / "ckpt" / "step-00000006")
    for variable in variables:
        variable.assign(tf.zeros_like(variable))
    checkpoints = checkpoint.Checkpoints(str(tmp_path / "ckpt"), {"generator": variables})
    assert checkpoints.restore() == 3 and checkpoints.notes == {"skipped": [2]}
    for variable, value in zip(variables, kept, strict=True):
        np.testing.assert_array_equal(variable, value)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("stackgan")]
    assert len(lines) == 1 and "step-00000006 cannot be read" in lines[0] and "\n" not in lines[0]
    assert sorted(os.listdir(tmp_path / "ckpt")) == ["step-00000003", "step-00000006.bad"]
    figure("1 checkpoint damaged, the one before it taken: 3 steps to do again")
