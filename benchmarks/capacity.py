"""Measures requests a second of each contender on a core of its own, in rounds that go from one to the next."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx
import uvloop

from app.loadgen.generator import LoadGenerator
from app.loadgen.result import LoadResult
from benchmarks.contenders import FLOOR, OURS, Contender
from benchmarks.peers.floor import SIZE
from benchmarks.process import Process, in_turn
from benchmarks.testbed import Testbed

CONCURRENCY = 8
WARM_S = 0.2


@dataclass
class Round:
    """One measurement of one contender."""

    requests_per_second: float
    """Rate in the time in which other programs did not have its core; on a quiet machine that is all the time."""
    wall_requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Processor time of the service per request."""
    busy: float
    """Share of that time in which its core worked for it; if it is well under 1, something else was the limit."""
    taken: float
    """Share of the wall time in which other programs had its core."""


@dataclass
class Capacity:
    """The rounds of all contenders."""

    rounds: dict[tuple[str, int], list[Round]] = field(default_factory=lambda: defaultdict(list))
    """Contender and number of candidates to its rounds."""

    def median(self, name: str, candidates: int) -> Round:
        """Return the median of each figure over the rounds."""
        rounds = self.rounds[name, candidates]
        return Round(*(statistics.median(getattr(r, part) for r in rounds) for part in Round.__annotations__))

    def ratio(self, name: str, other: str, candidates: int) -> float | None:
        """Return the ratio of the median rates; None if one was not measured."""
        if not (self.rounds.get((name, candidates)) and self.rounds.get((other, candidates))):
            return None
        return self.median(name, candidates).requests_per_second / self.median(other, candidates).requests_per_second


def measure_capacity(
    testbed: Testbed,
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    notify: Callable[[str], None],
) -> Capacity:
    """Measure in a closed loop, always `CONCURRENCY` requests at work. Raises SystemExit if a request fails."""
    capacity = Capacity()
    generators = {}
    for size in sizes:
        answer = _answer_bytes(testbed, contenders, size)
        for contender in contenders:
            headers = {SIZE.decode(): str(answer)} if contender.name == FLOOR else None
            generators[contender.name, size] = LoadGenerator(contender.url, testbed.bodies(size), headers=headers)
    with in_turn(contender.process for contender in contenders):
        for number, size, contender in itertools.product(range(rounds), sizes, contenders):
            notify(f"round {number + 1} of {rounds}, {size} candidates: {contender.name}")
            with contender.process.turn():
                measured = one_round(contender, generators[contender.name, size], seconds)
            capacity.rounds[contender.name, size].append(measured)
    return capacity


def one_round(contender: Contender, generator: LoadGenerator, seconds: float, concurrency: int = CONCURRENCY) -> Round:
    """Warm up, then measure one contender for so long. Raises SystemExit if a request fails."""
    process = contender.process
    require_answers(contender.name, uvloop.run(generator.closed(concurrency, WARM_S)))
    cpu, delayed = process.cpu_seconds(), process.delayed_seconds()
    result = uvloop.run(generator.closed(concurrency, seconds))
    cpu, delayed = process.cpu_seconds() - cpu, process.delayed_seconds() - delayed
    require_answers(contender.name, result)
    summary = result.summary()
    answered = result.statuses[200]
    # Its threads can delay one another: the time that its processor time fills was not taken by others.
    available_s = max(result.seconds - max(delayed, 0.0), min(cpu, result.seconds))
    return Round(
        requests_per_second=answered / available_s,
        wall_requests_per_second=answered / result.seconds,
        p50_ms=summary["latency_ms"]["p50"],
        p99_ms=summary["latency_ms"]["p99"],
        cpu_ms=1000 * cpu / answered,
        busy=cpu / available_s,
        taken=1 - available_s / result.seconds,
    )


def require_answers(name: str, result: LoadResult) -> None:
    """Raise SystemExit if a request got no answer, or if an answer of the service is degraded."""
    if result.failed or not result.statuses[200]:
        raise SystemExit(f"error: {name}: requests failed: {dict(result.statuses)}")
    if name == OURS and result.degraded:
        raise SystemExit(f"error: {name}: {result.degraded} of {result.statuses[200]} answers were degraded")


def side_by_side(
    services: Sequence[tuple[Process, str]], bodies: Sequence[Sequence[bytes]], *, rounds: int, seconds: float
) -> list[float]:
    """Return the median requests a second of several forms of the service, in turn, with the others stopped."""
    contenders = [Contender(OURS, process, url) for process, url in services]
    generators = [
        LoadGenerator(contender.url, its_bodies) for contender, its_bodies in zip(contenders, bodies, strict=True)
    ]
    rates: list[list[float]] = [[] for _ in contenders]
    with in_turn(contender.process for contender in contenders):
        for _ in range(rounds):
            for contender, generator, its_rates in zip(contenders, generators, rates, strict=True):
                with contender.process.turn():
                    its_rates.append(one_round(contender, generator, seconds).requests_per_second)
    return [statistics.median(its_rates) for its_rates in rates]


def _answer_bytes(testbed: Testbed, contenders: Sequence[Contender], size: int) -> int:
    """Return the size of the service's answer, which the floor answers too."""
    ranking = [c for c in contenders if c.name == OURS] or [c for c in contenders if c.ranks]
    if not ranking:
        return 40 * size
    return len(httpx.post(f"{ranking[0].url}/rank", content=testbed.bodies(size)[0], timeout=30).content)
