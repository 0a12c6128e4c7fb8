"""p99 over p50 in an open loop: requests arrive at a fixed rate, whatever the service does."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, complain
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import on_time
from benchmarks.pauses import Pauses, pauses, unavoidable
from benchmarks.process import in_turn
from benchmarks.stage import Stage

SHARE = 0.7
CANDIDATES = 500
WARM_S = 0.5
BUSY_POLL_US = 1000


@dataclass
class Round:
    ratio: float
    """p99 over p50."""
    rate: float
    """Requests a second."""
    latency_ms: dict[str, float]


@dataclass
class _Seen:
    """Rounds of one service."""

    ordinary: list[Round] = field(default_factory=list)
    first: list[Round] = field(default_factory=list)
    """The generator and the store go first on their core."""
    alone: list[float] = field(default_factory=list)
    """p99 over p50 of a service that is never late itself."""


def spread(stage: Stage, *, seconds: float = 1.5, rounds: int = 7) -> list[Figure]:
    """At 70 % of what the closed loop reaches just before; latencies count from when a request was due. Of the service
    as it is by default, and of one that polls, in turn.

    The median of the rounds, many and short: one pause of a shared machine makes a round's p99. The generator and the
    store have their core before all others where they may: each millisecond that the kernel's threads and other
    programs keep them from sending, answering or reading would count as the service's, which is an ordinary process on
    its own. What is seen without that stands beside, and so does what the pauses of the cores alone would make of a
    service that is never late itself.
    """
    polling = {"CTR_BUSY_POLL_US": str(BUSY_POLL_US)}
    with stage.service("latency") as default, stage.service("busy-poll", settings=polling) as polls:
        services = [(process, LoadGenerator(url, stage.bodies(CANDIDATES))) for process, url in (default, polls)]
        seen = [_Seen() for _ in services]
        for _, generator in services:
            uvloop.run(generator.closed(CONCURRENCY, WARM_S))
        with in_turn(process for process, _ in services):
            for _ in range(rounds):
                for (process, generator), found in zip(services, seen, strict=True):
                    with process.turn():
                        _one_turn(stage, generator, found, seconds)
    return [
        _figure(f"p99 over p50 at {SHARE:.0%} of capacity, open loop, {CANDIDATES} candidates", seen[0], seconds),
        _figure(f"the same, CTR_BUSY_POLL_US={BUSY_POLL_US}", seen[1], seconds),
    ]


def _one_turn(stage: Stage, generator: LoadGenerator, seen: _Seen, seconds: float) -> None:
    seen.ordinary.append(_round(generator, seconds))
    with on_time(*([stage.store.pid] if stage.store else [])) as may:
        if may:
            seen.first.append(_round(generator, seconds))
    if stage.service_core and stage.other_core:
        server, sender = pauses([*stage.service_core, *stage.other_core], seconds)
        seen.alone.append(_of_pauses(sender, server, (seen.first or seen.ordinary)[-1], seconds))


def _figure(what: str, seen: _Seen, seconds: float) -> Figure:
    chosen = sorted(seen.first or seen.ordinary, key=lambda one: one.ratio)
    median, how = chosen[len(chosen) // 2], "the generator and the store share their core with the rest"
    if seen.first:
        how = f"the generator and the store have their core first ({_ratios(seen.ordinary)} where they do not)"
    if seen.alone:
        how += f"; what the cores' pauses alone would make of a service that is never late: {_listed(seen.alone)}"
    latency = median.latency_ms
    return Figure(
        what,
        "at most",
        2.5,
        reached=median.ratio,
        note=f"{median.rate:.0f} requests/s for {seconds:.0f} s: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} "
        f"ms, p99.9 {latency['p999']:.2f} ms; rounds: {_ratios(chosen)}, {how}",
    )


def _round(generator: LoadGenerator, seconds: float) -> Round:
    closed = uvloop.run(generator.closed(CONCURRENCY, max(0.5, seconds / 4)))
    complain(OURS, closed)
    rate = SHARE * closed.statuses[200] / closed.seconds
    result = uvloop.run(generator.open(rate, seconds))
    complain(OURS, result)
    latency = result.summary()["latency_ms"]
    return Round(latency["p99"] / latency["p50"], rate, latency)


def _of_pauses(sender: Pauses, server: Pauses, found: Round, seconds: float) -> float:
    """p99 over p50 where a request takes that round's p50, and waits for pauses alone."""
    waits_s = unavoidable(sender, server, found.rate, found.rate / SHARE, seconds)
    p50, p99 = np.percentile(found.latency_ms["p50"] + 1000 * waits_s, [50, 99])
    return float(p99 / p50)


def _ratios(rounds: list[Round]) -> str:
    return _listed([one.ratio for one in rounds])


def _listed(ratios: list[float]) -> str:
    return ", ".join(f"{ratio:.1f}x" for ratio in sorted(ratios))
