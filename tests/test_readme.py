"""The README as its reader uses it: every Python block, and every way of `sample` it shows."""

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

SAMPLE = "python -m stackgan_tf.sample"


def readme():
    return (Path(ROOT) / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def surroundings(runs, folder, tmp_path):
    """A folder with the runs and files that the README speaks of, as tiny as can be."""
    settings = {"default": {"dataset": "folder", "data_dir": folder}, "mine": {},
                "birds": {"precomputed_embeddings": True}, "coco": {"precomputed_embeddings": True}}
    for run, config in settings.items():
        for part in ("stage1", "stage2", "text_encoder"):
            place = tmp_path / "checkpoints" / run / part
            os.makedirs(place)
            (place / "config.json").write_text(json.dumps(config))
            os.symlink(os.path.join(runs, "both", part, "saved_model"), place / "saved_model")
    (tmp_path / "captions.txt").write_text("a red flower\na blue flower\n")
    np.save(tmp_path / "FILE.npy", np.ones((3, 4), np.float32))
    birds = tmp_path / "data/birds/test/char-CNN-RNN-embeddings.pickle"
    os.makedirs(birds.parent)
    birds.write_bytes(pickle.dumps([np.full((2, 4), i, np.float32) for i in range(3)], protocol=2))
    return tmp_path


def python(code, arguments, cwd):
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, text=True,
                          capture_output=True, timeout=600, env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_blocks_run_as_they_stand(surroundings):
    text = readme()
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert blocks and not re.findall(r"^    (?:import|from) ", text, re.M)  # none stands elsewhere
    for block in blocks:
        if "localhost" not in block:  # those are test_export's, which has a server
            python(block, [], surroundings)
    assert Image.open(surroundings / "flower.png").size == (32, 32)


def commands_of(command):
    """The arguments of each of its uses in the README."""
    text = readme()
    blocks = re.findall(rf"^    ({re.escape(command)} (?:.*\\\n)*.*)$", text, re.M)
    inline = re.findall(rf"`({re.escape(command)} [^`]*)`", text)
    return [shlex.split(found.replace("\\\n", " "), comments=True)[3:]
            for found in blocks + inline]


# One process for all: each would load TensorFlow.
RUN_ALL = """
import json, sys
from absl import flags
from stackgan_tf import sample
sample.define_own_flags()
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["sample", *arguments])
    sample.main([])
"""


def test_sample_commands_run(surroundings):
    arguments = [["--count=30" if flag == "--count=30000" else flag for flag in flags]
                 for flags in commands_of(SAMPLE)]
    assert len(arguments) >= 10
    python(RUN_ALL, [json.dumps(arguments)], surroundings)
    default = surroundings / "checkpoints/default/samples"
    made = {path.name for path in default.glob("*/*")}
    assert made >= {"grid.png", "strip.png", "animation.gif", "animation.png", "animation.webp",
                    "truncation.png", "neighbors.png"}
    assert len(list((surroundings / "DIR").glob("*.png"))) == 30
    for run in ("birds", "coco"):
        assert list((surroundings / "checkpoints" / run).glob("samples/*/grid.png"))


# With the evaluation itself, which test_evaluate tests, left out.
EVALUATE_ALL = """
import json, sys
from absl import flags
from stackgan_tf import evaluate, evaluation
evaluate.define_own_flags()
record = {"metric": "kid_x", "kid_x": 1.0, "kid_x/low": 0.5, "kid_x/high": 1.5, "count": 7,
          "real_count": 9, "split": "test", "size": 64}
def stand_in(checkpoint_dir, run, stage, **options):
    print(json.dumps([run, stage, options["metrics"], evaluation.Options(**options).count]))
    return [record]
evaluation.evaluate = stand_in
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["evaluate", *arguments])
    evaluate.main([])
"""


def test_evaluate_commands_are_understood(tmp_path):
    arguments = commands_of("python -m stackgan_tf.evaluate")
    shown = python(EVALUATE_ALL, [json.dumps(arguments)], tmp_path)
    read = [json.loads(line) for line in shown.splitlines() if line.startswith("[")]
    assert ["default", 1, [], 8000] in read
    assert ["default", None, ["fid", "inception_score"], 30000] in read
    assert shown.count("kid_x ") == len(arguments) >= 3 and "0.5000 to 1.5000" in shown
