"""A function that runs on a schedule: it goes on after a failure, and ends when it is told to, or was never right."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from app.runtime.schedule import repeat
from app.runtime.signals import exit_on_sigterm

BAD_INPUT = 2


def one_round(log: Path, statuses: list[int]) -> int:
    """Notes that it ran, in which process; the statuses are those of the rounds, in turn."""
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return statuses[min(len(log.read_text().splitlines()), len(statuses)) - 1]


def long_round(log: Path) -> int:
    with exit_on_sigterm():
        log.write_text("begun")
        time.sleep(60)
    return 0


def stop_when(log: Path, lines: int) -> threading.Thread:
    """Ends this process's loop by SIGTERM once so much is in the log."""

    def watch() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < lines:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_rounds_follow_each_other_in_processes_of_their_own_whatever_they_end_with(tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = signal.getsignal(signal.SIGTERM)
    stopping = stop_when(log, 3)
    assert repeat(0.01, one_round, {"log": log, "statuses": [3, BAD_INPUT, 1, 0]}, stop_status=BAD_INPUT) == 0
    stopping.join()
    rounds = log.read_text().splitlines()
    assert len(rounds) == len(set(rounds)) >= 3
    assert str(os.getpid()) not in rounds
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_never_right_is_not_tried_again(tmp_path: Path) -> None:
    options = {"log": tmp_path / "log", "statuses": [BAD_INPUT]}
    assert repeat(0.01, one_round, options, stop_status=BAD_INPUT) == BAD_INPUT
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_a_signal_ends_a_round_that_is_under_way(tmp_path: Path) -> None:
    stopping = stop_when(tmp_path / "log", 1)
    began = time.monotonic()
    assert repeat(3600, long_round, {"log": tmp_path / "log"}, stop_status=BAD_INPUT) == 0
    assert time.monotonic() - began < 50, "not the minute that the round would have taken"
    stopping.join()
