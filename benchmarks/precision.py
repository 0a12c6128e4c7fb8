"""Compares bf16 with fp32, with hidden layers 400-400-400, where the matrix products are most of the work."""

from __future__ import annotations

import httpx

from benchmarks.capacity import side_by_side
from benchmarks.figure import Figure
from benchmarks.testbed import Testbed

MODEL, HIDDEN = "wide", (400, 400, 400)
CANDIDATES = 500


def bf16_over_fp32(testbed: Testbed, *, rounds: int = 3, seconds: float = 1.5) -> Figure:
    """Measure the ratio of requests a second, after checking that bf16 changes the scores at all."""
    figure = Figure(f"bf16 over fp32, hidden 400-400-400, {CANDIDATES} candidates", "at least", 1.5)
    if MODEL not in testbed.versions:
        testbed.publish(MODEL, HIDDEN)
    with (
        testbed.service("fp32", model=MODEL, settings={"CTR_PRECISION": "fp32"}) as full,
        testbed.service("bf16", model=MODEL, settings={"CTR_PRECISION": "bf16"}) as half,
    ):
        bodies = testbed.bodies(CANDIDATES)
        scores = [_scores(url, bodies[0]) for _, url in (full, half)]
        difference = max(abs(scores[0][item] - scores[1][item]) for item in scores[0])
        if difference == 0.0:
            figure.note = "CTR_PRECISION=bf16 changes no score: the service computes in fp32 all the same"
            return figure
        rates = side_by_side([full, half], [bodies, bodies], rounds=rounds, seconds=seconds)
    figure.reached = rates[1] / rates[0]
    figure.note = f"{rates[0]:.0f} and {rates[1]:.0f} requests/s; scores differ by at most {difference:.2g}"
    return figure


def _scores(url: str, body: bytes) -> dict[str, float]:
    items = httpx.post(f"{url}/rank", content=body, timeout=30).json()["items"]
    return {item["item_id"]: item["score"] for item in items}
