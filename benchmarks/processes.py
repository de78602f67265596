"""A process that is kept alive to be timed now and then, and how much memory it took.

The parent writes one JSON list a line, [name of a method, its arguments ...], the child answers
with one JSON value a line.
"""

import json
import os
import resource
import subprocess
import sys
import time


class ChildEnded(Exception):
    """The process is gone: an error, or no memory left."""


class Child:
    """A process that runs `python -m MODULE ARGUMENTS`, whose main is `serve`."""

    def __init__(self, module, *arguments):
        self.name = module
        self._process = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, method, *arguments):
        """Calls the method over there and waits for what it returns."""
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:  # its traceback is on stderr
            raise ChildEnded(f"{self.name} ended with code {self._process.wait()} at {method}")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def serve(make):
    """Answers what the parent asks of `make()`, until it closes the pipe."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between
    served = make()
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        answers.write(json.dumps(getattr(served, method)(*arguments)) + "\n")
        answers.flush()


def timed(call, seconds):
    """(calls, seconds that they took): one call, or as many as fill the time.

    Where there are several, one that does not count goes first, for the caches.
    """
    calls, begin = 0, time.perf_counter()
    call()
    taken = time.perf_counter() - begin
    if taken >= seconds:
        return 1, taken
    begin = time.perf_counter()
    while not calls or taken < seconds:
        call()
        calls, taken = calls + 1, time.perf_counter() - begin
    return calls, taken


def peak_memory(call, calls):
    """The most bytes that this process held at a time during so many calls.

    Outside of Linux: in its whole life.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # VmHWM starts anew
    except OSError:
        pass
    for _ in range(calls):
        call()
    try:
        with open("/proc/self/status") as file:
            line = next(line for line in file if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
