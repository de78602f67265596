"""Training commands without TensorFlow's start: forked from a process that has imported it.

TensorFlow has run nothing in that process, so a fork of it trains as a new process does.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback


class Nursery:
    """The importing process, as the tests see it."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, bufsize=0)

    def start(self, flags, output, kill_at=0) -> "Child":
        """Starts `python -m stackgan_tf.train` with the flags; what it prints goes to `output`.

        kill_at: it kills itself before so many file operations; 0: it does not.
        """
        open(output, "w").close()  # what the one before said would be taken for the new one's
        request = {"flags": list(flags), "output": str(output), "kill_at": kill_at}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        return Child(self, flags, int(self.answer(60)), str(output))

    def answer(self, seconds):
        ready = select.select([self.process.stdout], [], [], seconds)[0]
        assert ready, f"no answer in {seconds} s"
        return self.process.stdout.readline()

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


class Child:
    """A training process; one at a time."""

    def __init__(self, nursery, flags, pid, output):
        self.nursery, self.flags, self.pid, self.output = nursery, list(flags), pid, output

    def text(self) -> str:
        try:
            with open(self.output) as file:
                return file.read()
        except OSError:
            return ""

    def wait_for(self, words, seconds=120) -> bool:
        """Whether the words were printed before it ended."""
        until = time.monotonic() + seconds
        while words not in self.text():
            if select.select([self.nursery.process.stdout], [], [], 0.01)[0]:
                return words in self.text()
            assert time.monotonic() < until, self.text()
        return True

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=240) -> int:
        """Its exit code, or minus the signal that killed it."""
        return int(self.nursery.answer(seconds))


def serve():
    from stackgan_tf import config, train
    config.define_flags()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            run(config.run_cli, train.main, **request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def run(run_cli, main, flags, output, kill_at):
    """The child: never returns."""
    file = os.open(output, os.O_WRONLY)  # Nursery.start has made it
    for handle in (1, 2):
        os.dup2(file, handle)
    operations = count_operations(kill_at)
    code, sys.argv = 99, ["train", *flags]
    try:
        run_cli(main)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    print(f"operations: {operations[0]}", flush=True)
    os._exit(code)


def count_operations(kill_at):
    """Counts what changes files; kills the process before number `kill_at`."""
    import tensorflow as tf
    count = [0]

    def counted(function):
        def call(*args, **kwargs):
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call

    for module, names in ((os, ("fsync",)), (tf.io.gfile, ("rename", "makedirs", "rmtree", "copy",
                                                           "exists")),
                          (tf.io.gfile.GFile, ("write",))):
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    return count


if __name__ == "__main__":
    serve()
