"""`CountedTurns`: turns of slices that are counted."""

from __future__ import annotations

from app.runtime.loop_pacer import MOST_WAIT_S, SliceTurns


class CountedTurns(SliceTurns):
    """Counts the turns that were asked for."""

    count = 0

    async def next(self, most_wait_s: float = MOST_WAIT_S) -> None:
        self.count += 1
        await super().next(most_wait_s)
