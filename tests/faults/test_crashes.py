"""Training processes that are killed, stopped, or run out of disk: nothing complete is lost."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import command_here, tiny_flags
from nursery import Nursery
from test_train import variables

from stackgan_tf import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
STEPS = 6  # a checkpoint every 3


@pytest.fixture(scope="module")
def nursery():
    one = Nursery()
    yield one
    one.close()


@pytest.fixture
def start(nursery, folder, encoder, stage1_path, tmp_path):
    """start(stage, run, kill_at=0, **changes) -> Child."""
    def make(stage, run, kill_at=0, **changes):
        below = {"stage1": stage1_path} if stage == 2 else {}
        flags = tiny_flags(stage, **{
            "checkpoint_dir": tmp_path, "run": run, "dataset": "folder", "data_dir": folder,
            "text_encoder": encoder, "train_steps": STEPS, "log_steps": 1, **below, **changes})
        return nursery.start(flags, tmp_path / "output", kill_at)
    return make


def newest(path):
    """The newest complete checkpoint by its name alone; 0 if there is none."""
    names = os.listdir(os.path.join(path, "ckpt")) if os.path.isdir(f"{path}/ckpt") else []
    return max((int(name[5:]) for name in names if re.fullmatch(r"step-\d{8}", name)), default=0)


def reached(text):
    """The last step that the output tells of."""
    return max(map(int, re.findall(rf"step (\d+)/{STEPS}", text)), default=0)


@pytest.mark.parametrize("stage, kills, changes", [
    (1, 2, {"deterministic": True, "discriminator_norm": "none", "r1_weight": 0.1}),
    *(pytest.param(stage, 25, {}, marks=pytest.mark.slow) for stage in (1, 2))])
def test_killed_at_random_moments_ends_bit_equal(start, tmp_path, figure, stage, kills, changes):
    """Half the kills come by the clock, from the first step on; the others right before one of the
    command's file operations: folders, copies, fsync, renames."""
    whole = start(stage, "whole", **changes)
    assert whole.wait_for(f"step 1/{STEPS}"), whole.text()
    begin = time.monotonic()
    assert whole.wait() == 0, whole.text()
    seconds = time.monotonic() - begin
    operations = int(re.search(r"operations: (\d+)", whole.text())[1])
    expected = variables(str(tmp_path), "whole", stage, STEPS)
    assert len(expected) > 50
    rng, done, run, finished, lost = random.Random(stage), 0, 0, 0, []
    while done < kills or not finished:
        path = os.path.join(tmp_path, f"torn{run}", f"stage{stage}")
        kept = newest(path)
        by_clock = kept > 0 or done % 2 == 1
        kill_at = 0 if by_clock or done >= kills else rng.randint(1, operations)
        child = start(stage, f"torn{run}", kill_at, **changes)
        if by_clock and done < kills and child.wait_for(f"/{STEPS}, "):
            time.sleep(rng.uniform(0, 0.9 * seconds * (STEPS - kept) / STEPS))
            try:
                child.signal(signal.SIGKILL)
            except ProcessLookupError:  # it has finished
                pass
        code, text = child.wait(), child.text()
        assert code in (0, -signal.SIGKILL), text
        assert "cannot be read" not in text and "Traceback" not in text, text
        if kept and code == 0:
            assert f"of step {kept}\n" in text or f"trained for {kept} steps" in text, text
        if code:
            done += 1
            lost.append(max(0, reached(text) - newest(path)))
        else:
            finished += 1
            for name, value in variables(str(tmp_path), f"torn{run}", stage, STEPS).items():
                np.testing.assert_array_equal(value, expected[name], name)
            assert checkpoint.exported_step(os.path.join(path, "saved_model")) == STEPS
            left = [name for _, folders, files in os.walk(path) for name in folders + files
                    if name.endswith((".tmp", ".being-replaced"))]
            assert not left
            run += 1
    figure(f"stage {stage}: {done} kills, {finished} runs finished bit-equal; steps to do again at "
           f"most {max(lost)} (a checkpoint every 3), complete checkpoints lost: 0")


