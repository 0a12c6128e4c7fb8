"""Checks that memory, descriptors and threads stay where they are while versions are swapped under load, for hours."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import uvloop

from benchmarks.figure import Figure
from benchmarks.machine import realtime_priority
from benchmarks.process import Process
from benchmarks.soak.recording import RecordedLoad
from benchmarks.soak.swaps import POLL, SHARE, TRIAL_S, capacity
from benchmarks.soak.versions import publish, store_of
from benchmarks.testbed import Testbed

CANDIDATES = 100
VERSIONS = 3
SWAP_EVERY_S = 20.0
SETTLE_S = 120.0
SAMPLE_EVERY_S = 2.0
STRETCH_S = 30.0
"""The load is counted in stretches, so that its own memory stays where it is too."""
FLAT = 2.0
"""Percent."""
NAME = "steady"


@dataclass
class Samples:
    """What the processes of a service hold, once every SAMPLE_EVERY_S."""

    at_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    swaps: int = 0

    def take(self, process: Process, at_s: float) -> None:
        self.at_s.append(at_s)
        self.memory_mb.append(process.resident_mb())
        self.descriptors.append(process.descriptors())
        self.threads.append(process.threads())

    def figures(self, settle_s: float) -> list[Figure]:
        """Return by how much each has changed, from the first to the last quarter of the time after `settle_s`."""
        after = np.array(self.at_s) >= settle_s
        return [
            _change(what, np.array(values, float)[after], unit)
            for what, values, unit in (
                ("resident memory", self.memory_mb, " MB"),
                ("descriptors", self.descriptors, ""),
                ("threads", self.threads, ""),
            )
        ]


def steady(
    testbed: Testbed,
    *,
    minutes: float = 10.0,
    swap_every_s: float = SWAP_EVERY_S,
    settle_s: float = SETTLE_S,
    trial_s: float = TRIAL_S,
    settings: Mapping[str, str] | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Swap versions in turn under load for so many minutes. The first `settle_s` do not count."""
    versions = publish(testbed, NAME, range(VERSIONS))
    store = store_of(testbed, NAME)
    store.update_pointer(stable=versions[0])
    samples, over = Samples(), threading.Event()
    with testbed.service(NAME, model=NAME, settings={**POLL, **(settings or {})}) as (process, url):
        load = RecordedLoad(url, testbed.bodies(CANDIDATES))
        rate = SHARE * capacity(load, trial_s)
        notify(f"{minutes:.0f} minutes at {rate:.0f} requests/s of {CANDIDATES}, a swap each {swap_every_s:.0f} s")
        began = time.perf_counter()

        def swap_and_sample() -> None:
            turn, next_swap = itertools.cycle(versions[1:] + versions[:1]), swap_every_s
            while not over.wait(SAMPLE_EVERY_S):
                at_s = time.perf_counter() - began
                samples.take(process, at_s)
                if at_s >= next_swap:
                    store.update_pointer(stable=next(turn))
                    samples.swaps += 1
                    next_swap += swap_every_s

        sampler = threading.Thread(target=swap_and_sample, daemon=True, name="steady-sampler")
        sampler.start()
        failed = degraded = answered = 0
        try:
            while (left_s := 60 * minutes - (time.perf_counter() - began)) > 0:
                with realtime_priority():
                    result = uvloop.run(load.open(rate, min(STRETCH_S, left_s)))
                failed, degraded = failed + result.failed, degraded + result.degraded
                answered += result.statuses[200]
                if samples.memory_mb:
                    minutes_left = max(0.0, minutes - (time.perf_counter() - began) / 60)
                    notify(f"{samples.swaps} swaps, {samples.memory_mb[-1]:.0f} MB, {minutes_left:.0f} minutes left")
        finally:
            over.set()
            sampler.join()
    note = f"{answered:,} answers and {samples.swaps} swaps in {minutes:g} minutes at {rate:.0f} requests/s"
    title = "requests failed or degraded under a steady load with swaps"
    return [Figure(title, "at most", 0, "", failed + degraded, note), *samples.figures(settle_s)]


def _change(what: str, values: np.ndarray, unit: str) -> Figure:
    """Return the change in percent, up or down, between the medians of the first and the last quarter."""
    title = f"change of {what} under a steady load with swaps, after the first minutes"
    quarter = len(values) // 4
    if not quarter:
        return Figure(title, "at most", FLAT, "%", None, f"{len(values)} samples are too few")
    first, last = float(np.median(values[:quarter])), float(np.median(values[-quarter:]))
    note = f"{first:.0f}{unit} at first, {last:.0f}{unit} at last, {values.min():.0f} to {values.max():.0f} throughout"
    return Figure(title, "at most", FLAT, "%", 100 * abs(last - first) / first, note)
