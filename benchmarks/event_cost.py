"""Compares the service that records its answers with one that records nothing, in turn: what the event log costs."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from app.events.event_writer import finish
from app.events.records import IMPRESSIONS, KINDS
from app.events.spool import SPOOL, SUFFIX
from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, one_round, require_answers
from benchmarks.contenders import OURS, Contender
from benchmarks.figure import Figure
from benchmarks.process import in_turn
from benchmarks.testbed import Testbed

CANDIDATES = 500
LAST_S = 5.0
"""Seconds of answers at least that the cost of finishing a segment is measured of."""
SHARE = 0.5
"""Of the capacity, for percentiles."""


def with_log_over_without(
    testbed: Testbed, *, rounds: int = 15, seconds: float = 2.0, notify: Callable[[str], None] = lambda text: None
) -> list[Figure]:
    """Measure processor time, requests a second and p99 with the log on over those with it off.

    A segment is finished once a minute, so few rounds have one: what that takes is measured by itself and added.
    """
    common = {"CTR_BUSY_POLL_US": "0"}  # polling takes whatever is left of a core
    events = {"CTR_EVENTS": str(testbed.folder / "events")}
    with (
        testbed.service("without", settings=common) as without,
        testbed.service("with", settings=common | events) as with_log,
    ):
        sides = [Contender(OURS, *without), Contender(OURS, *with_log)]
        generators = [LoadGenerator(side.url, testbed.bodies(CANDIDATES)) for side in sides]
        cpu_us: tuple[list[float], list[float]] = ([], [])
        rates: tuple[list[float], list[float]] = ([], [])
        p99_ms: tuple[list[float], list[float]] = ([], [])
        with in_turn(side.process for side in sides):
            for number in range(rounds):
                notify(f"round {number + 1} of {rounds}")
                for index in (0, 1) if number % 2 else (1, 0):
                    with sides[index].process.turn():
                        measured = one_round(sides[index], generators[index], seconds, CONCURRENCY)
                    cpu_us[index].append(1000 * measured.cpu_ms)
                    rates[index].append(measured.requests_per_second)
                rate = SHARE * min(rates[0][-1], rates[1][-1])
                for index in (0, 1) if number % 2 else (1, 0):
                    with sides[index].process.turn():
                        result = uvloop.run(generators[index].open(rate, seconds, connections=CONCURRENCY))
                    require_answers(OURS, result)
                    p99_ms[index].append(result.summary()["latency_ms"]["p99"])
            with sides[1].process.turn():
                one_round(sides[1], generators[1], LAST_S, CONCURRENCY)
                time.sleep(1.0)  # until the thread has appended the last
            finishing_us = _finishing_us(testbed.folder / "events" / SPOOL)
    more_us = statistics.median(on - off for off, on in zip(*cpu_us, strict=True))
    least_us = min(cpu_us[1]) - min(cpu_us[0])
    ratios = [
        statistics.median(on / off for off, on in zip(*pairs, strict=True)) for pairs in (rates, p99_ms)
    ]  # within a round the machine was in the same state for both
    medians = [statistics.median(values) for values in (*cpu_us, *rates, *p99_ms)]
    return [
        Figure(
            f"processor time of recording an answer, {CANDIDATES} candidates, us",
            "at most",
            10.0,
            reached=more_us + finishing_us,
            note=f"all threads: {medians[1]:.0f} over {medians[0]:.0f} us (least of {rounds} rounds {least_us:.1f}), "
            f"and {finishing_us:.1f} of finishing segments",
        ),
        Figure(
            "requests/s with the log over without",
            "at least",
            0.98,
            reached=ratios[0],
            note=f"{medians[3]:,.0f} over {medians[2]:,.0f}",
        ),
        Figure(
            "p99 with the log over without, open loop at half the capacity",
            "at most",
            1.05,
            reached=ratios[1],
            note=f"{medians[5]:.2f} over {medians[4]:.2f} ms",
        ),
    ]


def _finishing_us(spool: Path) -> float:
    """Return the processor time that finishing the segments of what is in a spool takes for each answer in it.

    They are finished twice, and the second time counts: the first in a process takes 0.1 s more, whatever there is.
    """
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            rows, took_s = 0, 0.0
            for kind in KINDS:
                for file in spool.glob(f"*.{kind}{SUFFIX}"):
                    copy = Path(shutil.copy(file, folder))
                    began_s = time.process_time()
                    finished = finish(Path(folder), copy, kind, 0)
                    took_s += time.process_time() - began_s
                    rows += finished if kind == IMPRESSIONS else 0
    if not rows:
        raise RuntimeError("the service has just finished its segments: measure again")
    return 1e6 * took_s / rows
