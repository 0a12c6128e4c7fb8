"""`compare`: the usual load with and without a fault, in turn within one run, and what the fault costs the others."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.faults.row import Check
from benchmarks.faults.timeline import Timeline
from benchmarks.faults.usual_load import UsualLoad

SETTLE_S = {True: 0.3, False: 1.0}
"""Left out after the fault begins, and after it ends: what was sent before is still at work."""
WARM_S = 1.0


@dataclass(frozen=True)
class Comparison:
    """The usual requests of the rounds with and without the fault."""

    without: list[Timeline]
    during: list[Timeline]
    whole: Timeline

    def p99_ms(self) -> tuple[float, float]:
        """Return the medians of the rounds' p99 without the fault and with it."""
        return _median(self.without, 99), _median(self.during, 99)

    def p50_ms(self) -> tuple[float, float]:
        """Return the medians of the rounds' p50 without the fault and with it."""
        return _median(self.without, 50), _median(self.during, 50)

    def checks(self, most: float, beside: str = "the fault") -> list[Check]:
        """Return whether all usual requests were answered, and p99 with the fault is at most so many times without."""
        without_ms, with_ms = self.p99_ms()
        ratio = with_ms / without_ms if without_ms else float("nan")
        rounds = len(self.during)
        return [
            Check(
                f"beside {beside} others' p99 {ratio:.2f}x (at most {most:g}x): {with_ms:.2f} ms over "
                f"{without_ms:.2f}, medians of {rounds} rounds",
                ratio <= most,
                timed=True,
            ),
            self.none_failed(beside),
        ]

    def none_failed(self, beside: str = "the fault") -> Check:
        """Return whether every usual request was answered with 200."""
        failed = self.whole.failed
        seen = f"beside {beside} {failed} of others' {len(self.whole):,} requests failed"
        # A machine that is too busy for the load makes the service refuse some of it, as it should.
        busy = failed == len(self.whole.rejected) + int((self.whole.status == 504).sum())
        return Check(seen + (f" ({self.whole.statuses()})" if failed else ""), failed == 0, timed=busy)


def compare(
    load: UsualLoad,
    go: Callable[[], None],
    rest: Callable[[], None],
    *,
    rounds: int,
    seconds: float,
    rest_seconds: float = 0.0,
) -> Comparison:
    """Let the fault go and rest in turn, so many seconds each, under one load.

    Args:
        rest_seconds: how long it rests, if that is not as long.
    """
    spans: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with load:
        time.sleep(WARM_S)
        for _ in range(rounds):
            for faulty, change in ((False, rest), (True, go)):
                change()
                time.sleep(SETTLE_S[faulty])
                began = time.perf_counter()
                time.sleep(seconds if faulty else rest_seconds or seconds)
                spans[faulty].append((began, time.perf_counter()))
        rest()
    without, during = ([load.timeline.between(*span) for span in spans[faulty]] for faulty in (False, True))
    return Comparison(without, during, load.timeline)


def _median(rounds: list[Timeline], percent: float) -> float:
    return statistics.median(one.answered.percentile_ms(percent) for one in rounds)
