"""Pictures a second of both stages, training and drawing, at the paper's sizes.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --torch                  # beside plain PyTorch
    python -m benchmarks.throughput --stages=2 --profile     # where the step's time goes
    python -m benchmarks.throughput --scale                  # batch size, resolution, width
    python -m benchmarks.throughput --width=16 --seconds=0.2 --rounds=2     # a short try

Needs no data: a random batch is made once, so that the networks alone are timed. GFLOP/s are of
useful work, counted by the plain algorithm (benchmarks/flops.py); "of matmul" is their share of
what a large matrix product of the same type reaches on this machine in the same round. Printed are
medians over the rounds, and the range, which shows how quiet the machine was.

--torch (pip install torch) times the same networks, losses and optimizer in PyTorch
(benchmarks/torch_stackgan.py), each way in turn with ours; one process waits while the other is
timed. A ratio is that of the medians, against the fastest PyTorch of the same precision; its range
is that of the rounds. "torch float32" is the released code's way, NCHW. "peak" is what a process
that trains held at most, libraries and all; each in one of its own.
"""

import dataclasses
import os
import platform
import statistics
import tempfile

from absl import flags

from benchmarks import flops
from benchmarks.processes import Child, ChildEnded
from stackgan_tf.config import UserError, resolve, run_cli

flags.DEFINE_list("stages", "1,2", "1, 2 or both")
flags.DEFINE_list("modes", "train,inference", "train (a whole step), inference, or both")
flags.DEFINE_list("precisions", "float32,mixed_bfloat16", "one or both of these")
flags.DEFINE_list("batch_sizes", "", "for every stage and mode; '': see BATCH_SIZES")
flags.DEFINE_integer("width", 128, "Gf; Df is half of it", lower_bound=4)
flags.DEFINE_integer("rounds", 5, "measurements of each case; the median counts", lower_bound=1)
flags.DEFINE_float("seconds", 1.0, "of each measurement, which is one call at least")
flags.DEFINE_bool("memory", True, "also train in new processes, to see how much memory that takes")
flags.DEFINE_bool("torch", False, "time PyTorch in turn with ours")
flags.DEFINE_bool("compile", False, "with --torch: torch.compile too, which needs a C++ compiler")
flags.DEFINE_bool("profile", False, "instead: time by type of operation")
flags.DEFINE_bool("scale", False, "instead: how a step's time and memory grow")

BATCH_SIZES = {(1, "train"): (16, 64), (2, "train"): (4, 8),
               (1, "inference"): (1, 8), (2, "inference"): (1, 8)}
MODES, PRECISIONS = ("train", "inference"), ("float32", "mixed_bfloat16")
TYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}

# Full arithmetic, but weights that stay where they are: trained on a batch of noise they would
# run to where numbers get tiny, which processors are slow at.
LEARNING_RATE = 1e-9


def main(_):
    values = flags.FLAGS
    stages = chosen("stages", ("1", "2"))
    modes, precisions = chosen("modes", MODES), chosen("precisions", PRECISIONS)
    batch_sizes = [number(text) for text in values.batch_sizes]
    if batch_sizes and min(batch_sizes) < (2 if "train" in modes or values.scale else 1):
        raise UserError(f"--batch_sizes={min(batch_sizes)}: batch norm trains on 2 or more.")
    if values.compile and not values.torch:
        raise UserError("--compile is for --torch.")
    for stage in stages:  # refused before anything starts
        settings(int(stage), "float32", values.width)
    print(machine(), flush=True)
    if values.scale:
        scale(precisions, batch_sizes or (2, 4, 8, 16), values)
        return
    for stage in map(int, stages):
        for mode in modes:
            sizes = batch_sizes or BATCH_SIZES[stage, mode]
            if values.profile:
                profile(stage, mode, precisions, sizes[-1], values.width)
            else:
                Comparison(stage, mode, precisions, sizes, values).run()


def chosen(flag, allowed):
    given = flags.FLAGS[flag].value
    for value in given:
        if value not in allowed:
            raise UserError(f"--{flag}={value} is unknown; choose of {', '.join(allowed)}.")
    return given


def number(text):
    try:
        return int(text)
    except ValueError:
        raise UserError(f"--batch_sizes={text} is no whole number.") from None


def machine():
    """One line that names the processor."""
    try:
        with open("/proc/cpuinfo") as file:
            lines = [line.split(":", 1)[1].strip() for line in file if ":" in line
                     and line.startswith(("model name", "flags"))]
    except OSError:  # not Linux
        lines = []
    name = lines[0] if lines else platform.processor() or platform.machine()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
            if lines and flag in lines[1].split()]
    return f"{name}, {os.cpu_count()} cores {' '.join(wide)}"


