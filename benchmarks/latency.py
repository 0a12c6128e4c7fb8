"""p99 over p50 in an open loop: requests arrive at a fixed rate, whatever the service does."""

from __future__ import annotations

from typing import Any

import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import CONCURRENCY, complain
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import on_time
from benchmarks.stage import Stage

SHARE = 0.7
CANDIDATES = 500
WARM_S = 0.5


def spread(stage: Stage, url: str, *, seconds: float = 6.0, rounds: int = 3) -> Figure:
    """At 70 % of what the closed loop reaches just before; latencies count from when a request was due.

    The median of the rounds: one pause of a shared machine makes a p99. The generator has its core before all others
    where it may: it shares that with the store and the kernel's own threads, and each millisecond that those keep it
    from sending or reading would count as the service's. What it sees without that stands beside.
    """
    generator = LoadGenerator(url, stage.bodies(CANDIDATES))
    uvloop.run(generator.closed(CONCURRENCY, WARM_S))
    ordinary, first = [], []
    for _ in range(rounds):
        ordinary.append(_round(generator, seconds))
        with on_time() as may:
            if may:
                first.append(_round(generator, seconds))
    chosen = first or ordinary
    ratio, rate, latency = sorted(chosen, key=lambda one: one[0])[rounds // 2]
    how = "the generator has its core first" if first else "the generator shares its core with the store"
    beside = f"; {_ratios(ordinary)} where it shares it" if first else ""
    return Figure(
        f"p99 over p50 at {SHARE:.0%} of capacity, open loop, {CANDIDATES} candidates",
        "at most",
        2.5,
        reached=ratio,
        note=f"{rate:.0f} requests/s for {seconds:.0f} s: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, "
        f"p99.9 {latency['p999']:.2f} ms; rounds: {_ratios(chosen)}, {how}{beside}",
    )


def _round(generator: LoadGenerator, seconds: float) -> tuple[float, float, dict[str, Any]]:
    """p99 over p50, requests a second, and the latencies in milliseconds."""
    closed = uvloop.run(generator.closed(CONCURRENCY, max(1.0, seconds / 4)))
    complain(OURS, closed)
    rate = SHARE * closed.statuses[200] / closed.seconds
    result = uvloop.run(generator.open(rate, seconds))
    complain(OURS, result)
    latency = result.summary()["latency_ms"]
    return latency["p99"] / latency["p50"], rate, latency


def _ratios(rounds: list[tuple[float, float, dict[str, Any]]]) -> str:
    return ", ".join(f"{ratio:.1f}x" for ratio, _, _ in sorted(rounds, key=lambda one: one[0]))
