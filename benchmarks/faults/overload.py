"""More than the service can do: arrivals at a multiple of its capacity, whatever it answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.timeline import Timeline

CANDIDATES = 1000
"""Requests that take the service a millisecond or more, so that the load can send ten times as many as it answers."""
UNLOADED_SHARE = 0.5
LOAD_S, AFTER_S = 5.0, 7.0
ENTRY_S = 1.0
NORMAL_AFTER_S = 5.0
CONNECTIONS = 600
REJECTED_MS = 10.0


def _overload(factor: float, bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    peak = bed.capacity(service, CANDIDATES, anew=True)
    lasts_s = 1.5 if bed.smoke else LOAD_S
    with bed.load(service, candidates=CANDIDATES, share=UNLOADED_SHARE) as before:
        time.sleep(3.0)
    with bed.load(service, candidates=CANDIDATES, share=factor, connections=CONNECTIONS) as over:
        began = time.perf_counter()
        time.sleep(lasts_s)
        ended = time.perf_counter()
    # The load process waits for its last answers before it ends: what is normal counts from the last arrival on.
    with bed.load(service, candidates=CANDIDATES, share=UNLOADED_SHARE) as after:
        time.sleep(max(0.5, ended + AFTER_S - time.perf_counter()))
    return _checks(
        factor, peak, before.timeline, over.timeline, after.timeline, (began + min(ENTRY_S, lasts_s / 3), ended)
    )


def _checks(
    factor: float, peak: float, before: Timeline, load: Timeline, after: Timeline, span: tuple[float, float]
) -> Sequence[Check]:
    began, ended = span
    over, unloaded_ms = load.between(began, ended), before.p99_ms
    answered = load.answered
    goodput = int(((answered.done >= began) & (answered.done < ended)).sum()) / (ended - began)
    arrived = len(over) / (ended - began)
    rejected_ms = over.rejected.percentile_ms(99)
    others = len(over) - len(over.answered) - len(over.rejected)
    late = after.between(ended + NORMAL_AFTER_S, float("inf"))
    return [
        Check(f"{arrived / peak:.1f}x of {peak:.0f} requests/s arrived: {over.statuses()}", others == 0),
        Check(f"goodput {goodput / peak:.0%} of the peak (at least 90 %)", goodput >= 0.9 * peak, timed=True),
        Check(
            f"admitted p99 {over.p99_ms / unloaded_ms:.1f}x unloaded (at most 2x): {over.p99_ms:.1f} ms over "
            f"{unloaded_ms:.1f}",
            over.p99_ms <= 2 * unloaded_ms,
            timed=True,
        ),
        Check(
            f"rejected in {rejected_ms:.1f} ms, p99 (at most {REJECTED_MS:.0f})"
            if len(over.rejected)
            else "none rejected",
            len(over.rejected) == 0 or rejected_ms <= REJECTED_MS,
            timed=True,
        ),
        Check(f"{late.failed} of {len(late):,} requests from {NORMAL_AFTER_S:.0f} s after on failed", late.failed == 0),
        Check(
            f"p99 then {late.p99_ms / unloaded_ms:.1f}x unloaded (at most 1.5x)",
            late.p99_ms <= 1.5 * unloaded_ms,
            timed=True,
        ),
    ]


def _row(factor: int) -> Row:
    run: Callable[[FaultBed], Sequence[Check]] = partial(_overload, factor)
    return Row(
        f"overload-{factor}x",
        f"{factor}x capacity, open loop",
        "goodput at least 90 % of peak, admitted p99 at most 2x unloaded, rejects in 10 ms; normal within 5 s after",
        run,
    )


ROWS = tuple(_row(factor) for factor in (2, 5, 10))
