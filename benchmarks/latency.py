"""p99 over p50 in an open loop: requests arrive at a fixed rate, whatever the service does."""

from __future__ import annotations

import uvloop

from app.loadgen import LoadGenerator
from benchmarks.capacity import CONCURRENCY, complain
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.stage import Stage

SHARE = 0.7
CANDIDATES = 500
WARM_S = 0.5


def spread(stage: Stage, url: str, *, seconds: float = 6.0, rounds: int = 3) -> Figure:
    """At 70 % of what the closed loop reaches just before; latencies count from when a request was due.

    The median of the rounds: one pause of a shared machine makes a p99.
    """
    generator = LoadGenerator(url, stage.bodies(CANDIDATES))
    uvloop.run(generator.closed(CONCURRENCY, WARM_S))
    found = []
    for _ in range(rounds):
        closed = uvloop.run(generator.closed(CONCURRENCY, max(1.0, seconds / 4)))
        complain(OURS, closed)
        rate = SHARE * closed.statuses[200] / closed.seconds
        result = uvloop.run(generator.open(rate, seconds))
        complain(OURS, result)
        latency = result.summary()["latency_ms"]
        found.append((latency["p99"] / latency["p50"], rate, latency))
    found.sort(key=lambda one: one[0])
    reached, rate, latency = found[rounds // 2]
    return Figure(
        f"p99 over p50 at {SHARE:.0%} of capacity, open loop, {CANDIDATES} candidates",
        "at most",
        2.5,
        reached=reached,
        note=f"{rate:.0f} requests/s for {seconds:.0f} s: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, "
        f"p99.9 {latency['p999']:.2f} ms; rounds: {', '.join(f'{ratio:.1f}x' for ratio, _, _ in found)}",
    )
