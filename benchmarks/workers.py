"""Compares two worker processes with one, on the two cores that the load generator and the store use too."""

from __future__ import annotations

import statistics

import uvloop

from app.loadgen.generator import LoadGenerator
from benchmarks.capacity import WARM_S, require_answers
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import cpu_seconds, pinned
from benchmarks.process import Process, in_turn
from benchmarks.testbed import Testbed

CANDIDATES = 500
CONNECTIONS = 16


def two_over_one(testbed: Testbed, *, rounds: int = 3, seconds: float = 1.5) -> list[Figure]:
    """Measure two workers over one, with 16 connections in a closed loop and nothing pinned within the two cores.

    How evenly the workers share is measured in an open loop at half the rate, because in a closed one every worker is
    always busy.
    """
    both = testbed.service_core | testbed.other_core
    rates: dict[int, list[float]] = {1: [], 2: []}
    with (
        pinned(both),
        testbed.service("workers-1", core=both) as (one, one_url),
        testbed.service("workers-2", core=both, options=("--workers", "2")) as (two, two_url),
    ):
        bodies = testbed.bodies(CANDIDATES)
        services = {1: (one, LoadGenerator(one_url, bodies)), 2: (two, LoadGenerator(two_url, bodies))}
        with in_turn((one, two)):
            for _ in range(rounds):
                for number, (process, generator) in services.items():
                    with process.turn():
                        uvloop.run(generator.closed(CONNECTIONS, WARM_S))
                        result = uvloop.run(generator.closed(CONNECTIONS, seconds))
                    require_answers(OURS, result)
                    rates[number].append(result.statuses[200] / result.seconds)
            with two.turn():
                busiest = _busiest(two, services[2][1], statistics.median(rates[2]) / 2, 2 * seconds)
    medians = {number: statistics.median(its_rates) for number, its_rates in rates.items()}
    note = f"{medians[1]:.0f} and {medians[2]:.0f} requests/s, generator and store on the same two cores"
    return [
        Figure(
            "2 workers over 1 on 2 cores, generator included",
            "at least",
            1.6,
            reached=medians[2] / medians[1],
            note=note,
        ),
        Figure(
            "busiest of 2 workers over its fair share",
            "at most",
            1.5,
            reached=busiest,
            note=f"of processor time, {CONNECTIONS} keep-alive connections, open loop",
        ),
    ]


def _busiest(process: Process, generator: LoadGenerator, rate: float, seconds: float) -> float:
    before = {pid: cpu_seconds(pid) for pid in process.pids}
    require_answers(OURS, uvloop.run(generator.open(rate, seconds, connections=CONNECTIONS)))
    spent = sorted(cpu_seconds(pid) - earlier for pid, earlier in before.items())[-2:]
    return max(spent) / statistics.mean(spent)
