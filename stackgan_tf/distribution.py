"""Devices that train together: of one machine, of several, or of a TPU. All of tf.distribute.

Each device is a replica: it has its copy of the weights, takes its rows of the step's batch, and
adds its gradients to the others'. What is learnt follows from the batch, not from how many share
it (but for rounding), so a run may change its devices at any checkpoint. `Cluster.check` refuses
numbers of devices with which that would not be so.

With several machines each runs the same command, a worker. The first one, the chief, writes all
that is written; the others only train. They must see the same --checkpoint_dir.
"""

import contextlib
import json
import math
import os
import re
import sys
import time
import traceback
import zlib

import numpy as np
import tensorflow as tf

from stackgan_tf import losses
from stackgan_tf.config import Config, UserError, check_choice, explain, to_flags
from stackgan_tf.messages import fail, reason

# What TensorFlow raises in a worker when another one has gone, and what it says then: its own
# errors, of CUDA or of a disk, are of these classes too.
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
        tf.errors.DeadlineExceededError, tf.errors.InternalError, tf.errors.FailedPreconditionError)
OF_OTHERS = re.compile("Collective ops is aborted|GRPC error|coordination|heartbeat|"
                       "Connection reset|Socket closed|Broken pipe|failed to connect", re.I)
SHARED_WITHIN = 60  # seconds; file systems like NFS may show a new file that late


def start(kind: str, tpu: str) -> "Cluster":
    """The devices of --distribute and --tpu. Several machines must start so, before anything else
    of TensorFlow runs; they wait for each other here."""
    kind = choose(kind, tpu)
    if kind == "multi_worker":
        worker, addresses = read_tf_config()
        if len(addresses) > 1:
            return _workers(worker, addresses)
    if kind == "tpu":
        return Cluster(_tpu(tpu or os.environ.get("TPU_NAME") or "local"))
    if kind != "none":  # one machine
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            return Cluster(tf.distribute.MirroredStrategy([device.name for device in devices]))
    return Cluster()


def choose(kind: str, tpu: str) -> str:
    """What --distribute=auto is on this machine; the others as they are. UserError if they do not
    go with the rest."""
    check_choice("distribute", kind)
    if tpu and kind not in ("auto", "tpu"):
        raise UserError(f"--tpu={tpu} has no use with --distribute={kind}; leave one out.")
    if kind == "multi_worker" and not read_tf_config():
        raise UserError("--distribute=multi_worker finds the other machines in the environment "
                        "variable TF_CONFIG, which is not set here; see the README, or leave it "
                        "out.")
    if kind != "auto":
        return kind
    if tpu or tf.config.list_physical_devices("TPU"):
        return "tpu"
    if read_tf_config():
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "none"


