"""Compares a catalogue of 1,000,000 items with one of 10,000, all cached: what a look-up in much memory costs."""

from __future__ import annotations

from collections.abc import Callable

from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks.capacity import side_by_side
from benchmarks.figure import Figure
from benchmarks.testbed import set_up

CANDIDATES = 500
MANY, FEW = 1_000_000, 10_000


def many_over_few(
    service_core: set[int],
    other_core: set[int],
    *,
    rounds: int = 5,
    seconds: float = 2.0,
    notify: Callable[[str], None],
) -> Figure:
    """Measure two services with stores of their own, side by side; it takes minutes, most of them to fill the cache."""
    with set_up(SyntheticCatalogue(items=FEW), service_core, other_core) as few, few.service("few") as few_service:
        few_service[0].pause()
        notify(f"loading {MANY:,} items and waiting until all are cached: some minutes")
        with (
            set_up(SyntheticCatalogue(items=MANY), service_core, other_core) as many,
            many.service("many") as many_service,
        ):
            bodies = [few.bodies(CANDIDATES), many.bodies(CANDIDATES)]
            rates = side_by_side([few_service, many_service], bodies, rounds=rounds, seconds=seconds)
    return Figure(
        f"requests/s with {MANY:,} items over {FEW:,}, all cached, {CANDIDATES} candidates",
        "at least",
        0.87,
        reached=rates[1] / rates[0],
        note=f"{rates[0]:.0f} and {rates[1]:.0f} requests/s",
    )
