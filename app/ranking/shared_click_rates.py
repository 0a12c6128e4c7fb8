"""`SharedClickRates` adds up what the workers that share a folder have counted of the same canary.

Each worker's file is replaced as a whole some seconds after it has counted more, and read by the others. What a worker
that ended had counted is as true as before, so its file counts until the trial is another.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from app.ranking.click_rates import ClickRates, Counts

FOLDER, SUFFIX = ".trials", ".clicks"
EXCHANGE_EVERY_S = 5.0
KEPT_S = 86_400.0
"""Files of other trials are deleted once nobody has written to them for so long."""


class SharedClickRates:
    """Exchanges counts with other workers. For one thread."""

    def __init__(
        self, folder: Path, now_s: Callable[[], float] = time.monotonic, wall_s: Callable[[], float] = time.time
    ) -> None:
        """
        Args:
            folder: where the workers' files lie; it is created.
            now_s: the time between two exchanges.
            wall_s: the time of files.
        """
        self._folder = folder
        self._now_s, self._wall_s = now_s, wall_s
        self._file = folder / f"{secrets.token_hex(8)}{SUFFIX}"
        self._trial = ""
        self._exchanged_s = 0.0
        self._others: ClickRates | None = None

    def merged(self, trial: str, own: ClickRates) -> ClickRates:
        """Return what all workers have counted; alone, what this one has, where the folder cannot be used.

        Args:
            trial: names what is compared; only counts of the same are added.
        """
        now_s = self._now_s()
        if self._others is None or trial != self._trial or now_s >= self._exchanged_s + EXCHANGE_EVERY_S:
            self._trial, self._exchanged_s = trial, now_s
            self._others = ClickRates(own.groups)
            with contextlib.suppress(OSError):
                self._write(own)
                self._read(self._others)
        merged = ClickRates(own.groups)
        merged.requests = own.requests + self._others.requests
        merged.clicks = own.clicks + self._others.clicks
        return merged

    def _write(self, own: ClickRates) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_bytes(self._head() + np.stack([own.requests, own.clicks]).tobytes())
        os.replace(temporary, self._file)

    def _read(self, others: ClickRates) -> None:
        head = self._head()
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path == self._file:
                continue
            with contextlib.suppress(FileNotFoundError):
                content = path.read_bytes()
                if content.startswith(head) and len(content) == len(head) + 2 * others.requests.nbytes:
                    counts: Counts = np.frombuffer(content, np.float64, offset=len(head)).reshape(2, 2, others.groups)
                    others.requests += counts[0]
                    others.clicks += counts[1]
                elif self._wall_s() > path.stat().st_mtime + KEPT_S:
                    path.unlink()

    def _head(self) -> bytes:
        return sha256(self._trial.encode()).digest()
