"""Signals that end a process: what was begun is undone, and what must be done in one go is."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from app.runtime.signals import exit_on_sigterm, uninterrupted


def test_the_second_signal_does_not_disturb_the_clearing_up() -> None:
    cleared = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleared.append(True)

    with pytest.raises(SystemExit) as ended, exit_on_sigterm():
        work()
    assert (ended.value.code, cleared) == (143, [True])


def test_a_signal_waits_until_the_block_has_ended_whatever_other_threads_there_are() -> None:
    done: list[str] = []
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()

    def work() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            done.append("in the block")
        time.sleep(5)
        done.append("after it")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), exit_on_sigterm():
        work()
    stop.set()
    other.join()
    assert done == ["in the block"]
    assert signal.getsignal(signal.SIGTERM) == before
