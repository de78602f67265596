"""What several workers cost: one processor core alone beside several that train together.

    python -m benchmarks.replicas                        # Stage-I at the paper's sizes, 2 workers
    python -m benchmarks.replicas --stage=2 --rows=4
    python -m benchmarks.replicas --width=16 --rows=4 --count=3     # a short try

Each worker is a process with one core of this machine; they sum over 127.0.0.1. Printed are
medians, and the range, which shows how quiet the machine was: of a step alone and of a step
together, of the sums that a step makes (their sizes are read from its graph), and of the agreement
whether to stop. docs/scaling.md puts such numbers together for more devices than are at hand.
"""

import dataclasses
import json
import os
import statistics
from concurrent.futures import ThreadPoolExecutor

from absl import flags

from benchmarks.processes import Child
from benchmarks.throughput import middle
from stackgan_tf.config import UserError, resolve, run_cli

flags.DEFINE_integer("workers", 2, "processes, of one core each", lower_bound=2)
flags.DEFINE_integer("stage", 1, "1 or 2", lower_bound=1, upper_bound=2)
flags.DEFINE_integer("width", 128, "Gf; Df is half of it", lower_bound=4)
flags.DEFINE_integer("rows", 8, "pictures of each worker in a step", lower_bound=2)
flags.DEFINE_string("precision", "float32", "float32 or mixed_bfloat16")
flags.DEFINE_integer("count", 10, "measurements", lower_bound=1)
flags.DEFINE_integer("port", 23450, "of the first worker; the others take those that follow")


def main(_):
    values = flags.FLAGS
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < values.workers:
        raise UserError(f"--workers={values.workers} need a core each, and {len(cores)} can be "
                        "given to a process here.")
    config = resolve({"preset": "flowers", "stage": values.stage, "precision": values.precision,
                      "generator_width": values.width, "discriminator_width": values.width // 2,
                      "unconditional_head": False})
    settings = dataclasses.asdict(config)
    alone = measure(cores[:1], settings, values)
    together = measure(cores[:values.workers], settings, values)
    report(alone, together, values)


def measure(cores, settings, values):
    """{what: seconds} of a worker on each core; `sums` are [[numbers, how many], ...]."""
    addresses = [f"127.0.0.1:{values.port + i}" for i in range(len(cores))]
    children = []
    try:
        for i, core in enumerate(cores):
            if len(cores) > 1:
                os.environ["TF_CONFIG"] = json.dumps({
                    "cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}})
            children.append(Child("benchmarks.replica_side", core))
        os.environ.pop("TF_CONFIG", None)
        with ThreadPoolExecutor(len(cores)) as pool:  # they wait for each other

            def ask(*request):
                return list(pool.map(lambda child: child.ask(*request), children))[0]

            found = {"sums": ask("load", settings, values.rows)}
            found["step"] = ask("steps", values.count)
            if len(cores) > 1:
                found["agreement"] = ask("agreements", values.count)
                found["each"] = [ask("sums", size, values.count) for size, _ in found["sums"]]
            return found
    finally:
        for child in children:
            child.close()


def report(alone, together, values):
    one, many = (statistics.median(found["step"]) for found in (alone, together))
    pictures = values.rows * values.workers
    print(f"stage {values.stage}, {values.precision}, Gf {values.width}, {values.rows} pictures a "
          f"worker, {values.workers} workers of one core; seconds, median (range)")
    print(f"  a step alone      {middle(alone['step'], '')}: {values.rows / one:.4g} pictures a s")
    print(f"  a step together   {middle(together['step'], '')}: {pictures / many:.4g} pictures a s,"
          f" {one / many:.0%} of {values.workers} times one")
    print(f"  an agreement      {middle(together['agreement'], '')}")
    print("  sums over the workers in a step:")
    total = 0.0
    for (size, count), each in zip(together["sums"], together["each"], strict=True):
        total += count * statistics.median(each)
        print(f"  {count:4d} of {size:11,d} numbers   {middle(each, '')}")
    print(f"  all sums one after another: {total:.4g}; a step alone and these: {one + total:.4g}")


if __name__ == "__main__":
    run_cli(main)
