"""Run a function again and again, each time in a process of its own, until a signal comes."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def repeat(
    interval_s: float,
    run_once: Callable[..., int],
    options: dict[str, Any],
    *,
    stop_status: int,
    notify: Callable[[str], None] = lambda message: None,
) -> int:
    """Run rounds in processes of their own, so that none leaves memory behind, until SIGTERM or SIGINT comes.

    Args:
        interval_s: from the beginning of a round to that of the next; a longer round is followed at once.
        run_once: a module's function that returns an exit status.
        options: its keyword arguments.
        stop_status: no round follows if the first one returns it, because the options were never right. Later rounds
            may fail, and the next one tries again.
        notify: called with a message that says when the next round begins.

    Returns:
        The exit status: 0 after a signal.
    """
    stop = threading.Event()
    running: list[BaseProcess] = []

    def end(*_: object) -> None:
        stop.set()
        for process in running:
            process.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        is_first = True
        while not stop.is_set():
            began = time.monotonic()
            process = multiprocessing.get_context("spawn").Process(target=_run_round, args=(run_once, options))
            process.start()
            running[:] = [process]
            if stop.is_set():  # the signal came before there was a process to end
                process.terminate()
            process.join()
            running.clear()
            if is_first and process.exitcode == stop_status:
                return stop_status
            is_first = False
            left_s = max(0.0, interval_s - (time.monotonic() - began))
            if not stop.is_set():
                notify(f"the next round begins in {left_s:.0f} s")
            stop.wait(left_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _run_round(run_once: Callable[..., int], options: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    raise SystemExit(run_once(**options))
