"""Compares scoring candidates of several requests in one call with scoring each request alone."""

from __future__ import annotations

from benchmarks.capacity import CONCURRENCY, side_by_side
from benchmarks.figure import Figure
from benchmarks.testbed import Testbed

MAX_ROWS = 4000


def batched_over_alone(testbed: Testbed, *, rounds: int = 5, seconds: float = 1.5) -> list[Figure]:
    """Measure with 100 and with 500 candidates; `CTR_BATCH_MAX_WAIT_US=0` batches what arrived together."""
    figures = []
    batched = {"CTR_BATCH_MAX_ROWS": str(MAX_ROWS), "CTR_BATCH_MAX_WAIT_US": "0"}
    with (
        testbed.service("alone") as alone,
        testbed.service("batched", settings=batched) as together,
    ):
        for candidates in (100, 500):
            bodies = testbed.bodies(candidates)
            rates = side_by_side([alone, together], [bodies, bodies], rounds=rounds, seconds=seconds)
            figures.append(
                Figure(
                    f"batching over none, {candidates} candidates, {CONCURRENCY} requests at work",
                    "at least",
                    1.0,
                    reached=rates[1] / rates[0],
                    note=f"{rates[0]:.0f} and {rates[1]:.0f} requests/s; below 1x it does not pay and stays off",
                )
            )
    return figures
