"""Measures how long the event loop is held while a version with large tables goes live, of known and of new code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks.figure import Figure
from benchmarks.soak.distinct import wait_until_live
from benchmarks.soak.recording import RecordedLoad
from benchmarks.soak.service import Beats
from benchmarks.soak.swaps import POLL, SHARE, TRIAL_S, SwapTimeline, capacity, p99, record_steady, under_load
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed

CANDIDATES = 500
CARDINALITY = 150_000
"""Values of each field; 32 fields make tables of 365 MB."""
SMALL_HIDDEN = (256, 128, 64, 16)
"""Hidden layers of the small version: other code than that of the large ones, and about as much work, so that the load
is a share of what both can do."""
HELD_MS = 20.0
CONTROL_S = 10.0


@dataclass
class Stretch:
    """What the loop did between two moments."""

    held_ms: float
    p99_ms: float
    seconds: float


def measure_held_loop(
    testbed: Testbed,
    *,
    cardinality: int = CARDINALITY,
    control_s: float = CONTROL_S,
    trial_s: float = TRIAL_S,
    settings: Mapping[str, str] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Have two large versions go live, after a small one, in a service whose event loop beats."""
    name = "large"
    publish(testbed, name, [0], hidden=SMALL_HIDDEN)
    store_of(testbed, name).update_pointer(stable=1)
    notify("building two versions with large tables")
    large = publish(testbed, name, [1, 2], catalogue=SyntheticCatalogue(cardinality=cardinality))
    tables_mb = (store_of(testbed, name).path(large[0]) / "tables.safetensors").stat().st_size / 1e6
    file = testbed.folder / "beats"
    program = (sys.executable, "-m", "benchmarks.soak.service", str(file))
    with testbed.service("beating", model=name, program=program, settings=POLL | dict(settings or {})) as (_, url):
        control, stretches = _go_live(testbed, url, name, large, Beats(file), control_s, trial_s, notify)
    worst = max(stretch.held_ms for stretch in stretches)
    notes = "; ".join(
        f"{what}: held {stretch.held_ms:.1f} ms, p99 {stretch.p99_ms:.1f} ms, {stretch.seconds:.1f} s"
        for what, stretch in zip(("code new to the process", "code that it knows"), stretches, strict=True)
    )
    return [
        Figure(
            f"longest the event loop is held while a version with {tables_mb:.0f} MB of tables goes live under load",
            "at most",
            HELD_MS,
            "ms",
            worst,
            f"{notes}; {control_s:.0f} s without a swap: held {control.held_ms:.1f} ms, p99 {control.p99_ms:.1f} ms",
        )
    ]


def _go_live(
    testbed: Testbed,
    url: str,
    name: str,
    versions: Sequence[int],
    beats: Beats,
    control_s: float,
    trial_s: float,
    notify: Callable[[str], None],
) -> tuple[Stretch, list[Stretch]]:
    generator, store, timeline = RecordedLoad(url, testbed.bodies(CANDIDATES)), store_of(testbed, name), SwapTimeline()
    rate = SHARE * capacity(generator, trial_s)
    notify(f"two versions with large tables go live at {rate:.0f} requests/s of {CANDIDATES}")
    spans: list[tuple[float, float]] = []

    def act() -> None:
        record_steady(timeline, control_s)
        with httpx.Client(base_url=url, timeout=30) as client:
            for version in versions:
                began = time.perf_counter()
                store.update_pointer(stable=version)
                wait_until_live(client, version)
                time.sleep(1.5)  # until the one before is retired
                spans.append((began, time.perf_counter()))
        record_steady(timeline, control_s)

    due, latency_ms, _ = under_load(generator, rate, act).arrays()

    def stretch(start: float, stop: float) -> Stretch:
        inside = latency_ms[(due >= start) & (due < stop)]
        return Stretch(float(beats.held_ms(start, stop).max()), p99(inside), stop - start)

    controls = [stretch(*span) for span in timeline.steady]
    control = Stretch(
        max(one.held_ms for one in controls), float(np.median([one.p99_ms for one in controls])), control_s
    )
    return control, [stretch(*span) for span in spans]
