"""Check that a version takes about as long as the live one, on the path that answers requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from app.registry.gate.gate_report import GateCheck
from app.registry.gate.served_version import ServedVersion

CANDIDATES = 500
TIMING_S = 1.0
"""The longest that each of the two timings may take; a model that needs longer for one turn is timed once."""
TIMING_TURNS = 30


def check_latency(new: ServedVersion, live: ServedVersion | None, max_ratio: float) -> GateCheck:
    """Time ranking and encoding CANDIDATES items, in turns with the live version, and compare the best turns."""
    row_N = np.arange(CANDIDATES) % new.item_count
    versions = [new, *([live] if live else [])]
    timed = {
        "request": [partial(version.rank, row_N) for version in versions],
        "items": [partial(version.encode_items, version.item_slots(row_N)) for version in versions],
    }
    figures: dict[str, float] = {}
    for name, calls in timed.items():
        best_s = _best_of_turns(calls)
        figures[f"{name}_ms"] = round(best_s[0] * 1e3, 4)
        if live is not None:
            figures[f"{name}_ratio"] = round(best_s[0] / best_s[1], 3)
    slow = [name for name in timed if figures.get(f"{name}_ratio", 0.0) > max_ratio]
    if slow and live is not None:
        ratio = figures[f"{slow[0]}_ratio"]
        work = "scoring" if slow[0] == "request" else "encoding"
        detail = f"{work} {CANDIDATES} items takes {ratio:.1f} times as long as with version {live.version}"
        return GateCheck("latency", False, "latency", f"{detail}, {max_ratio:g} is allowed", figures, comparison=True)
    return GateCheck("latency", True, figures=figures)


def _best_of_turns(calls: Sequence[Callable[[], None]]) -> list[float]:
    """Time the calls in turns, so that a busy machine slows all alike; return the seconds of each one's fastest."""
    best_s = [float("inf")] * len(calls)
    until = time.perf_counter() + TIMING_S
    for _ in range(TIMING_TURNS):
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            best_s[number] = min(best_s[number], time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    return best_s
