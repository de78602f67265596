"""A worker of benchmarks/replicas.py: times the step, and what the workers tell each other."""

import os
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})  # before TensorFlow counts its processors

import tensorflow as tf  # noqa: E402

from benchmarks.processes import serve  # noqa: E402
from benchmarks.tf_side import make_training  # noqa: E402
from stackgan_tf import distribution, train_step  # noqa: E402
from stackgan_tf.config import Config  # noqa: E402

LEARNING_RATE = 1e-9  # weights that stay where they are, as in benchmarks/throughput.py


class Side:
    def __init__(self):
        self.cluster = distribution.start("auto", "")

    def load(self, settings, rows):
        """Makes the step for so many rows of this device; [[numbers, how many sums of so many]]."""
        with self.cluster.strategy.scope():
            make = make_training(Config(**settings), tempfile.mkdtemp(), LEARNING_RATE)
            self.step, graph = make(rows)
        self.step()
        sizes = [op.inputs[0].shape.num_elements() for op in graph().graph.get_operations()
                 if op.type.startswith("CollectiveReduce")]
        return [[size, sizes.count(size)] for size in sorted(set(sizes))]

    def steps(self, count):
        return seconds(self.step, count)

    def sums(self, numbers, count):
        """Of so many float32 numbers of each device."""
        values = tf.random.normal([numbers])

        @tf.function
        def add():
            return self.cluster.strategy.run(train_step.total, (values,))

        add()
        return seconds(lambda: add()[0].numpy(), count)

    def agreements(self, count):
        """On whether to stop, which the workers come to after each step."""
        return seconds(lambda: self.cluster.largest(0), count)


def seconds(call, count):
    """Of each of so many calls."""
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


if __name__ == "__main__":
    serve(Side)
