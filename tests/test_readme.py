"""The README as its reader uses it: every block of code and every command in it is run, or stands
in a list of this file with the reason why not."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from conftest import ROOT, TINY
from PIL import Image
from pytorch_writer import write_zip
from test_import_pytorch import SMALL, weights
from test_prepare import make_folder
from test_reed import CLASSES, NAMES, write_split
from test_tfds import picture, write
from test_webdataset import sample as tar_members
from test_webdataset import tar

from stackgan_tf import attribute_classifier, checkpoint
from stackgan_tf.config import Config
from stackgan_tf.datasets.drawn_flowers import DrawnFlowers
from stackgan_tf.flower_drawing import ATTRIBUTES
from stackgan_tf.presets import PRESETS

PROGRAMS = ("python", "pip", "pytest", "tensorboard", "docker", "curl")

# Commands that are not typed here, by how they begin: why, and what stands in for it.
NOT_TYPED = {
    "pip install": "asks the package index; .ci/run installs so before it runs these tests",
    "pip uninstall": "would take this machine's TensorFlow away",
    "pytest": "is what runs this",
    "docker run": "needs an engine and a registry; test_export.py has a server like it",
    "curl": "test_export.py sends what it sends to that server",
    "tensorboard": "runs until it is stopped; test_dashboards.py starts it and asks it",
    "python -m stackgan_tf.evaluate --metrics=fid": "needs weights that pip does not bring; "
                                                    "test_evaluate.py measures with stand-ins",
    "python -m stackgan_tf.demo": "runs until it is stopped; test_demo_browser.py uses the page",
    "python docs/": "needs Chromium; test_dashboards.py takes a picture where there is one",
    "python -m stackgan_tf.experiments.": "trains for hours; test_experiments.py does tiny ones",
    "python -m benchmarks.": "measures for minutes; test_benchmarks does a little of each",
}

# Sections whose commands make runs or folders of names that other sections use too.
ALONE = ("Your own pictures", "Birds, flowers and COCO as Reed and StackGAN gave them out",
         "Data sets of TFDS", "Large sets", "Weights of the PyTorch code")

# A section whose commands need its machines; test_distribution.py trains with several processes.
MACHINES = "Many devices, many machines"

# What is added to a command, so that it takes a second.
DRAWN = ["--data_dir=flowers", "--images_per_class=2"]
SMALLER = {
    "train": [f"--{name}={value}" for name, value in {
        **TINY, "train_steps": 2, "checkpoint_steps": 2, "log_steps": 1}.items()
        if name not in ("embedding_dim", "condition_dim")],  # they follow from what is there
    "evaluate": ["--count=8"],
    "experiments.curves": ["--count=8", "--truncation=0,1", "--epsilon_scale=", "--text_strength="],
    "prepare": ["--workers=1", "--shards=1"],
    "sample": [], "export": [], "import_pytorch": [], "inspect_data": [],
}
SMALLER["train_text_encoder"] = SMALLER["train"]


def pieces():
    """(section, kind, text) of all code: kind is "python", "block" (indented) or "inline"."""
    text, section = (Path(ROOT) / "README.md").read_text(encoding="utf-8"), ""
    pattern = r"^#+ (.*)$|^```(\w*)\n([^`]*)^```$|^((?: {4}.*\n)+)|`([^`]+)`"
    for found in re.finditer(pattern, text, re.M):
        heading, kind, fenced, block, inline = found.groups()
        section = heading or section
        if fenced:
            yield section, kind, fenced
        elif block:
            yield section, "block", textwrap.dedent(block)
        elif inline:
            yield section, "inline", " ".join(inline.split())


def split(text):
    """The commands of a piece, and its lines that are none."""
    lines = text.replace("\\\n", " ").splitlines()
    begins = [line.split(" ")[0] in PROGRAMS and " " in line for line in lines]
    commands = [part.strip() for line, is_one in zip(lines, begins) if is_one
                for part in line.split(" && ")]
    return commands, [line for line, is_one in zip(lines, begins) if line and not is_one]


def no_commands(start):
    """Lines of indented blocks that begin so and are no commands."""
    return [line for _, kind, text in pieces() if kind == "block" for line in split(text)[1]
            if re.match(start, line)]


def reason(command):
    return next((why for start, why in NOT_TYPED.items() if command.startswith(start)), None)


def smaller(section, words, encoder):
    """The flags that are added to a command; of one given twice the last counts."""
    module = words[2].removeprefix("stackgan_tf.")
    assert module in SMALLER, f"say in SMALLER or NOT_TYPED how {' '.join(words)} is to be run"
    more = list(SMALLER[module])
    if module == "train":
        first = "--stage=1" in words
        more += [f"--image_size={16 if first else 128 if section.startswith('Weights') else 32}"]
        if first and section in ("Your own pictures", "Data sets of TFDS", "Large sets"):
            more += [f"--text_encoder={encoder}"]
    if section not in ALONE and module in ("train", "train_text_encoder", "inspect_data"):
        more += DRAWN
    if "--count=30000" in words:
        more += ["--count=20"]
    if any("r_precision" in word for word in words):  # needs 100 captions; test_evaluate.py's
        more += ["--metrics=kid,precision_recall,diversity"]
    if "--dataset=webdataset" in words:
        more += ["--output=TARS"]  # OUT is made of the line above
    if not words[3:]:  # where the README names the command alone
        more += {"prepare": ["--dataset=folder", "--data_dir=PICTURES", "--output=OUT"],
                 "sample": ["--captions=a red flower"]}.get(module, [])
    return more


def make_default(root):
    """A reader's folder: captions, pictures, weights, and a judge that need not be trained."""
    (root / "PICTURES").mkdir(parents=True)
    (root / "captions.txt").write_text("a red flower\na blue flower\n")
    make_folder(root / "PICTURES", 8)
    write_zip(root / "F", weights(1, **SMALL))
    margin = PRESETS["drawn_flowers"][""]["crop_margin"]
    judge = root / f"checkpoints/attribute_classifier/margin-{margin}"

    def classify(images):  # always the first value of each attribute
        return {name: tf.zeros([tf.shape(images)[0], len(ATTRIBUTES[name])]) for name in ATTRIBUTES}

    spec = tf.TensorSpec([None, 64, 64, 3], tf.float32, "images")
    checkpoint.export(str(judge / "saved_model"), [], {"serve": (classify, [spec])})
    (judge / "classifier.json").write_text(json.dumps({"accuracy": dict.fromkeys(
        [*ATTRIBUTES, "mean"], 0.5), "settings": {
            "dataset_version": str(DrawnFlowers.VERSION),
            "classifier_version": attribute_classifier.VERSION, "crop_margin": margin,
            "images_per_class": Config.images_per_class, "steps": 1500}}))


