"""The train step goes through the TPU's compiler, as far as that goes without a TPU."""

import os
import re
import subprocess
import sys
import tomllib

import lower_for_tpu
import pytest
from conftest import ROOT

# It has the TPU's operations, plain wheels none.
with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
    (TENSORFLOW,) = tomllib.load(file)["dependency-groups"]["tpu-check"]


def test_what_is_checked_is_what_the_readme_installs():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        assert f"&& pip install {TENSORFLOW}\n" in file.read()


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
    # and not the one that is installed
    assert f"tensorflow {TENSORFLOW.partition('==')[2]}\n" in done.stderr
    lowered = re.findall(r"^(stage .+): (\d+) lines, dynamic sizes: (\d+)$", done.stdout, re.M)
    assert [name for name, _, _ in lowered] == list(lower_for_tpu.CASES)
    assert all(int(lines) > 1000 and dynamic == "0" for _, lines, dynamic in lowered)
    # the compiler knows what a TPU has not: else the above would say nothing
    assert re.search(r"^refused: .*AsString.*XLA_TPU_JIT", done.stdout, re.M)
