"""Processes of our own that another one starts, and the signals that ask either to stop."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

SIGHUP = getattr(signal, "SIGHUP", None)  # a closed terminal; Windows has none
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """For a worker process of multiprocessing: from now on it ends when its parent does, however
    that ends. Waiting for the next task it would wait for ever."""
    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def stop_signals() -> list[int]:
    """What asks this process to stop: Ctrl-C, SIGTERM, and SIGHUP, but under nohup."""
    hangs_up = SIGHUP and signal.getsignal(SIGHUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] + [SIGHUP] * bool(hangs_up)


def run(command: list[str], **options) -> tuple[int, int]:
    """Runs a command to its end. What asks this process to stop is passed on to it, so that it can
    save what it has; where this process is killed, it is asked to stop too (on Linux).

    Args:
        options: of subprocess.Popen.

    Returns:
        The exit code, 128 + n if signal n killed it, and the first signal that came here, or 0.
    """
    received, child = [], None

    def pass_on(number):
        # Ctrl-C would be a traceback while it imports TensorFlow
        child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)

    def note(number, _):
        received.append(number)
        if child:
            pass_on(number)

    before = {one: signal.signal(one, note) for one in stop_signals()}
    try:
        # a session of its own keeps a terminal's Ctrl-C from reaching it twice
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=_with_this_one(),
                                 **options)
        for number in received.copy():  # while it was being started
            pass_on(number)
        code = child.wait()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    return 128 - code if code < 0 else code, (received or [0])[0]


def _with_this_one():
    """What a child does first, so that it gets SIGTERM when this process ends; None where the
    system cannot do that."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and not this process's handler
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
        if os.getppid() != parent:  # it has ended before that
            os.kill(os.getpid(), signal.SIGTERM)

    return ask