def make_data(root, line):
    """The data that the other sections speak of; `line` is the README's of captions.jsonl."""
    own, birds, sets, large, torch = (root / section for section in ALONE)
    (own / "DIR/images").mkdir(parents=True)
    make_folder(own / "DIR", 8)
    example = json.loads(line)
    Image.fromarray(picture(3)).save(own / "DIR" / example["file"])
    with open(own / "DIR/captions.jsonl", "a") as file:
        file.write(line + "\n")
    write_split(birds / "data/birds/train", pickled=(76,))
    write_split(birds / "data/birds/test", 2, NAMES[:4], CLASSES[:4], pickled=(76,))
    sets.mkdir()
    write(sets / "DIR", "my_set", {"image": tfds.features.Image(shape=(20, 30, 3)),
                                   "caption": tfds.features.Text()},
          [{"image": picture(i), "caption": f"number {i}"} for i in range(8)], train=8, test=4)
    (large / "DIR").mkdir(parents=True)
    make_folder(large / "DIR", 8)
    tar(large / "DIR/0.tar", sum((tar_members(i) for i in range(4)), []))
    write_split(torch / "DIR/train", pickled=(76, 304))
    write_zip(torch / "netG_epoch_90.pth", weights(1, **SMALL))
    np.save(torch / "FILE.npy", np.ones((3, SMALL["text"]), np.float32))


MOCK = "import sys, tensorflow_datasets as t; sys.mock = t.testing.mock_data(num_examples=8); "


def tasks(root, encoder):
    """[folder, module, arguments] of all: of the reader's own folder, and of the others."""
    mine, others, seen = [], [], set()
    for section, kind, text in pieces():
        alone = section if section in ALONE else "default"
        folder, todo = str(root / alone), mine if alone == "default" else others
        if kind == "python":
            if "localhost" not in text:  # those are test_export.py's, which has a server
                todo.append([folder, "", [text]])
            continue
        for command in split(text)[0]:
            words = shlex.split(command, comments=True)
            if reason(command) or section == MACHINES or (alone, *words) in seen:
                continue
            seen.add((alone, *words))
            mocked = "--dataset=coco_captions" in words  # the set itself is a download
            todo += [[folder, "", [MOCK + "sys.mock.__enter__()"]]] * mocked
            todo.append([folder, words[2], words[3:] + smaller(section, words, encoder)])
            todo += [[folder, "", ["import sys; sys.mock.__exit__(None, None, None)"]]] * mocked
    return mine, others


