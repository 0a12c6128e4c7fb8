"""Computes the ratios of the main table, and what one request costs over the floor."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from benchmarks.capacity import Capacity
from benchmarks.contenders import AFTERNOON, FLOOR, OURS, WEEK
from benchmarks.figure import Figure
from benchmarks.machine import pinned
from benchmarks.testbed import HIDDEN, Testbed

LIMITED_BELOW = 0.9
ASKED = ((AFTERNOON, 500, 30.0), (WEEK, 500, 4.0), (AFTERNOON, 100, 14.0), (WEEK, 100, 2.1))


@dataclass
class FloorCost:
    """Milliseconds of one request that no service can go without."""

    echo_ms: float
    get_ms: float
    products_ms: float

    @property
    def total_ms(self) -> float:
        """The cost that no service can go below."""
        return self.echo_ms + self.get_ms + self.products_ms


def floor_costs(testbed: Testbed, capacity: Capacity, sizes: list[int]) -> dict[int, FloorCost]:
    """Return the floor's cost by number of candidates.

    The echo is charged its processor time if the load generator limits it, and not its core.
    """
    command = [sys.executable, "-m", "benchmarks.floor_costs", testbed.redis_url]
    command += [",".join(map(str, HIDDEN)), ",".join(map(str, sizes))]
    with pinned(testbed.service_core):
        measured = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    costs = {}
    for size in sizes:
        echo = capacity.median(FLOOR, size)
        echo_ms = 1000 / echo.requests_per_second if echo.busy >= LIMITED_BELOW else echo.cpu_ms
        costs[size] = FloorCost(echo_ms, 1000 * measured["get_s"], 1000 * measured["products_s"][str(size)])
    return costs


def ratios(capacity: Capacity, floors: dict[int, FloorCost]) -> list[Figure]:
    """Return the figures that follow from the capacities; those that were not measured have no value."""
    figures = [
        Figure(
            f"requests/s over {peer}, {size} candidates", "at least", asked, reached=capacity.ratio(OURS, peer, size)
        )
        for peer, size, asked in ASKED
    ]
    cost = Figure("cost per request over the floor's, 500 candidates", "at most", 1.5)
    if 500 in floors and capacity.rounds.get((OURS, 500)):
        floor, cost_ms = floors[500], 1000 / capacity.median(OURS, 500).requests_per_second
        cost.reached = cost_ms / floor.total_ms
        cost.note = (
            f"{cost_ms:.3f} ms over {floor.total_ms:.3f} ms: echo {floor.echo_ms:.3f}, one GET {floor.get_ms:.3f}, "
            f"matrix products {floor.products_ms:.3f}"
        )
    time = Figure("time per request, 1,000 over 100 candidates", "at most", 6.0)
    if capacity.rounds.get((OURS, 100)) and capacity.rounds.get((OURS, 1000)):
        few, many = capacity.median(OURS, 100), capacity.median(OURS, 1000)
        time.reached = few.requests_per_second / many.requests_per_second
    return [*figures, cost, time]
