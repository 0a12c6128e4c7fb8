"""`ctr serve` with a beat in its event loop: `python -m benchmarks.soak.service FILE serve --port ...`.

Every millisecond the loop writes the time into FILE, so that another process can see when it did not turn.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BEATS = 1 << 20
"""Length of the ring: a quarter of an hour."""
INTERVAL_S = 0.001


class Beats:
    """A ring of times in a file, whose first number is the count of times written."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            np.zeros(1 + BEATS).tofile(path)
        self._ring = np.memmap(path, np.float64, "r+" if create else "r", shape=(1 + BEATS,))

    def beat(self) -> None:
        """Write the time each millisecond, on the running event loop."""
        loop = asyncio.get_running_loop()
        ring, count = self._ring, 0

        def tick() -> None:
            nonlocal count
            ring[1 + count % BEATS] = time.perf_counter()
            count += 1
            ring[0] = count
            loop.call_later(INTERVAL_S, tick)

        tick()

    def held_ms(self, start: float, stop: float) -> npt.NDArray[np.float64]:
        """Return how long the loop took from beat to beat between these times, less the beat's interval."""
        count = int(self._ring[0])
        if count > BEATS:
            raise SystemExit("error: the run was longer than the ring of beats")
        at = np.array(self._ring[1 : 1 + count])
        gaps = np.diff(at) - INTERVAL_S
        return 1000 * gaps[(at[1:] >= start) & (at[:-1] <= stop)]


def main() -> None:
    beats = Beats(Path(sys.argv.pop(1)), create=True)
    import app.main
    from app.cli import main as ctr

    create_app = app.main.create_app

    def with_beat(*args: Any, **options: Any) -> app.main.Application:
        application = create_app(*args, **options)
        start: Callable[[], Awaitable[None]] = application.service.start

        async def started() -> None:
            await start()
            beats.beat()

        application.service.start = started  # type: ignore[method-assign]
        return application

    app.main.create_app = with_beat
    ctr()


if __name__ == "__main__":
    main()
