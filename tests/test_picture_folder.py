"""Folders of pictures for metrics: resumable, whole or absent, never mixed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from fake_runs import write_stage, write_text_encoder
from PIL import Image

from stackgan_tf import images, picture_folder, sample
from stackgan_tf.config import UserError
from stackgan_tf.generate import Generator
from stackgan_tf.knobs import Knobs
from stackgan_tf.messages import of_system

CAPTIONS = ["ab", "cd", "dad"]


def fill(runs, folder, count, captions=CAPTIONS, **options):
    return sample.sample(runs, "sketch", captions, folder=str(folder), count=count, **options)


def pngs(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".png"))


def test_picture_i_is_of_caption_i_in_turn_and_of_seed_plus_i(runs, tmp_path):
    fill(runs, tmp_path / "out", 19, seed=100)
    assert pngs(tmp_path / "out") == [f"{i:07d}.png" for i in range(19)]
    generator = Generator(runs, "sketch")
    for i in range(19):
        alone = generator.generate([CAPTIONS[i % 3]], [100 + i])[0]
        assert (np.asarray(Image.open(tmp_path / f"out/{i:07d}.png")) == alone).all()


def test_what_is_there_is_skipped_and_what_is_damaged_is_made_again(runs, tmp_path, capsys):
    fill(runs, tmp_path, 20)
    before = {name: (tmp_path / name).read_bytes() for name in pngs(tmp_path)}
    os.remove(tmp_path / "0000003.png")
    (tmp_path / "0000011.png").write_bytes(before["0000011.png"][:-5])  # cut off
    (tmp_path / "0000012.png").write_bytes(bytes(len(before["0000012.png"])))  # a power cut's
    (tmp_path / ".0000003.png.123.tmp").write_bytes(b"half")
    for name in before:
        if (tmp_path / name).exists():
            os.utime(tmp_path / name, (1, 1))
    capsys.readouterr()
    fill(runs, tmp_path, 25)
    assert "25 pictures are in" in (said := capsys.readouterr().out) and "8 of them new" in said
    assert {name: (tmp_path / name).read_bytes() for name in list(before)} == before
    new = {name for name in pngs(tmp_path) if os.stat(tmp_path / name).st_mtime > 1}
    assert new == {f"{i:07d}.png" for i in (3, 11, 12, 20, 21, 22, 23, 24)}
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("change, message", [
    ({"seed": 1}, r"seed 1 \(was 0\)"),
    ({"captions": ["ab", "cd", "dab"]}, "captions 3, SHA-256"),
    ({"captions": ["a", "bcd", "dad"]}, "captions 3, SHA-256"),
    ({"truncation": [0.5]}, r"truncation 0.5 \(was 1.0\)"),
    ({"epsilon_scale": [0]}, r"epsilon_scale 0.0 \(was 1.0\)"),
])
def test_other_settings_are_refused(runs, tmp_path, change, message):
    fill(runs, tmp_path, 3)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=f"made with other settings: {message}"):
        fill(runs, tmp_path, 6, **change)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_of_before_there_were_more_knobs_goes_on(runs, tmp_path):
    fill(runs, tmp_path, 2)
    settings = json.loads((tmp_path / "sample.json").read_text())
    del settings["epsilon_scale"], settings["text_strength"]
    (tmp_path / "sample.json").write_text(json.dumps(settings))
    fill(runs, tmp_path, 3)
    assert len(pngs(tmp_path)) == 3
    with pytest.raises(UserError, match="epsilon_scale 0.5"):
        fill(runs, tmp_path, 4, epsilon_scale=[0.5])


def test_vectors_are_taken_in_turn_and_go_on(tmp_path, capsys):
    write_stage(tmp_path / "vectors/stage1", 16)
    (tmp_path / "vectors/stage1/config.json").write_text('{"precomputed_embeddings": true}')
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    for count in (3, 6):
        sample.sample(str(tmp_path), "vectors", embeddings=str(tmp_path / "vectors.npy"),
                      folder=str(tmp_path / "out"), count=count)
    assert "--rows" not in capsys.readouterr().out  # which has no use here
    generator = Generator(str(tmp_path), "vectors")
    for i in range(6):
        alone = generator.generate(vectors[[i % 5]], [i])[0]
        assert (np.asarray(Image.open(tmp_path / f"out/{i:07d}.png")) == alone).all()


def test_a_run_that_was_trained_further_is_another(tmp_path):
    write_stage(tmp_path / "sketch/stage1", 16)
    write_text_encoder(tmp_path / "sketch/text_encoder")
    fill(str(tmp_path), tmp_path / "out", 2)
    write_stage(tmp_path / "sketch/stage1", 16)
    with pytest.raises(UserError, match="other settings: weights"):
        fill(str(tmp_path), tmp_path / "out", 3)


def test_a_folder_of_something_else_is_left_alone(runs, tmp_path):
    (tmp_path / "0000000.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="holds 0000000.png and was not made by sample"):
        fill(runs, tmp_path, 1)
    assert os.listdir(tmp_path) == ["0000000.png"]
    os.makedirs(tmp_path / "two")
    (tmp_path / "two/sample.json").write_text("{")
    with pytest.raises(UserError, match="sample.json is damaged"):
        fill(runs, tmp_path / "two", 1)


def test_a_folder_whose_first_moment_was_cut_short_is_filled(runs, tmp_path):
    for name in (".sample.json.123.tmp", ".DS_Store"):
        (tmp_path / name).write_bytes(b"")
    fill(runs, tmp_path, 1)
    assert set(os.listdir(tmp_path)) == {".DS_Store", ".lock", "sample.json", "0000000.png"}


def test_a_full_disk_is_named(runs, tmp_path, monkeypatch):
    fill(runs, tmp_path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(images.Path, "write_bytes", full)
    with pytest.raises(OSError) as caught:
        fill(runs, tmp_path, 2)
    assert of_system(caught.value) == (
        f"{tmp_path}/0000001.png: No space left on device; make room.")


def test_two_processes_do_not_fill_one_folder(runs, tmp_path):
    settings = picture_folder.describe(Generator(runs, "sketch"), CAPTIONS, 0, Knobs())
    with picture_folder.claim(str(tmp_path), settings):
        with pytest.raises(UserError, match="another process is filling"):
            fill(runs, tmp_path, 1)
    fill(runs, tmp_path, 1)
    assert pngs(tmp_path) == ["0000000.png"]


def test_killed_at_any_moment_every_picture_is_whole(runs, tmp_path, figure):
    """The real thing: SIGKILL while it writes; and the rest is what it would have been."""
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "stackgan_tf.sample", f"--checkpoint_dir={runs}", "--run=sketch",
         *(f"--captions={c}" for c in CAPTIONS), f"--folder={out}", "--count=1000000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while not (out.exists() and len(pngs(out)) > 40):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    made = pngs(out)
    for name in made:
        Image.open(out / name).load()
    for name in made[30:]:
        os.remove(out / name)
    fill(runs, out, 40)
    fill(runs, tmp_path / "straight", 40)
    for name in pngs(tmp_path / "straight"):
        assert (out / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
    figure("1 SIGKILL: every picture under its name was whole")
