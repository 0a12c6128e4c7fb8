"""`watched`: an embedded Valkey that is started again when it dies, for as long as a command needs it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.errors import CtrError
from app.features.loading.embedded_valkey import EmbeddedValkey

WATCH_S = 0.5

log = structlog.get_logger(__name__)


@contextmanager
def watched(valkey: EmbeddedValkey) -> Iterator[None]:
    """Look after the server on a thread until the block ends; what was written since its last snapshot is lost."""
    ended = threading.Event()

    def watch() -> None:
        problem = ""
        while not ended.wait(WATCH_S):
            try:
                if valkey.revive():
                    problem = ""
                    log.error("embedded_valkey_died", action="started again from its last snapshot")
            except (CtrError, OSError) as error:
                if str(error) != problem:
                    problem = str(error)
                    log.error("embedded_valkey_does_not_start", problem=problem)

    thread = threading.Thread(target=watch, name="valkey-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
