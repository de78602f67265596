"""Long jobs: what they show, and how they are stopped between two steps."""

import contextlib
import signal
import sys
import threading
import time

import tqdm

from stackgan_tf import processes

BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {remaining} left{postfix}"  # with values in 80 columns

class Progress:
    """A bar on a terminal, plain lines anywhere else.

    Counts steps from `start` to `total` and shows rate, time left and the latest values.

    Args:
        name: what is being done, for instance "stage 1".
        start, total: steps done before and to be done in all.
        every: steps between two plain lines.
        per_step: pictures a step, for the rate.
        unit: what a terminal's bar counts; with total=None it counts on without an end.
    """

    def __init__(self, name, start, total, every=50, per_step=1, unit="step"):
        self.name, self.total, self.every, self.per_step = name, total, every, per_step
        self.bar = None
        if sys.stderr.isatty():
            self.bar = tqdm.tqdm(total=total, initial=start, desc=name, unit=unit,
                                 dynamic_ncols=True, bar_format=BAR if total else None)
        self.first, self.begin = start, time.monotonic()

    def images_per_second(self, step):
        return (step - self.first) * self.per_step / max(time.monotonic() - self.begin, 1e-9)

    def update(self, step, values=None):
        """`step` steps are done; `values` {name: number}, which may be {}, are shown when given."""
        rate = self.images_per_second(step)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            if values is not None:
                self.bar.set_postfix_str(f"{rate:.1f} images/s{_join(values)}")
        elif values is not None and (step % self.every == 0 or step == self.total):
            left = (self.total - step) * self.per_step / max(rate, 1e-9)
            print(f"{self.name}: step {step}/{self.total}, {rate:.1f} images/s, "
                  f"{left / 60:.1f} min left{_join(values)}", flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()


def _join(values):
    numbers = {name.rsplit("/", 1)[-1]: f"{value:.3f}" if isinstance(value, float) else value
               for name, value in values.items()}
    return "".join(f", {name} {number}" for name, number in numbers.items())


class StopSignal:
    """Notes Ctrl-C, SIGTERM and SIGHUP, so that the loop can stop between two steps; a second one
    kills, whatever the process is doing. A second SIGHUP does not: the shell and the system each
    send one when a terminal is closed."""

    def __enter__(self):
        self.number = 0
        self.before = {s: signal.signal(s, self._note) for s in processes.stop_signals()}
        return self

    def _note(self, number, _):
        self.number = number
        for one in self.before:
            if one != processes.SIGHUP:
                signal.signal(one, signal.SIG_DFL)

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def sigterm_raises():
    """Within it SIGTERM raises SystemExit, so that what is half-written can be removed. Other
    threads than the first cannot ask for that, and go without."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
