"""Turn SIGTERM into SystemExit, or hold back the signals that end a process for a moment."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that what was begun is undone; a second SIGTERM does not disturb that.

    Outside of the main thread, where no handler can be set, this does nothing.
    """
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


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back until the block has ended: it changes files in more than one step.

    Handlers are replaced instead of the signals being blocked, which would only bind this thread: the kernel gives a
    signal to any thread that takes it, and Python then runs the handler in the main thread all the same. Outside of
    the main thread, which no handler interrupts, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: pending.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for pending_number in pending:
            signal.raise_signal(pending_number)
