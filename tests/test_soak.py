"""Long use: memory stays what it is after warm-up, files are closed, every answer is right."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, tiny_flags
from test_export import randomized, write_stage

from stackgan_tf import checkpoint, export
from stackgan_tf.text_encoders import char_cnn_rnn

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="memory is read there")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The served model of a tiny run of both stages."""
    root = str(tmp_path_factory.mktemp("run"))
    encoder = char_cnn_rnn.CharCnnRnn(8, 8)
    encoder(np.zeros((1, 201), np.int32))
    randomized(encoder, 0.3)
    checkpoint.export(os.path.join(root, "tiny/text_encoder/saved_model"), [encoder], {"serve": (
        char_cnn_rnn.serving_function(encoder, np.zeros(8), np.eye(8)),
        [tf.TensorSpec([None], tf.string, "captions")])})
    for stage in (1, 2):
        write_stage(root, "tiny", stage)
    output = os.path.join(root, "served")
    export.export_run(root, "tiny", output)
    return output


@pytest.mark.parametrize("requests, most", [
    (300, 20), pytest.param(20_000, 20, marks=pytest.mark.slow)])
def test_hostile_requests_from_eight_threads(base, figure, requests, most):
    """Growth of the process, from a fifth of the requests on, in megabytes."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tests/soak.py"), base,
                           str(requests)], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    count, memory = found["count"], np.array(found["memory"])
    assert count.get("wrong", 0) == count.get("not refused", 0) == 0
    assert count["right"] + count["refused"] == requests and count["refused"] > requests / 100
    warm, end = np.median(memory[3:8], 0), np.median(memory[-5:], 0)
    figure(f"{requests:,} requests of {count['rows']:,} rows by 8 threads, {count['refused']} of "
           f"them to be refused: 0 wrong; memory {warm[0]:.0f} -> {end[0]:.0f} MB (allocated "
           f"{warm[1]:.0f} -> {end[1]:.0f})")
    assert end[0] - warm[0] < most


def test_the_served_graph_touches_no_files(base):
    """What `saved_model_cli scan` warns of, and whatever calls back into Python."""
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], os.path.join(base, "1"))
    nodes = list(meta.graph_def.node) + [node for function in meta.graph_def.library.function
                                         for node in function.node_def]
    used = {node.op for node in nodes}
    assert len(used) > 30 and "EncodePng" in used
    # its variables are restored by RestoreV2, and saving them again is part of every SavedModel
    assert not {op for op in used if re.search("File|PrintV|PyFunc|Socket|Dataset", op)} - {
        "MergeV2Checkpoints", "ShardedFilename"}


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
    """Each checkpoint comes with a grid of samples and a SavedModel."""
    begin = time.monotonic()
    watched = Watched(tiny_flags(stage, **{
        "checkpoint_dir": tmp_path, "dataset": "folder", "data_dir": folder,
        "text_encoder": encoder, "train_steps": steps, "log_steps": steps // 40,
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
    assert after - before < 15
