"""Who is asked to stop, and who ends with whom."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from stackgan_tf import processes
from stackgan_tf.progress import StopSignal

PARENT = """
import signal, sys
from stackgan_tf import processes
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
sys.exit(max(processes.run([sys.executable, "-uc", sys.argv[1]])))
"""
# Says that it is there and, when it is asked to stop, that it does; else it waits a minute.
CHILD = """
import os, signal, sys, time
def stop(number, _):
    print("stopping by", number)
    sys.exit(7)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, stop)
print(os.getpid())
time.sleep(60)
"""


@pytest.fixture
def parent():
    """A process that runs CHILD; what both print can be read."""
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": ROOT}) as one:
        one.child = int(one.stdout.readline())
        yield one
        for pid in (one.pid, one.child):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child")
def test_a_killed_process_takes_the_one_along_that_it_waits_for(parent):
    parent.kill()
    assert parent.stdout.readline() == f"stopping by {signal.SIGTERM}\n"
    assert parent.stdout.read() == ""  # both have ended


POOL = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from stackgan_tf import processes
spawn = multiprocessing.get_context("spawn")
pool = ProcessPoolExecutor(1, spawn, initializer=processes.end_with_parent)
print(pool.submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_pool_s_workers_end_with_a_process_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "PYTHONPATH": ROOT}) as one:
        assert int(one.stdout.readline()) != one.pid
        # the worker holds the other end of this pipe as long as it is there
        assert one.communicate(timeout=60)[0] == "" and one.returncode == -signal.SIGKILL


def test_closed_streams_are_nobody_s_trouble():
    code = ("from stackgan_tf import config\n"
            "import sys\n"
            "config.run_cli(lambda _: print(sys.stderr.isatty(), sys.stdout.isatty()))")
    # by a shell: Python code between fork and exec may abort beside TensorFlow's threads
    done = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, code],
                          env={**os.environ, "PYTHONPATH": ROOT})
    assert done.returncode == 0


@pytest.mark.parametrize("sent, passed_on", [
    (signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM),
    (signal.SIGHUP, signal.SIGHUP)])
def test_what_asks_a_process_to_stop_asks_the_one_that_it_waits_for(parent, sent, passed_on):
    parent.send_signal(sent)
    assert parent.stdout.readline() == f"stopping by {passed_on}\n"
    assert parent.wait(60) == max(7, sent)  # the child's code, and the signal


def test_what_a_command_ends_with_is_returned():
    assert processes.run([sys.executable, "-c", "raise SystemExit(5)"]) == (5, 0)
    assert processes.run(["sh", "-c", "kill -9 $$"]) == (137, 0)


def test_a_closed_terminal_is_noted_and_ends_nothing_however_often_it_says_so(hang_up):
    with StopSignal() as stop:
        for _ in range(3):
            hang_up()
        assert stop.number == signal.SIGHUP
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # a second one of these kills
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_is_none(hang_up):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal() as stop:
        hang_up()
        assert stop.number == 0
