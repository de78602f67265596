"""Runs commands as if they were typed, one after the other in one process: each new one would take
seconds to load TensorFlow.

    python tests/typed.py '[["FOLDER", "stackgan_tf.sample", ["--captions=a flower"]], ...]'

In the place of a module, "" stands for Python code, which is the first argument. The first command
that fails ends it; the last line says which.
"""

import contextlib
import gc
import importlib
import io
import json
import logging
import os
import runpy
import sys
import time
import warnings

from absl import app, flags
from absl import logging as absl_logging

app.define_help_flags()  # once for all: absl remembers having done so


def run(module, arguments) -> int:
    """`python -m <module> ...` without a new process; returns the exit code."""
    before, argv = set(flags.FLAGS), sys.argv
    try:
        if module:
            sys.argv = [module, *arguments]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of runpy: it was imported before
                runpy.run_module(module, run_name="__main__")
        else:
            exec(compile(arguments[0], "README.md", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:  # the next command has its own of that name
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    return 0


def here(module, *arguments):
    """`python -m stackgan_tf.<module> ...` in this process: (exit code, stdout, stderr)."""
    files = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with untouched_logging(), contextlib.redirect_stdout(files[0]), (
            contextlib.redirect_stderr(files[1])):
        code = run(f"stackgan_tf.{module}", list(map(str, arguments)))
    gc.collect()  # gives locks on runs back, as the end of a process would
    return code, *(file.buffer.getvalue().decode() for file in files)


@contextlib.contextmanager
def untouched_logging():
    """absl sets up logging for the whole process."""
    loggers = [logging.root, *map(logging.getLogger, ("tensorflow", "stackgan_tf", "absl"))]
    levels, handlers = [one.level for one in loggers], logging.root.handlers[:]
    verbosity = absl_logging.get_verbosity()
    yield
    absl_logging.set_verbosity(verbosity)
    for one, level in zip(loggers, levels):
        one.setLevel(level)
    logging.root.handlers[:] = handlers


def main():
    tasks = json.loads(sys.argv[1])
    for module in sorted({module for _, module, _ in tasks if module}):
        importlib.import_module(module)  # what libraries define once stays
    for folder, module, arguments in tasks:
        os.chdir(folder)
        begin = time.monotonic()
        code = run(module, arguments)
        gc.collect()
        if code:
            print("failed:", module, *arguments)
            return 1
        print(f"typed: {time.monotonic() - begin:.1f} s {module} {arguments}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
