"""Runs commands as if they were typed, one after the other in one process: each new one would take
seconds to load TensorFlow.

    python tests/typed.py '[["FOLDER", "stackgan_tf.sample", ["--captions=a flower"]], ...]'

In the place of a module, "" stands for Python code, which is the first argument. The first command
that fails ends it; the last line says which.
"""

import gc
import importlib
import json
import os
import runpy
import sys
import time

from absl import app, flags


def run(module, arguments):
    """Returns the exit code."""
    before = set(flags.FLAGS)
    try:
        if module:
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__")
        else:
            exec(compile(arguments[0], "README.md", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code or 0
    finally:
        for name in set(flags.FLAGS) - before:  # the next command has its own of that name
            delattr(flags.FLAGS, name)
        gc.collect()  # gives locks on runs back, as the end of a process would
    return 0


def main():
    tasks = json.loads(sys.argv[1])
    app.define_help_flags()
    for module in sorted({module for _, module, _ in tasks if module}):
        importlib.import_module(module)  # what libraries define once stays
    for folder, module, arguments in tasks:
        os.chdir(folder)
        begin = time.monotonic()
        code = run(module, arguments)
        if code:
            print("failed:", module, *arguments)
            return 1
        print(f"typed: {time.monotonic() - begin:.1f} s {module} {arguments}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