def typed(some):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", os.path.join(ROOT, "tests/typed.py"), json.dumps(some)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": ROOT})


def test_commands_and_python_blocks_run(tmp_path, encoder):
    make_default(tmp_path / "default")
    make_data(tmp_path, *no_commands("{"))
    both = tasks(tmp_path, encoder)
    assert len(both[0]) > 20 and len(both[1]) > 12
    processes = [typed(some) for some in both]  # side by side
    said = [process.communicate(timeout=600)[0] for process in processes]
    print(*said)
    for process, output in zip(processes, said):
        assert process.returncode == 0, output[-3000:]
    default = tmp_path / "default"
    run = default / "checkpoints/default"
    made = {path.name for path in (run / "samples").glob("*/*")}
    assert made >= {"grid.png", "strip.png", "animation.gif", "animation.png", "animation.webp",
                    "truncation.png", "epsilon_scale.png", "text_strength.png", "neighbors.png"}
    assert len(list((default / "DIR").glob("*.png"))) == 20
    assert Image.open(default / "flower.png").size == (32, 32)  # the Python block's
    (tree,) = no_commands(r" +config\.json")
    assert all((run / "stage1" / name).exists() for name in tree.split())


def test_no_command_is_forgotten():
    """Each program's name begins a command that is typed, or one of the list; no reason is idle."""
    found = [command for _, kind, text in pieces() if kind != "python"
             for command in split(text)[0]]
    assert {command.split()[0] for command in found} == set(PROGRAMS)
    for start in NOT_TYPED:
        assert any(command.startswith(start) for command in found), start
    others = [command for command in found if not reason(command)]
    assert all(command.startswith("python -m stackgan_tf.") for command in others), others


def test_blocks_that_are_no_commands():
    """Each line is a kind that is looked at here or above."""
    known = [r"{", r" +config\.json", r"checkpoints/<run>/", r"captions --\(text_encoder\)-->",
             r"export TF_CONFIG=", r' +\["10\.0\.0\.1:', r"TPU_LOAD_LIBRARY=0 python -m ",
             r"\w+ { value: \d+ }"]
    for line in no_commands(""):
        assert any(re.match(start, line) for start in known), line
    # session_bundle_config.proto of TensorFlow Serving: what an unknown name is refused by
    names = {line.split()[0] for line in no_commands(known[-1])}
    assert names == {"max_batch_size", "batch_timeout_micros", "num_batch_threads",
                     "max_enqueued_batches"}
    assert {kind for _, kind, _ in pieces()} == {"python", "block", "inline"}


# The programs of benchmarks/, on less than they measure; {} is their arguments.
LESS = {
    "layer_forms": ("m.UP, m.DOWN = m.UP[:1], m.DOWN[-1:]", ["--batch_size=1", "--rounds=1"]),
    "input_pipeline": (
        "m.WAYS, m.SIZES = ('bare', 'folder'), m.SIZES[:1]; m.os.sched_getaffinity = lambda _: {0};"
        "m.run = lambda task, folder, values: m.measure(task[0], *task[1], folder, values.seconds, "
        "values.batch_size)", ["--pictures=4", "--batch_size=2", "--seconds=0.01", "--rounds=1"]),
    "throughput": ("", []),  # test_throughput.py runs it short
}


@pytest.mark.slow
def test_benchmarks(tmp_path):
    """What the README types is parsed by the program itself, which then does a little of it."""
    found = [shlex.split(command, comments=True) for _, kind, text in pieces() if kind != "python"
             for command in split(text)[0] if command.startswith("python -m benchmarks.")]
    todo = []
    for words in found:
        name = words[2].removeprefix("benchmarks.")
        change, more = LESS[name]
        main = "" if name == "throughput" else "; m.main([])"
        todo.append([str(tmp_path), "", [
            f"import importlib as i, sys; from absl import flags; name = 'benchmarks.{name}'; "
            # the second time it must define its flags again
            "m = i.reload(sys.modules[name]) if name in sys.modules else i.import_module(name); "
            f"flags.FLAGS({[name, *words[3:], *more]}); {change}{main}"]])
    process = typed(todo)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert len(re.findall(r"^(float32|bfloat16) +(up|down) ", output, re.M)) == 4
    assert len(re.findall(r"^ +1 +64 +(bare|folder) +\d+ ", output, re.M)) == 2