def settings(stage, precision, width, **changes):
    """The paper's sizes, or others of the same shape, as a Config."""
    return resolve({"preset": "birds", "stage": stage, "precision": precision,
                    "generator_width": width, "discriminator_width": width // 2, **changes})


def load_ours(child, name, config, batch_size, mode):
    child.ask("load", name, dataclasses.asdict(config), batch_size, mode, LEARNING_RATE)


class Comparison:
    """One stage in one mode, in all precisions and batch sizes; `values`: the flags'."""

    def __init__(self, stage, mode, precisions, batch_sizes, values):
        self.mode, self.batch_sizes, self.values = mode, batch_sizes, values
        self.title = f"stage {stage}, {mode}"
        self.configs = {p: settings(stage, p, self.values.width) for p in precisions}
        config = next(iter(self.configs.values()))
        self.work = (flops.inference(config) if mode == "inference" else
                     flops.training_step(config))
        # (batch size, precision, variant) and (precision, "matmul"): a list, one a round
        self.rates = {}
        self.peaks = {}  # (precision, variant): bytes

    def variants(self, precision):
        """PyTorch's ways, the plain one first."""
        if not self.values.torch:
            return []
        plain = TYPES[precision]
        found = [plain, f"{plain} channels-last"]
        if self.mode == "inference":
            found.append(f"{plain} channels-last folded")
        if self.values.compile:
            found.append(f"{plain} channels-last compiled")
        return found

    def run(self):
        with tempfile.TemporaryDirectory() as folder:
            with Child("benchmarks.tf_side", folder) as ours:
                children = {"ours": ours, "matmul": ours}
                if self.values.torch:
                    with Child("benchmarks.torch_side") as other:
                        self.measure({**children, "torch": other})
                else:
                    self.measure(children)
                self.auto = ours.ask("auto_precision", dataclasses.asdict(
                    next(iter(self.configs.values()))))
            if self.mode == "train" and self.values.memory:
                self.measure_memory(folder)
        for batch_size in self.batch_sizes:
            self.report(batch_size)

    def load_torch(self, child, name, config, batch_size, variant):
        child.ask("load", name, dataclasses.asdict(config), batch_size, self.mode, variant,
                  LEARNING_RATE)

    def measure(self, children):
        cases = []  # (process, its name for the case, key in rates, pictures or work a call)
        for precision, config in self.configs.items():
            matmul = f"matmul {precision}"
            work = children["matmul"].ask("load_matmul", matmul, TYPES[precision])
            cases.append(("matmul", matmul, (precision, "matmul"), work))
            for size in self.batch_sizes:
                name = f"{precision} {size}"
                load_ours(children["ours"], name, config, size, self.mode)
                cases.append(("ours", name, (size, precision, "ours"), 1))
                for variant in self.variants(precision):
                    name = f"{variant} {size}"
                    self.load_torch(children["torch"], name, config, size, variant)
                    cases.append(("torch", name, (size, precision, variant), 1))
        for done in range(self.values.rounds):
            for child, name, key, work in cases:  # in turn: what disturbs one disturbs all alike
                count, seconds = children[child].ask("run", name, self.values.seconds)
                self.rates.setdefault(key, []).append(count * work / seconds)
            print(f"{self.title}: round {done + 1} of {self.values.rounds}", flush=True)

    def measure_memory(self, folder):
        size = self.batch_sizes[-1]
        for precision, config in self.configs.items():
            with Child("benchmarks.tf_side", folder) as child:
                load_ours(child, "one", config, size, self.mode)
                self.peaks[precision, "ours"] = child.ask("peak", "one", 2)
            for variant in self.variants(precision):
                with Child("benchmarks.torch_side") as child:
                    self.load_torch(child, "one", config, size, variant)
                    self.peaks[precision, variant] = child.ask("peak", "one", 2)

    def report(self, batch_size):
        print(f"\n{self.title}, batch size {batch_size}: {self.work / 1e9:.2f} GFLOP a picture")
        for precision in self.configs:
            print("  matrix product, " + TYPES[precision] + ": " + middle(
                [rate / 1e9 for rate in self.rates[precision, "matmul"]], "GFLOP/s"))
        print("  case".ljust(41) + "pictures/s (range)".ljust(30)
              + "GFLOP/s  of matmul" + ("  peak GB" if self.peaks else ""))
        for precision in self.configs:
            for variant in ["ours", *self.variants(precision)]:
                self.row(batch_size, precision, variant)
        for precision in self.configs:
            if self.values.torch:
                best = max(self.variants(precision), key=lambda variant: statistics.median(
                    self.rates[batch_size, precision, variant]))
                self.ratio(f"{TYPES[precision]}, ours to 'torch {best}'",
                           (batch_size, precision, "ours"), (batch_size, precision, best))
        if self.values.torch and self.auto in self.configs and "float32" in self.configs:
            self.ratio(f"auto precision, {self.auto}, ours to 'torch float32'",
                       (batch_size, self.auto, "ours"), (batch_size, "float32", "float32"))
        print(flush=True)

    def row(self, batch_size, precision, variant):
        rates = self.rates[batch_size, precision, variant]
        matmul = self.rates[precision, "matmul"]
        name = f"stackgan_tf {precision}" if variant == "ours" else f"torch {variant}"
        # round by round, since the machine's speed differs from one to the next
        share = statistics.median(r * self.work / m for r, m in zip(rates, matmul))
        line = (f"  {name:39s}" + middle(rates, "").ljust(30)
                + f"{statistics.median(rates) * self.work / 1e9:7.1f}  {share:9.0%}")
        peak = self.peaks.get((precision, variant))
        if peak and batch_size == self.batch_sizes[-1]:
            line += f"  {peak / 1e9:7.2f}"
        print(line)

    def ratio(self, name, ours, other):
        ours, other = self.rates[ours], self.rates[other]
        ratios = [a / b for a, b in zip(ours, other)]
        print(f"  {name}: {statistics.median(ours) / statistics.median(other):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})")


def middle(numbers, unit):
    """The median and the range, to four digits."""
    return (f"{statistics.median(numbers):.4g} {unit}".rstrip()
            + f" ({min(numbers):.4g} to {max(numbers):.4g})")


def profile(stage, mode, precisions, batch_size, width):
    for precision in precisions:
        with tempfile.TemporaryDirectory() as folder, Child("benchmarks.tf_side", folder) as child:
            config = settings(stage, precision, width)
            load_ours(child, "one", config, batch_size, mode)
            rows, passed = child.ask("profile", "one")
        total = sum(row[3] for row in rows)
        print(f"\nstage {stage}, {mode}, {precision}, batch size {batch_size}: {passed:.3f} s; "
              f"{len(rows)} operations, side by side, sum up to {total:.3f} s")
        for kind, seconds, count in by_type(rows)[:15]:
            print(f"  {seconds / total:6.1%}  {1000 * seconds:9.2f} ms  {count:4d} x {kind}")
        print("  the longest, with what comes out of them")
        for kind, name, shape, seconds in rows[:15]:
            print(f"  {seconds / total:6.1%}  {1000 * seconds:9.2f} ms  {kind}  {shape}  {name}")
        print(flush=True)


def by_type(rows):
    """[(type, seconds, how many)] of (type, name, shape, seconds), longest first."""
    sums = {}
    for kind, _, _, seconds in rows:
        total, count = sums.get(kind, (0.0, 0))
        sums[kind] = total + seconds, count + 1
    return sorted(((kind, *value) for kind, value in sums.items()), key=lambda row: -row[1])


def scale(precisions, batch_sizes, values):
    """A training step of Stage-II (at 64: of Stage-I), one of three things changed at a time."""
    width, base = values.width, 4
    points = [(256, width, size) for size in batch_sizes]
    points += [(side, width, base) for side in (64, 128, 256, 512)]
    points += [(256, part, base) for part in
               (max(4, width * share // 16 * 4) for share in (1, 2, 4, 6))]
    print("  side   Gf  batch  precision       GFLOP a picture  s a step (range)"
          "            pictures/s  GFLOP/s  peak GB")
    for precision in precisions:
        for side, gf, size in dict.fromkeys(points):
            config = settings(1 if side == 64 else 2, precision, gf, image_size=side)
            work = flops.training_step(config)
            line = f"  {side:4d}  {gf:3d}  {size:5d}  {precision:14s}  {work / 1e9:15.2f}  "
            try:
                seconds, peak = scale_point(config, size, values)
            except ChildEnded as error:
                print(f"{line}none: {error}", flush=True)
                continue
            rate = size / statistics.median(seconds)
            print(line + middle(seconds, "").ljust(28) + f"{rate:10.2f}  {rate * work / 1e9:7.1f}"
                  f"  {peak / 1e9:7.2f}", flush=True)


def scale_point(config, batch_size, values):
    """Seconds of a step, one number a round, and the peak of memory in bytes."""
    with tempfile.TemporaryDirectory() as folder, Child("benchmarks.tf_side", folder) as child:
        load_ours(child, "one", config, batch_size, "train")
        peak = child.ask("peak", "one", 1)
        runs = [child.ask("run", "one", values.seconds) for _ in range(values.rounds)]
    return [seconds * batch_size / count for count, seconds in runs], peak


if __name__ == "__main__":
    run_cli(main)
