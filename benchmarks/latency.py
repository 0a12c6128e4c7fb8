"""Measures p99 over p50 in an open loop: requests arrive at a fixed rate, whatever the service does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, require_answers
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import realtime_priority
from benchmarks.pauses import Pauses, pauses, waits_from_pauses
from benchmarks.process import in_turn
from benchmarks.testbed import Testbed

SHARE = 0.7
CANDIDATES = 500
WARM_S = 0.5
BUSY_POLL_US = 1000


@dataclass
class OpenRound:
    """One measurement at a fixed rate."""

    ratio: float
    """p99 over p50."""
    rate: float
    """Requests a second."""
    latency_ms: dict[str, float]


@dataclass
class _ServiceRounds:
    """The rounds of one service."""

    ordinary: list[OpenRound] = field(default_factory=list)
    first: list[OpenRound] = field(default_factory=list)
    """Rounds in which the generator and the store go first on their core."""
    alone: list[float] = field(default_factory=list)
    """p99 over p50 that the cores' pauses alone would cause."""


def tail_ratio(testbed: Testbed, *, seconds: float = 1.5, rounds: int = 7) -> list[Figure]:
    """Measure p99 over p50 of the service with default settings and of one that busy-polls, in turn.

    The rate is 70 % of what the closed loop reaches just before; latencies count from when a request was due. Rounds
    are many and short, and their median counts, because one pause of a shared machine makes a round's p99. Where the
    system allows, the generator and the store have their core before all others: each millisecond that the kernel's
    threads and other programs keep them from sending, answering or reading would count as the service's. The notes
    also give the ratio without that priority, and the ratio that the pauses of the cores alone would cause.
    """
    polling = {"CTR_BUSY_POLL_US": str(BUSY_POLL_US)}
    with testbed.service("latency") as default, testbed.service("busy-poll", settings=polling) as polls:
        services = [(process, LoadGenerator(url, testbed.bodies(CANDIDATES))) for process, url in (default, polls)]
        measured = [_ServiceRounds() for _ in services]
        for _, generator in services:
            uvloop.run(generator.closed(CONCURRENCY, WARM_S))
        with in_turn(process for process, _ in services):
            for _ in range(rounds):
                for (process, generator), rounds_of_service in zip(services, measured, strict=True):
                    with process.turn():
                        _one_turn(testbed, generator, rounds_of_service, seconds)
    return [
        _figure(f"p99 over p50 at {SHARE:.0%} of capacity, open loop, {CANDIDATES} candidates", measured[0], seconds),
        _figure(f"the same, CTR_BUSY_POLL_US={BUSY_POLL_US}", measured[1], seconds),
    ]


def _one_turn(testbed: Testbed, generator: LoadGenerator, rounds: _ServiceRounds, seconds: float) -> None:
    rounds.ordinary.append(_round(generator, seconds))
    with realtime_priority(*([testbed.store.pid] if testbed.store else [])) as goes_first:
        if goes_first:
            rounds.first.append(_round(generator, seconds))
    if testbed.service_core and testbed.other_core:
        server, sender = pauses([*testbed.service_core, *testbed.other_core], seconds)
        rounds.alone.append(_ratio_of_pauses(sender, server, (rounds.first or rounds.ordinary)[-1], seconds))


def _figure(what: str, rounds: _ServiceRounds, seconds: float) -> Figure:
    chosen = sorted(rounds.first or rounds.ordinary, key=lambda one: one.ratio)
    median, how = chosen[len(chosen) // 2], "the generator and the store share their core with the rest"
    if rounds.first:
        how = f"the generator and the store have their core first ({_ratios(rounds.ordinary)} where they do not)"
    if rounds.alone:
        how += f"; what the cores' pauses alone would make of a service that is never late: {_listed(rounds.alone)}"
    latency = median.latency_ms
    return Figure(
        what,
        "at most",
        2.5,
        reached=median.ratio,
        note=f"{median.rate:.0f} requests/s for {seconds:.0f} s: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} "
        f"ms, p99.9 {latency['p999']:.2f} ms; rounds: {_ratios(chosen)}, {how}",
    )


def _round(generator: LoadGenerator, seconds: float) -> OpenRound:
    closed = uvloop.run(generator.closed(CONCURRENCY, max(0.5, seconds / 4)))
    require_answers(OURS, closed)
    rate = SHARE * closed.statuses[200] / closed.seconds
    result = uvloop.run(generator.open(rate, seconds))
    require_answers(OURS, result)
    latency = result.summary()["latency_ms"]
    return OpenRound(latency["p99"] / latency["p50"], rate, latency)


def _ratio_of_pauses(sender: Pauses, server: Pauses, measured: OpenRound, seconds: float) -> float:
    """Return p99 over p50 if each request takes the p50 of `measured` and waits for pauses alone."""
    waits_s = waits_from_pauses(sender, server, measured.rate, measured.rate / SHARE, seconds)
    p50, p99 = np.percentile(measured.latency_ms["p50"] + 1000 * waits_s, [50, 99])
    return float(p99 / p50)


def _ratios(rounds: list[OpenRound]) -> str:
    return _listed([one.ratio for one in rounds])


def _listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.1f}x" for ratio in sorted(ratios))