def test_a_signal_leaves_a_checkpoint_and_a_second_one_ends_at_once(start, tmp_path, figure):
    path, saved, seconds = os.path.join(tmp_path, "stopped", "stage1"), 0, []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGINT, None)):
        child = start(1, "stopped", train_steps=100_000, checkpoint_steps=1_000_000)
        assert child.wait_for(f"step {saved + 2}/"), child.text()
        assert not saved or f"going on from the checkpoint of step {saved}\n" in child.text()
        if not saved:
            second = command_here("train", *child.flags, check=False)  # while the first is at it
            assert second.returncode == 1 and "another process is training" in second.stderr
        begin = time.monotonic()
        child.signal(number)
        if code is None:  # again, while the checkpoint, pictures and SavedModel are written
            time.sleep(0.3)
            child.signal(number)
            assert child.wait() == -number and time.monotonic() - begin < 2
            break
        while newest(path) == saved:
            assert time.monotonic() - begin < 10, child.text()
            time.sleep(0.01)
        seconds.append(time.monotonic() - begin)
        assert child.wait() == code and "which is saved" in child.text()
        saved = newest(path)
    figure(f"2 signals: a checkpoint after {max(seconds):.1f} s at most, 0 steps lost; 1 repeated "
           "signal: ended at once")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_a_killed_training_takes_its_text_encoder_s_along(start, tmp_path, figure):
    changes = {"text_encoder": "", "text_encoder_steps": 3000, "checkpoint_steps": 1_000_000}
    one = start(1, "alone", **changes)
    assert one.wait_for("text encoder: step 20/"), one.text()
    with open(f"/proc/{one.pid}/task/{one.pid}/children") as file:
        (encoder,) = file.read().split()
    one.signal(signal.SIGKILL)
    assert one.wait() == -signal.SIGKILL
    begin = time.monotonic()
    while running(encoder):
        assert time.monotonic() - begin < 60, one.text()
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    step = int(re.search(r"stopped; checkpoint of step (\d+) saved", one.text())[1])
    again = start(1, "alone", **changes)
    assert again.wait() == 0, again.text()
    assert f"text encoder: going on from step {step}\n" in again.text()
    figure(f"1 SIGKILL in the text encoder's training: its process saved step {step} and ended "
           f"after {seconds:.1f} s; the same command went on")


def running(pid):
    """Whether a process has not ended; one that nobody has waited for has no command line."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return bool(file.read())
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(tmp_path):
    """mount(bytes) -> path of a disk of that size."""
    mounted = []

    def mount(size):
        path = tmp_path / "disk"
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)],
                              capture_output=True)
        if done.returncode:
            pytest.skip("this user may not mount a small disk")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_keeps_the_last_checkpoint_and_training_goes_on_with_room(start, small_disk,
                                                                              figure):
    disk = small_disk("64m")
    child = start(1, "full", checkpoint_dir=disk)
    part = os.path.join(disk, "full", "stage1")
    deadline = time.monotonic() + 120
    while not os.path.exists(os.path.join(part, "saved_model")):  # written after the checkpoint
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.signal(signal.SIGSTOP)
    with open(disk / "ballast", "wb") as file:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        file.write(bytes(free - 20_000))
    child.signal(signal.SIGCONT)
    code, text = child.wait(), child.text()
    assert code == 1 and "Traceback" not in text, text
    error = [line for line in text.splitlines() if line.startswith("error: ")][-1]
    found = re.search(rf"checkpoint {part}/ckpt/step-00000006 could not be written: .*No space left"
                      r".*\(([\d,]+) of [\d,]+ bytes are missing\); the last complete one is of "
                      "step 3. Make room", error)
    assert found, error
    needed = os.path.getsize(os.path.join(part, "ckpt", "step-00000003",
                                          "variables.data-00000-of-00001"))
    assert 0.8 * needed < int(found[1].replace(",", "")) < needed
    assert os.listdir(os.path.join(part, "ckpt")) == ["step-00000003"]
    os.remove(disk / "ballast")
    again = start(1, "full", checkpoint_dir=disk)
    assert again.wait() == 0, again.text()
    assert "going on from the checkpoint of step 3\n" in again.text()
    figure("1 full disk: the checkpoint of step 3 kept, 3 steps done again when there was room")
