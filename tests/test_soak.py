"""Long training: memory stays what it is after warm-up, files are closed."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import pytest
from conftest import ROOT, tiny_flags

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="memory is read there")


class Watched:
    """A training command, its memory and its open files by the step that it has last told."""

    def __init__(self, flags):
        self.process = subprocess.Popen([sys.executable, "-m", "stackgan_tf.train", *flags],
                                        cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.memory, self.files = {}, {}

    def run(self):
        for line in self.process.stdout:
            if step := re.match(r"stage \d: step (\d+)/", line):
                self.note(int(step[1]))
        return self.process.wait(60)

    def note(self, step):
        folder = f"/proc/{self.process.pid}"
        try:
            with open(f"{folder}/status") as file:
                self.memory[step] = next(int(line.split()[1]) / 1024 for line in file
                                         if line.startswith("VmRSS"))
            self.files[step] = len(os.listdir(f"{folder}/fd"))
        except (OSError, StopIteration):  # it has just ended
            pass


@pytest.mark.slow
@pytest.mark.parametrize("stage, steps, exports", [
    (1, 5000, 10), (2, 5000, 10), (1, 1000, 100)])
def test_training_keeps_its_memory_and_its_files(folder, encoder, stage1_path, tmp_path, figure,
                                                 stage, steps, exports):
    """Each checkpoint comes with a grid of samples and a SavedModel, each fifth step with numbers
    for TensorBoard."""
    begin = time.monotonic()
    watched = Watched(tiny_flags(stage, **{
        "checkpoint_dir": tmp_path, "dataset": "folder", "data_dir": folder,
        "text_encoder": encoder, "train_steps": steps, "log_steps": 5,
        "checkpoint_steps": steps // exports, **({"stage1": stage1_path} if stage == 2 else {})}))
    assert watched.run() == 0
    shutil.rmtree(tmp_path)
    seen = sorted(watched.memory)
    # from the second export on; the last report comes before the last export
    warm = [step for step in seen if 2 * steps // exports < step <= 2 * steps // exports + (
        steps // 4)]
    end = [step for step in seen if step > steps - steps // 4]
    before, after = (statistics.median(watched.memory[step] for step in some)
                     for some in (warm, end))
    figure(f"stage {stage}, {steps:,} steps and {exports} exports in {time.monotonic() - begin:.0f}"
           f" s: memory {before:.0f} -> {after:.0f} MB, open files {watched.files[warm[0]]} -> "
           f"{watched.files[end[-1]]}")
    assert watched.files[end[-1]] <= watched.files[warm[0]]
    assert after - before < 5
