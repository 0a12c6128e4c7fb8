"""p99 over p50 in an open loop: requests arrive at a fixed rate, whatever the service does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, complain
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import on_time
from benchmarks.pauses import Pauses, pauses, unavoidable
from benchmarks.stage import Stage

SHARE = 0.7
CANDIDATES = 500
WARM_S = 0.5


@dataclass
class Round:
    ratio: float
    """p99 over p50."""
    rate: float
    """Requests a second."""
    latency_ms: dict[str, float]


def spread(stage: Stage, url: str, *, seconds: float = 3.0, rounds: int = 7) -> Figure:
    """At 70 % of what the closed loop reaches just before; latencies count from when a request was due.

    The median of the rounds, many and short: one pause of a shared machine makes a round's p99. The generator has its
    core before all others where it may: it shares that with the store and the kernel's own threads, and each
    millisecond that those keep it from sending or reading would count as the service's. What it sees without that
    stands beside, and so does what the pauses of the cores alone would make of a service that is never late itself.
    """
    generator = LoadGenerator(url, stage.bodies(CANDIDATES))
    uvloop.run(generator.closed(CONCURRENCY, WARM_S))
    ordinary: list[Round] = []
    first: list[Round] = []
    alone: list[float] = []
    for _ in range(rounds):
        ordinary.append(_round(generator, seconds))
        with on_time() as may:
            if may:
                first.append(_round(generator, seconds))
        if stage.service_core and stage.other_core:
            server, sender = pauses([*stage.service_core, *stage.other_core], seconds)
            alone.append(_of_pauses(sender, server, (first or ordinary)[-1], seconds))
    chosen = sorted(first or ordinary, key=lambda one: one.ratio)
    median, how = chosen[rounds // 2], "the generator shares its core with the store"
    if first:
        how = f"the generator has its core first ({_ratios(ordinary)} where it shares it)"
    if alone:
        how += f"; what the cores' pauses alone would make of a service that is never late itself: {_listed(alone)}"
    latency = median.latency_ms
    return Figure(
        f"p99 over p50 at {SHARE:.0%} of capacity, open loop, {CANDIDATES} candidates",
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
