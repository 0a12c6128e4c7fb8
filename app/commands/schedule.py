"""A command as its own schedule, and signals that end it cleanly."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import typer

from app.commands.output import console

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM becomes SystemExit, so that what was begun is undone; a second one does not disturb that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def seconds(text: str) -> float:
    """Of `90s`, `30m`, `6h`, `1d`. Raises typer.BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found or float(found[1]) == 0:
        raise typer.BadParameter(f"{text!r}: expected a time such as 90s, 30m, 6h or 1d", param_hint="--every")
    return float(found[1]) * UNITS[found[2]]


def repeat(interval_s: float, once: Callable[..., int], options: dict[str, Any], *, ends_at_once: int) -> int:
    """Rounds in processes of their own, so that none leaves memory behind, until a signal comes.

    Args:
        interval_s: from the beginning of a round to that of the next; a longer round is followed at once.
        once: a module's function, which returns an exit status.
        ends_at_once: status that ends it all if the first round has it: it was never right. Later rounds may fail, and
            the next one tries again.

    Returns:
        The exit status: 0 after a signal.
    """
    stop = threading.Event()
    running: list[Any] = []

    def end(*_: object) -> None:
        stop.set()
        for process in running:
            process.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        first = True
        while not stop.is_set():
            began = time.monotonic()
            process = multiprocessing.get_context("spawn").Process(target=_round, args=(once, options))
            process.start()
            running[:] = [process]
            if stop.is_set():  # it came before there was anything to end
                process.terminate()
            process.join()
            running.clear()
            if first and process.exitcode == ends_at_once:
                return ends_at_once
            first = False
            left_s = max(0.0, interval_s - (time.monotonic() - began))
            if not stop.is_set():
                console.print(f"the next round begins in {left_s:.0f} s", highlight=False)
            stop.wait(left_s)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _round(once: Callable[..., int], options: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    raise SystemExit(once(**options))
