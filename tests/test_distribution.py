"""Several devices and several machines compute what one device does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, command, tiny_flags
from test_train import logged, variables
from two_replicas import BAD, CASES, SEEDS

from stackgan_tf import distribution
from stackgan_tf.config import UserError

STEPS = 6
# float32 sums in another order, through six steps of Adam. It divides by the gradient's size, so
# where that is rounding itself, a weight may move by the learning rate in either direction.
WEIGHTS, LOSSES = 6 * 2e-4, 2e-4


def cluster_of(replicas, is_tpu=False, hosts=1):
    """A Cluster of so many devices, which need not be there."""
    one = distribution.Cluster()
    one.replicas, one.is_tpu = replicas, is_tpu
    one.strategy = type("Strategy", (), {"extended": type("Extended", (), {"num_hosts": hosts})})
    return one


def tf_config(*addresses, index=0, job="worker", **jobs):
    return json.dumps({"cluster": {"worker": list(addresses), **jobs},
                       "task": {"type": job, "index": index}})


# What is chosen


@pytest.mark.parametrize("kind, tpu, gpus, tpus, machines, chosen", [
    ("auto", "", 0, 0, 0, "none"), ("auto", "", 1, 0, 0, "none"), ("auto", "", 8, 0, 0, "mirrored"),
    ("auto", "", 8, 0, 4, "multi_worker"), ("auto", "", 0, 0, 2, "multi_worker"),
    ("auto", "", 0, 8, 0, "tpu"), ("auto", "pod", 0, 0, 0, "tpu"), ("tpu", "pod", 0, 0, 0, "tpu"),
    ("none", "", 8, 0, 4, "none"), ("mirrored", "", 8, 0, 4, "mirrored"),
])
def test_auto_takes_what_is_there(monkeypatch, kind, tpu, gpus, tpus, machines, chosen):
    monkeypatch.setattr(tf.config, "list_physical_devices",
                        lambda kind: [None] * {"GPU": gpus, "TPU": tpus}[kind])
    addresses = [f"10.0.0.{i}:2222" for i in range(machines)]
    monkeypatch.setenv("TF_CONFIG", tf_config(*addresses) if machines else "")
    assert distribution.choose(kind, tpu) == chosen


def test_the_chief_comes_before_the_workers(monkeypatch):
    jobs = {"chief": ["a:1"]}
    for job, index, expected in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", tf_config("b:1", "c:1", index=index, job=job, **jobs))
        assert distribution.read_tf_config() == (expected, ["a:1", "b:1", "c:1"])
    monkeypatch.setenv("TF_CONFIG", '{"task": {"type": "worker", "index": 0}}')
    assert distribution.read_tf_config() is None


@pytest.mark.parametrize("text, words", [
    ("{", "Expecting property name"), ("[1]", "TF_CONFIG=[1] cannot be read"),
    ('{"cluster": {"worker": ["a:1", "b:1"]}}', "'task' is missing"),
    (tf_config("a:1", "b:1", index=2), "it has no worker 2"),
    (tf_config("a:1", index=0, job="boss"), "it has no boss 0"),
    (tf_config("a", "b"), "an address is not of the form host:port"),
    (tf_config("a:1", ps=["b:1"]), "its jobs may be one chief and any number of workers"),
    (tf_config("a:1", index="x"), "invalid literal"),
    ('{"cluster": {"worker": 7}, "task": {"type": "worker", "index": 0}}', "iterable"),
])
def test_a_tf_config_that_cannot_be_read_is_said(monkeypatch, text, words):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="see the README") as caught:
        distribution.choose("auto", "")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_readme_s_tf_config_can_be_read(monkeypatch):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        (text,) = re.findall(r"export TF_CONFIG='(.+?)'", file.read(), re.S)
    monkeypatch.setenv("TF_CONFIG", text)
    worker, addresses = distribution.read_tf_config()
    assert worker == 0 and len(addresses) == 4


@pytest.mark.parametrize("kind, tpu, words", [
    ("all", "", "--distribute=all is unknown; choose one of auto, none, mirrored"),
    ("none", "pod", "--tpu=pod has no use with --distribute=none"),
    ("multi_worker", "", "TF_CONFIG, which is not set here"),
    ("tpu", "", "the TPU 'local' cannot be used: .* give --tpu=NAME"),
])
def test_refused_at_the_start(monkeypatch, kind, tpu, words):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(UserError, match=words):
        distribution.start(kind, tpu)


@pytest.mark.parametrize("cluster, changes, words", [
    (cluster_of(4), {"batch_size": 50},
     "--batch_size=50 is not divisible by the 4 devices in use; try 48."),
    (cluster_of(8), {"batch_size": 6}, "by the 8 devices in use; try 8."),
    (cluster_of(1), {"minibatch_std": 3}, "--minibatch_std=3 does not divide the 4 pictures of a "
                                          "device at --batch_size=4; try --minibatch_std=4."),
    (cluster_of(2), {"batch_size": 16, "minibatch_std": 4, "r1_weight": 1.0, "r1_every": 4,
                     "discriminator_norm": "none"},
     "the 2 and 6 pictures of a device, cut in two by --r1_every=4, at --batch_size=16; "
     "try --minibatch_std=2."),
    (cluster_of(1), {"batch_size": 5, "minibatch_std": 4, "r1_weight": 1.0, "r1_every": 2,
                     "discriminator_norm": "none"}, "take another --batch_size, or 0."),
    (cluster_of(4), {"batch_size": 8, "ma_gp_weight": 2.0, "r1_every": 4,
                     "discriminator_norm": "none"},
     "--r1_every=4 does not divide the 2 pictures of each of 4 devices at --batch_size=8: .*"
     "try --batch_size=16, or for a run that has begun fewer devices."),
    (cluster_of(2), {"batch_size": 12, "mode_seeking_weight": 0.5},
     "--mode_seeking_weight=0.5 draws one in 4 captions again, and 4 does not divide the 6 "
     "pictures of each of 2 devices at --batch_size=12: .* try --batch_size=8, or"),
    (cluster_of(2), {"batch_size": 14, "r1_weight": 0.1, "r1_every": 3,
                     "discriminator_norm": "none"}, "try --batch_size=12, or"),
    (cluster_of(2), {"precision": "mixed_float16"}, "--precision=mixed_float16 .* 2 devices"),
    (cluster_of(2), {"jit_compile": "on"}, "--jit_compile=on is for one device or a TPU"),
    (cluster_of(8, True), {"batch_size": 8, "jit_compile": "off"}, "--jit_compile=off: a TPU"),
    (cluster_of(8, True, 4), {"batch_size": 8, "steps_per_call": 2}, "--steps_per_call=2: a TPU p"),
])
def test_what_does_not_go_with_the_devices(tiny, cluster, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        cluster.check(tiny(**changes))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_shared_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(distribution, "SHARED_WITHIN", 0)
    cluster, path = distribution.Cluster(), str(tmp_path / "config.json")
    cluster.expect_shared(path)  # the chief's own
    cluster.worker = 1
    with pytest.raises(UserError, match=f"worker 1 does not see {path}.*all machines share"):
        cluster.expect_shared(path)
    (tmp_path / "config.json").write_text("{}")
    cluster.expect_shared(path)


def test_workers_with_other_data_are_refused(monkeypatch):
    cluster = distribution.Cluster()
    cluster.expect_same(12, "pictures")
    monkeypatch.setattr(cluster, "gather", lambda numbers: np.array([numbers, [11], numbers]))
    with pytest.raises(UserError, match=r"\[12, 11, 12\] pictures.*the same --data_dir"):
        cluster.expect_same(12, "pictures")


@pytest.mark.parametrize("error, code, words", [
    (tf.errors.UnavailableError(None, None, "Collective ops is aborted by: Connection reset\nmore"),
     1, r"error: worker 1 of 2 stops, since another one has ended .* \(Connection reset\); .*\n"),
    (tf.errors.InternalError(None, None, "CUDA_ERROR_ILLEGAL_ADDRESS"), 1,
     r"Traceback(?s:(?!another one).)*InternalError: CUDA_ERROR_ILLEGAL_ADDRESS\n"),
    (tf.errors.FailedPreconditionError(None, None, "/data is no folder"), 1,
     r"Traceback(?s:(?!another one).)*Error: /data is no folder\n"),
    (UserError("no\nmore \x1b[31mroom" + 2000 * "!"), 1, r"error: no\\nmore \\x1b\[31mroom!{,1000} "
                                                        r"\.\.\. !+\n"),
    (OSError(28, "No space left on device", "/data"), 1,
     "error: /data: No space left on device; make room.\n"),
    (KeyboardInterrupt(), 130, "stopped\n"),
])
def test_what_ends_a_worker_is_said(monkeypatch, capsys, error, code, words):
    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit) as caught, distribution.Cluster(None, 1, 2).together():
        raise error
    assert caught.value.code == code
    assert re.fullmatch(words, capsys.readouterr().err)


def test_a_cluster_of_one_machine_is_that_machine(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config("10.0.0.1:2222"))
    assert distribution.start("multi_worker", "").is_plain


def test_one_device_takes_everything(tiny):
    r1 = {"r1_weight": 0.1, "discriminator_norm": "none"}
    for changes in ({"batch_size": 5}, {"precision": "mixed_float16"}, {"jit_compile": "on"},
                    {"batch_size": 5, "r1_every": 2, **r1}):
        distribution.Cluster().check(tiny(**changes))
    cluster_of(4).check(tiny(batch_size=16, r1_every=4, **r1))
    cluster_of(4).check(tiny(batch_size=8, r1_every=4))  # without a penalty


# Two devices of one machine

every_case = pytest.mark.parametrize("case", ["stage 1", *(
    pytest.param(case, marks=pytest.mark.slow) for case in CASES if case != "stage 1")])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, folder, encoder, stage1_path):
    """trained(case) -> (checkpoint_dir with the runs `one` and `two`, what two_replicas.py says):
    the same training on one device and on two."""
    made = {}

    def make(case):
        if case not in made:
            root = str(tmp_path_factory.mktemp("replicas"))
            script = os.path.join(os.path.dirname(__file__), "two_replicas.py")
            done = subprocess.run(
                [sys.executable, script, case, root, folder, encoder, stage1_path],
                capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ROOT})
            assert not done.returncode, done.stderr[-3000:]
            made[case] = root, json.loads(done.stdout.splitlines()[-1])
        return made[case]

    return make


@every_case
def test_two_devices_compute_what_one_does(trained, case):
    _, found = trained(case)
    print(found)
    assert found["losses"] < LOSSES and found["weights"] < WEIGHTS
    assert found["statistics"] < 1e-4 and found["gradients"] < 1e-3
    assert found["images"] < 1e-3


@every_case
def test_a_run_goes_on_with_another_number_of_devices(trained, case):
    _, found = trained(case)
    assert found["two from two"] == 0.0  # bit for bit
    assert found["one from two"] < WEIGHTS and found["two from one"] < WEIGHTS


def test_noise_and_pictures_are_those_of_one_device_cut_in_two(trained):
    _, found = trained("stage 1")
    assert found["noise"] == 0.0 and found["noise of the rows"] > 0.1
    assert found["batches"] == [0.0] * 4


def test_what_is_not_finite_on_one_device_is_known_to_all(trained):
    _, found = trained("stage 1")
    first, second = found["bad step"]
    assert first == second and first[0] == 42 and first[1] > 0


def test_two_devices_roll_back_as_one_does(trained):
    _, found = trained("stage 1")
    assert found["rolled back"] < WEIGHTS


# Two machines


class Workers:
    """`python -m stackgan_tf.train`, or another program, on so many machines, all of them this one.
    """

    started = []

    def __init__(self, folder, *flags, count=2, environment=None,
                 program=("-m", "stackgan_tf.train")):
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        self.outputs = [os.path.join(folder, f"worker{i}.txt") for i in range(count)]
        self.processes = []
        for i, output in enumerate(self.outputs):
            own = flags[i] if flags and isinstance(flags[0], list) else flags
            with open(output, "w") as file:
                self.processes.append(subprocess.Popen(
                    [sys.executable, *program, *own], cwd=ROOT, stdout=file,
                    stderr=subprocess.STDOUT, env={**os.environ, "TF_CONFIG": tf_config(
                        *addresses, index=i), **(environment or {})}))
        self.started += self.processes

    def text(self, i):
        with open(self.outputs[i]) as file:
            return file.read()

    def error(self, i):
        """The last line that a worker says."""
        return self.text(i).strip().splitlines()[-1]

    def wait_for(self, i, words, seconds=240):
        until = time.monotonic() + seconds
        while words not in self.text(i):
            assert all(one.poll() is None for one in self.processes), self.text(i)
            assert time.monotonic() < until, self.text(i)
            time.sleep(0.05)

    def wait(self, seconds=240):
        """The exit codes."""
        return [one.wait(seconds) for one in self.processes]


@pytest.fixture(autouse=True)
def no_worker_stays():
    yield
    while Workers.started:
        Workers.started.pop().kill()


@pytest.fixture
def flags(folder, encoder, tmp_path):
    def make(stage=1, **changes):
        return tiny_flags(stage, **{
            "checkpoint_dir": tmp_path, "dataset": "folder", "data_dir": folder, "log_steps": 1,
            "text_encoder": encoder, "run": "workers", "seed": SEEDS[stage], **changes})
    return make


def test_two_machines_compute_what_one_does(trained, flags, tmp_path):
    root, _ = trained("stage 1")
    workers = Workers(tmp_path, *flags(checkpoint_dir=root))
    assert workers.wait() == [0, 0], workers.text(0)
    assert "stage 1: step 6/6" in workers.text(0) and "done: " in workers.text(0)
    assert "worker 1 of 2: all are there; worker 0, the chief, reports" in workers.text(1)
    assert "stage 1" not in workers.text(1)
    same(variables(root, "workers", 1, STEPS), variables(root, "one", 1, STEPS))
    ours, theirs = (logged(os.path.join(root, run, "stage1"), "loss/discriminator")
                    for run in ("workers", "one"))
    assert list(ours) == list(range(1, STEPS + 1)) and ours == pytest.approx(theirs, abs=LOSSES)
    part = os.path.join(root, "workers", "stage1")
    assert sorted(os.listdir(os.path.join(part, "ckpt"))) == ["step-00000003", "step-00000006"]


def same(ours, theirs):
    assert ours.keys() == theirs.keys() and len(ours) > 50
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=WEIGHTS, err_msg=name)


POISONED = """
from two_replicas import poison
from stackgan_tf import config, train
poison()
config.define_flags()
config.run_cli(train.main)
"""


@pytest.mark.slow
def test_two_machines_roll_back_to_the_start_as_one_does(trained, flags, tmp_path):
    root, _ = trained("stage 1")
    workers = Workers(tmp_path, *flags(checkpoint_dir=root, run="workers_back",
                                       on_nan="rollback"), program=("-c", POISONED), environment={
        "PYTHONPATH": os.pathsep.join([ROOT, os.path.dirname(__file__)])})
    assert workers.wait() == [0, 0], workers.text(0)
    assert f"at step {BAD}; going on from the checkpoint of step 0 without" in workers.text(0)
    same(variables(root, "workers_back", 1, STEPS), variables(root, "one back", 1, STEPS))


@pytest.mark.slow
def test_two_machines_train_stage2_and_go_on_bit_for_bit(trained, flags, stage1_path, tmp_path):
    root, _ = trained("stage 2")
    given = {"stage1": stage1_path, "checkpoint_dir": root}
    for run, steps in (("workers", 6), ("halves", 3), ("halves", 6)):
        workers = Workers(tmp_path, *flags(2, run=run, train_steps=steps, **given))
        assert workers.wait() == [0, 0], workers.text(0)
    assert "going on from the checkpoint of step 3" in workers.text(0)
    whole, halves = (variables(root, run, 2, STEPS) for run in ("workers", "halves"))
    same(whole, variables(root, "one", 2, STEPS))
    for name, value in whole.items():
        np.testing.assert_array_equal(halves[name], value, name)
    command("train", *flags(2, run="halves", **{**given, "train_steps": 9}))  # alone
    assert variables(root, "halves", 2, 9)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_worker_ends_the_others_and_the_job_goes_on(flags, tmp_path, lost):
    endless = flags(train_steps=100_000, checkpoint_steps=4)
    workers = Workers(tmp_path, *endless)
    workers.wait_for(0, "step 9/")
    begin = time.monotonic()
    workers.processes[lost].kill()
    workers.processes[1 - lost].wait(120)
    seconds = time.monotonic() - begin
    assert workers.wait()[1 - lost] == 1
    said = workers.error(1 - lost)
    assert said.startswith(f"error: worker {1 - lost} of 2 stops, since another one has ended or")
    assert "The same command on all of them goes on from the last checkpoint." in said
    print(f"worker {lost} killed: the other one ended after {seconds:.1f} s")
    assert seconds < 30
    steps = os.listdir(tmp_path / "workers" / "stage1" / "ckpt")
    saved = max(int(name[5:]) for name in steps if re.fullmatch(r"step-\d{8}", name))
    workers = Workers(tmp_path, *flags(train_steps=saved + 2))
    assert workers.wait() == [0, 0], workers.text(0)
    assert f"going on from the checkpoint of step {saved}\n" in workers.text(0)


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_worker_stops_all_with_a_checkpoint(flags, tmp_path, told):
    workers = Workers(tmp_path, *flags(train_steps=100_000, checkpoint_steps=1_000_000))
    workers.wait_for(0, "step 5/")
    workers.processes[told].send_signal(signal.SIGTERM)
    assert workers.wait() == [143, 143], workers.text(1)
    step = int(re.search(r"stopped by signal 15 after step (\d+), which is saved",
                         workers.text(0))[1])
    assert os.listdir(tmp_path / "workers" / "stage1" / "ckpt") == [f"step-{step:08d}"]


@pytest.mark.slow
def test_the_chief_trains_the_text_encoder_and_draws_the_data(flags, tmp_path):
    workers = Workers(tmp_path, *flags(text_encoder="", dataset="drawn_flowers", images_per_class=1,
                                       data_dir=tmp_path / "data", train_steps=2))
    assert workers.wait() == [0, 0], workers.text(0)
    assert "training it first" in workers.text(0) and "drawing 30 flowers" in workers.text(0)
    assert "drawing" not in workers.text(1) and "done: " in workers.text(0)


@pytest.mark.slow
def test_what_stops_one_worker_stops_the_others(flags, tmp_path):
    one, other = flags(), flags(seed=3, batch_size=6)
    workers = Workers(tmp_path, one, other)
    assert workers.wait() == [1, 1]
    errors = [workers.error(i) for i in range(2)]
    assert ("error: the workers differ in --seed, --batch_size; start all of them with the same "
            "command, on machines alike.") in errors
    assert all("workers differ" in one or "another one has ended" in one for one in errors)
    assert not os.path.exists(tmp_path / "workers")
    workers = Workers(tmp_path, *flags(batch_size=5))
    assert workers.wait() == [1, 1]
    assert "--batch_size=5 is not divisible by the 2 devices in use; try 4." in workers.text(0)
