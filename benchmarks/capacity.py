"""Requests a second of each contender with a core to itself, in rounds that go from one contender to the next."""

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
from benchmarks.stage import Stage

CONCURRENCY = 8
WARM_S = 0.2


@dataclass
class Round:
    """One measurement of one contender."""

    requests_per_second: float
    """In the time its core was not taken by other programs: on a quiet machine, simply requests a second."""
    wall_requests_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    """Processor time of the service for a request."""
    busy: float
    """Share of that time its core worked for it; well under 1, something else was the limit."""
    taken: float
    """Share of the wall time in which other programs had its core."""


@dataclass
class Capacity:
    rounds: dict[tuple[str, int], list[Round]] = field(default_factory=lambda: defaultdict(list))
    """By contender and number of candidates."""

    def median(self, name: str, candidates: int) -> Round:
        rounds = self.rounds[name, candidates]
        return Round(*(statistics.median(getattr(r, part) for r in rounds) for part in Round.__annotations__))

    def ratio(self, name: str, other: str, candidates: int) -> float | None:
        """Of the median rates; None where one was not measured."""
        if not (self.rounds.get((name, candidates)) and self.rounds.get((other, candidates))):
            return None
        mine, theirs = self.median(name, candidates), self.median(other, candidates)
        return mine.requests_per_second / theirs.requests_per_second


def measure(
    stage: Stage,
    contenders: Sequence[Contender],
    sizes: Sequence[int],
    *,
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Capacity:
    """Closed loop: always `CONCURRENCY` requests at work. Raises SystemExit where a request fails."""
    capacity = Capacity()
    generators = {}
    for size in sizes:
        answer = _answer_bytes(stage, contenders, size)
        for contender in contenders:
            headers = {SIZE.decode(): str(answer)} if contender.name == FLOOR else None
            generators[contender.name, size] = LoadGenerator(contender.url, stage.bodies(size), headers=headers)
    with in_turn(contender.process for contender in contenders):
        for number, size, contender in itertools.product(range(rounds), sizes, contenders):
            say(f"round {number + 1} of {rounds}, {size} candidates: {contender.name}")
            with contender.process.turn():
                found = one_round(contender, generators[contender.name, size], seconds)
            capacity.rounds[contender.name, size].append(found)
    return capacity


def one_round(contender: Contender, generator: LoadGenerator, seconds: float, concurrency: int = CONCURRENCY) -> Round:
    """Raises SystemExit where a request fails."""
    process = contender.process
    complain(contender.name, uvloop.run(generator.closed(concurrency, WARM_S)))
    cpu, delayed = process.cpu_seconds(), process.delayed_seconds()
    result = uvloop.run(generator.closed(concurrency, seconds))
    cpu, delayed = process.cpu_seconds() - cpu, process.delayed_seconds() - delayed
    complain(contender.name, result)
    summary = result.summary()
    answered = result.statuses[200]
    # Threads of its own can delay one another: what its processor time fills was not taken by others.
    own_s = max(result.seconds - max(delayed, 0.0), min(cpu, result.seconds))
    return Round(
        requests_per_second=answered / own_s,
        wall_requests_per_second=answered / result.seconds,
        p50_ms=summary["latency_ms"]["p50"],
        p99_ms=summary["latency_ms"]["p99"],
        cpu_ms=1000 * cpu / answered,
        busy=cpu / own_s,
        taken=1 - own_s / result.seconds,
    )


def complain(name: str, result: LoadResult) -> None:
    """Raises SystemExit unless every request got its answer, and the service's are whole ones."""
    if result.failed or not result.statuses[200]:
        raise SystemExit(f"error: {name}: requests failed: {dict(result.statuses)}")
    if name == OURS and result.degraded:
        raise SystemExit(f"error: {name}: {result.degraded} of {result.statuses[200]} answers were degraded")


def side_by_side(
    services: Sequence[tuple[Process, str]], bodies: Sequence[Sequence[bytes]], *, rounds: int, seconds: float
) -> list[float]:
    """Median requests a second of the service in several forms, in turn, with the others stopped."""
    contenders = [Contender(OURS, process, url) for process, url in services]
    generators = [LoadGenerator(contender.url, of) for contender, of in zip(contenders, bodies, strict=True)]
    rates: list[list[float]] = [[] for _ in contenders]
    with in_turn(contender.process for contender in contenders):
        for _ in range(rounds):
            for contender, generator, found in zip(contenders, generators, rates, strict=True):
                with contender.process.turn():
                    found.append(one_round(contender, generator, seconds).requests_per_second)
    return [statistics.median(found) for found in rates]


def _answer_bytes(stage: Stage, contenders: Sequence[Contender], size: int) -> int:
    """The floor answers as many bytes as the service does."""
    asked = [c for c in contenders if c.name == OURS] or [c for c in contenders if c.ranks]
    if not asked:
        return 40 * size
    return len(httpx.post(f"{asked[0].url}/rank", content=stage.bodies(size)[0], timeout=30).content)
