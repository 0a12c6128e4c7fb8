"""Measures what a shadow costs the answers: the p99 at one load with a shadow and without, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from benchmarks.figure import Figure
from benchmarks.soak.recording import Floats, RecordedLoad, Recording
from benchmarks.soak.swaps import (
    ENTRY_S,
    POLL,
    RETIRED_S,
    SHARE,
    TRIAL_S,
    SwapTimeline,
    capacity,
    p99,
    record_steady,
    under_load,
)
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed

NAME = "shadowed"
STABLE, SHADOW = 1, 2
CANDIDATES = 500
ROUNDS = 4
STRETCH_S = 8.0
PATIENCE_S = 60.0


def shadow(
    testbed: Testbed,
    *,
    rounds: int = ROUNDS,
    stretch_s: float = STRETCH_S,
    trial_s: float = TRIAL_S,
    settings: Mapping[str, str] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Measure a service of its own with the default share of requests drawn.

    The seconds in which a shadow comes or goes are left out, because those are swaps.
    """
    publish(testbed, NAME, [STABLE, SHADOW])
    store = store_of(testbed, NAME)
    store.update_pointer(stable=STABLE)
    alone, shadowed = SwapTimeline(), SwapTimeline()
    compared: list[dict[str, Any]] = []
    with testbed.service(NAME, model=NAME, settings=POLL | dict(settings or {})) as (_, url):
        load = RecordedLoad(url, testbed.bodies(CANDIDATES))
        rate = SHARE * capacity(load, trial_s)
        notify(f"{rounds} times without and with a shadow at {rate:.0f} requests/s of {CANDIDATES}")

        def act() -> None:
            with httpx.Client(base_url=url, timeout=30) as client:
                for _ in range(rounds):
                    record_steady(alone, stretch_s)
                    store.update_pointer(shadow=SHADOW)
                    _wait_until(client, lambda live: live.get("shadow") == SHADOW)
                    record_steady(shadowed, stretch_s)
                    compared.append(client.get("/models").json()["shadow"] or {})
                    store.update_pointer(shadow=None)
                    _wait_until(client, lambda live: "shadow" not in live)
                    time.sleep(RETIRED_S)

        recording = under_load(load, rate, act)
    return [figure(recording, alone, shadowed, rate, compared[-1])]


def figure(
    recording: Recording, alone: SwapTimeline, shadowed: SwapTimeline, rate: float, compared: Mapping[str, Any]
) -> Figure:
    """Return p99 with a shadow over p99 without, as medians over the stretches."""
    due, latency_ms, _ = recording.arrays()
    without, with_one = (_stretches(due, latency_ms, timeline.steady) for timeline in (alone, shadowed))
    p50s, p99s = (
        [float(np.median([of(stretch) for stretch in stretches])) for stretches in (without, with_one)]
        for of in (lambda stretch: float(np.percentile(stretch, 50)), p99)
    )
    both = ", ".join(f"{p99(a):.2f} and {p99(b):.2f}" for a, b in zip(without, with_one, strict=True))
    scored, skipped, failed = (compared.get(outcome, 0) for outcome in ("compared", "skipped", "failed"))
    return Figure(
        "p99 with a shadow over without, medians of stretches",
        "at most",
        None,
        reached=p99s[1] / p99s[0],
        note=f"{rate:.0f} requests/s, {len(due):,} answers, {recording.failed} failed; p99 with {p99s[1]:.2f} ms, "
        f"without {p99s[0]:.2f} (stretches without and with: {both}); p50 {p50s[1]:.2f} and {p50s[0]:.2f} ms; of those "
        f"drawn {scored} were compared, {skipped} skipped, {failed} failed",
    )


def _stretches(due: Floats, latency_ms: Floats, spans: Sequence[tuple[float, float]]) -> list[Floats]:
    """Return the latencies of the spans without their beginning, when connections are opened or a version settles."""
    starts = [(min(start + ENTRY_S, (start + stop) / 2), stop) for start, stop in spans]
    return [latency_ms[(due >= start) & (due < stop)] for start, stop in starts]


def _wait_until(client: httpx.Client, holds: Callable[[dict[str, int]], bool]) -> None:
    """Wait until `holds`, given the live versions by label, returns True. Raises SystemExit if it never does."""
    due = time.monotonic() + PATIENCE_S
    while not holds(client.get("/models").json()["live"]):
        if time.monotonic() > due:
            raise SystemExit(f"error: the shadow does not come or go within {PATIENCE_S:.0f} s")
        time.sleep(0.1)
