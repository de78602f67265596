"""The train step goes through the TPU's compiler, as far as that goes without a TPU."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT

TENSORFLOW = "tensorflow-tpu==2.20.0"  # the newest; it has the TPU's operations, plain wheels none


@pytest.fixture(scope="module")
def tensorflow_tpu(tmp_path_factory):
    """Folder with that TensorFlow, of $TENSORFLOW_TPU or installed (263 MB) beside ours."""
    if path := os.environ.get("TENSORFLOW_TPU"):
        return path
    path = str(tmp_path_factory.mktemp("tensorflow_tpu"))
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target",
                           path, TENSORFLOW], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{TENSORFLOW} cannot be installed here: {done.stderr.strip()[-200:]}")
    return path


@pytest.mark.slow
def test_the_whole_step_of_both_stages_lowers_for_a_tpu(tensorflow_tpu):
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, os.path.join(here, "lower_for_tpu.py")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tensorflow_tpu, ROOT, here])})
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tensorflow 2.20" in done.stderr  # and not the one that is installed
    lowered = re.findall(r"^(stage .+): (\d+) lines, dynamic sizes: (\d+)$", done.stdout, re.M)
    assert [name for name, _, _ in lowered] == [
        "stage 1", "stage 1, R1", "stage 2", "stage 2, bfloat16"]
    assert all(int(lines) > 1000 and dynamic == "0" for _, lines, dynamic in lowered)
    # the compiler knows what a TPU has not: else the above would say nothing
    assert re.search(r"^refused: .*AsString.*XLA_TPU_JIT", done.stdout, re.M)