def read_tf_config() -> tuple[int, list[str]] | None:
    """(this worker's number, the workers' addresses) of TF_CONFIG; None if it names no cluster."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        given = json.loads(text or "{}")
        jobs = given.get("cluster") or {}
        others = set(jobs) - {"chief", "worker"}
        addresses = [*jobs.get("chief", ()), *jobs.get("worker", ())]
        if not jobs:
            return None
        task, index = given["task"]["type"], int(given["task"]["index"])
        if others or len(jobs.get("chief", ())) > 1:
            raise ValueError("its jobs may be one chief and any number of workers")
        if not all(isinstance(one, str) and one.rpartition(":")[2].isdigit() for one in addresses):
            raise ValueError("an address is not of the form host:port")
        if task not in jobs or not 0 <= index < len(jobs[task]):
            raise ValueError(f"it has no {task} {index}")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, LookupError) else error
        raise UserError(f"TF_CONFIG={text[:200]} cannot be read ({what}); see the README for one "
                        "that can.") from error
    return index + (task == "worker" and len(jobs.get("chief", ()))), addresses


def _workers(worker, addresses):
    place = f"worker {worker} of {len(addresses)}"
    print(f"{place}: waiting for the others", flush=True)
    for gpu in tf.config.list_physical_devices("GPU"):
        # or the text encoder, which has a process of its own, would find no room there
        tf.config.experimental.set_memory_growth(gpu, True)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(f"{place} cannot start at {addresses[worker]}: {reason(error)}; is the "
                        "port free, and have all machines the same cluster in TF_CONFIG?"
                        ) from error
    return Cluster(strategy, worker, len(addresses))


def _tpu(name):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(name)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(f"the TPU {name!r} cannot be used: {reason(error)}; on a TPU VM run pip "
                        "install tensorflow-tpu, elsewhere give --tpu=NAME, or leave out "
                        "--distribute=tpu.") from error


class Cluster:
    """The devices that train, and the processes that have them.

    Attributes:
        strategy: the tf.distribute.Strategy; what it has several copies of is made in its scope.
        replicas: how many devices there are in all.
        worker, workers: number of this process, and how many there are.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, worker: int = 0,
                 workers: int = 1):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.worker, self.workers = worker, workers
        self.replicas = self.strategy.num_replicas_in_sync
        self.is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self.worker == 0

    @property
    def is_plain(self) -> bool:
        """Whether there is one device, used as without tf.distribute."""
        return self.replicas == 1 and not self.is_tpu

    @property
    def feeds_from_here(self) -> bool:
        """Whether the devices' machines cannot run Python, so that this one makes all batches."""
        return self.is_tpu and self.strategy.extended.num_hosts > 1

    def check(self, config: Config) -> None:
        """UserError for what does not go with these devices."""
        if config.batch_size % self.replicas:
            fits = max(self.replicas, config.batch_size - config.batch_size % self.replicas)
            raise UserError(f"--batch_size={config.batch_size} is not divisible by the "
                            f"{self.replicas} devices in use; try {fits}.")
        self._check_groups(config)
        if config.precision == "mixed_float16" and not self.is_plain:
            # each replica would keep a loss scale of its own (Keras 3.15)
            raise UserError("--precision=mixed_float16 trains on one GPU only, and "
                            f"{self.replicas} devices are in use; take mixed_bfloat16 or float32, "
                            "or add --distribute=none.")
        if config.jit_compile == "on" and self.replicas > 1 and not self.is_tpu:
            raise UserError(f"--jit_compile=on is for one device or a TPU, and {self.replicas} "
                            "devices are in use; leave it out.")
        if config.jit_compile == "off" and self.is_tpu:
            raise UserError("--jit_compile=off: a TPU runs what XLA compiled and nothing else; "
                            "leave it out.")
        if config.steps_per_call > 1 and self.feeds_from_here:
            raise UserError(f"--steps_per_call={config.steps_per_call}: a TPU pod gets each step's "
                            "batch from this machine; leave it out.")

    def _check_groups(self, config):
        """UserError if a device's pictures cannot be cut as those of the whole batch are: into
        those with a penalty and those without, and each of these into groups; and into those that
        are drawn again and those that are not."""
        rows, group = config.batch_size // self.replicas, config.minibatch_std
        every = config.r1_every if config.r1_weight or config.ma_gp_weight else 1
        again = losses.AGAIN_EVERY if config.mode_seeking_weight else 1
        for step, what, done in (
                (every, f"--r1_every={every}", "penalized"),
                (again, f"--mode_seeking_weight={config.mode_seeking_weight} draws one in {again} "
                        f"captions again, and {again}", "drawn again")):
            if self.replicas > 1 and rows % step:
                both = math.lcm(every, again)
                fits = self.replicas * both * max(1, rows // both)
                raise UserError(f"{what} does not divide the {rows} pictures of each of "
                                f"{self.replicas} devices at --batch_size={config.batch_size}: "
                                f"others would be {done} than on one device; try "
                                f"--batch_size={fits}, or for a run that has begun fewer devices.")
        some = -(-rows // every)
        if group and (some % group or rows % group):
            parts = f"{some} and {rows - some}" if rows > some else f"{rows}"
            why = f", cut in two by --r1_every={config.r1_every}," if rows > some else ""
            fits = math.gcd(some, rows)
            raise UserError(f"--minibatch_std={group} does not divide the {parts} pictures of a "
                            f"device{why} at --batch_size={config.batch_size}; "
                            + (f"try --minibatch_std={fits}." if fits > 1
                               else "take another --batch_size, or 0."))

    def jit_compile(self, wanted: bool) -> bool:
        """Whether the step is to be compiled: a TPU does so by itself, and several devices of
        other kinds go without."""
        return wanted and self.is_plain

    def steps_per_call(self, wanted: int) -> int:
        return 1 if self.feeds_from_here else wanted

    def gather(self, numbers: list[int]) -> np.ndarray:
        """Every worker's numbers, int64 (workers, n). All workers must come here, and wait here
        for the last one."""
        if self.workers == 1:
            return np.array([numbers])
        table = np.zeros((self.workers, len(numbers)), np.int64)
        table[self.worker] = numbers
        return self.strategy.reduce("SUM", tf.constant(table), axis=None).numpy()

    def of_chief(self, number: int) -> int:
        """The chief's number, for all workers; waits as `gather` does."""
        return int(self.gather([number])[0, 0])

    def largest(self, number: int) -> int:
        """The largest of all workers' numbers; waits as `gather` does."""
        return int(self.gather([number]).max())

    def chief_first(self, function):
        """function() in every worker, but in the others when it is done in the chief, so that what
        it writes is written once."""
        if self.is_chief:
            made = function()
        self.of_chief(0)
        return made if self.is_chief else function()

    def compare(self, config: Config) -> None:
        """UserError if the workers were started in different ways."""
        lines = [*to_flags(config), f"devices={self.replicas // self.workers}"]
        rows = self.gather([zlib.crc32(line.encode()) for line in lines])
        odd = [line.split("=")[0] for line, column in zip(lines, rows.T, strict=True)
               if len(set(column)) > 1]
        if odd:
            raise UserError(f"the workers differ in {', '.join(odd)}; start all of them with the "
                            "same command, on machines alike.")

    def expect_same(self, number: int, what: str) -> None:
        """UserError unless all workers have the same number of something."""
        numbers = self.gather([number])[:, 0].tolist()
        if len(set(numbers)) > 1:
            raise UserError(f"the workers do not have the same data: {numbers} {what}, from worker "
                            "0 on; give all machines the same --data_dir.")

    def expect_shared(self, path: str) -> None:
        """UserError if a file that the chief has written is not there for this worker."""
        if self.is_chief:
            return
        until = time.monotonic() + SHARED_WITHIN
        while not tf.io.gfile.exists(path):
            if time.monotonic() > until:
                raise UserError(f"worker {self.worker} does not see {path}, which the chief has "
                                "written; give a --checkpoint_dir that all machines share, on NFS "
                                "or gs:// for example.")
            time.sleep(1)

    @contextlib.contextmanager
    def together(self):
        """In this block the chief alone prints, and nobody ends before all have come to its end.
        Who fails ends at once, whereupon the others do, with a line that says so."""
        if self.workers == 1:
            yield
            return
        place = f"worker {self.worker} of {self.workers}"
        reports = "" if self.is_chief else "; worker 0, the chief, reports"
        print(f"{place}: all are there{reports}", flush=True)
        with contextlib.ExitStack() as stack:
            if not self.is_chief:
                stack.enter_context(contextlib.redirect_stdout(
                    stack.enter_context(open(os.devnull, "w"))))
            try:
                yield
                self.gather([0])
            except BaseException as error:
                if isinstance(error, GONE) and OF_OTHERS.search(str(error.message)):
                    code = fail(f"{place} stops, since another one has ended or cannot be reached "
                                f"({_first_cause(error)}); what happened, that one has said. The "
                                "same command on all of them goes on from the last checkpoint.", 1)
                elif (code := explain(error)) is None:
                    traceback.print_exc()
                    code = 1
                _end(code)

    def spread(self, batches: tf.data.Dataset):
        """Iterator over batches for the strategy, each replica its rows in order.

        Args:
            batches: dicts of tensors (rows of this worker, ...), the first size static.
        """
        count = self.replicas // self.workers

        def cut(batch):
            return {name: tf.reshape(rows, [count, rows.shape[0] // count, *rows.shape[1:]])
                    for name, rows in batch.items()}

        parts = batches.map(cut)
        if self.feeds_from_here:
            return map(self._values, parts)
        # Nobody reads past the end, which all workers would have to agree on at every step.
        self.strategy.extended.experimental_enable_get_next_as_optional = False
        parts = parts.unbatch().prefetch(2 * count)
        return iter(self.strategy.distribute_datasets_from_function(lambda _: parts))

    def _values(self, parts):
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: {name: rows[context.replica_id_in_sync_group]
                             for name, rows in parts.items()})


def _end(code):
    """Ends the process without TensorFlow's farewell, which waits minutes for lost workers."""
    for stream in (sys.stderr, sys.__stdout__):
        if stream is not None:  # closed
            stream.flush()
    os._exit(code)


def _first_cause(error):
    """The first line of what went wrong first."""
    found = re.search(r"aborted by: (.+)", error.message or "")
    return (found[1] if found else str(error.message).strip().splitlines()[-1])[:200]
