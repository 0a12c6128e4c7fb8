"""Measures swaps under load: failures, the second around each swap, and the first requests on a new version.

The machine itself is slower for seconds at a time, so the steady state is measured between the swaps as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import uvloop

from app.registry.store.model_store import ModelStore
from benchmarks.capacity import CONCURRENCY, require_answers
from benchmarks.contenders import OURS
from benchmarks.figure import Figure
from benchmarks.machine import realtime_priority
from benchmarks.soak.recording import Floats, RecordedLoad, Recording
from benchmarks.soak.versions import store_of
from benchmarks.testbed import Testbed

SHARE = 0.7
CANDIDATES = 500
FIRST = 100
"""Number of requests on a new version whose slowest is reported."""
SPIKE, FIRST_SPIKE = 1.25, 2.0
TRIAL_S = 3.0
"""Seconds spent on measuring the capacity; a third of it is added to warm up."""
PATIENCE_S = 60.0
ENTRY_S = 1.5
"""Seconds left out at the beginning of a stretch, at most half of it: connections open, or a version is retired."""
RETIRED_S = 1.3
"""Seconds after a version's first answer by which the version before has been retired."""
SHORTEST_S = 0.1
"""Shortest time between two swaps that counts as steady."""
POLL = {"CTR_POLL_S": "0.25"}
"""Settings that let swaps follow one another quickly; all others are the defaults."""


@dataclass
class SwapTimeline:
    """The swaps and the steady stretches of a run, with their times."""

    steady: list[tuple[float, float]] = field(default_factory=list)
    """Stretches without a swap."""
    asked_at: dict[int, float] = field(default_factory=dict)
    """Version to the time at which the pointer named it."""

    def steady_spans(self, live_at: Mapping[int, float]) -> list[tuple[float, float]]:
        """Return the steady stretches and the times between swaps, from a version's retirement to the next pointer.

        A machine that is slower for some seconds is so in both halves of the comparison.
        """
        retired = {version: at + RETIRED_S for version, at in live_at.items() if version in self.asked_at}
        ends = sorted([*self.asked_at.values(), *(start for start, _ in self.steady)])
        between = [(at, next((end for end in ends if end > at), at)) for at in retired.values()]
        long_enough = [(start, stop) for start, stop in between if stop - start >= SHORTEST_S]
        settled = [(min(start + ENTRY_S, (start + stop) / 2), stop) for start, stop in self.steady]
        return sorted([*settled, *long_enough])


def capacity(load: RecordedLoad, seconds: float = TRIAL_S) -> float:
    """Return requests a second in a closed loop. Raises SystemExit if one fails."""
    uvloop.run(load.closed(CONCURRENCY, seconds / 3))
    result = uvloop.run(load.closed(CONCURRENCY, seconds))
    require_answers(OURS, result)
    return result.statuses[200] / result.seconds


def under_load(
    load: RecordedLoad, rate: float, act: Callable[[], None], *, keep_each: int = 0, connections: int = 64
) -> Recording:
    """Call `act` on a thread while requests arrive at this rate, and record the answers. Raises what `act` raises."""
    done = threading.Event()
    raised: list[BaseException] = []

    def acted() -> None:
        try:
            act()
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=acted, name="soak-act")
    thread.start()
    try:
        with realtime_priority():  # only the generator: what keeps it from sending would count as the service's
            recording = uvloop.run(load.recorded(rate, done.is_set, keep_each=keep_each, connections=connections))
    finally:
        thread.join()
    if raised:
        raise raised[0]
    return recording


def swap_through(
    load: RecordedLoad,
    store: ModelStore,
    timeline: SwapTimeline,
    versions: Iterable[int],
    period_s: float,
    each: Callable[[], None],
) -> None:
    """Make one version after the other stable, one each period, or later if a version takes longer to answer.

    Args:
        each: called after each version.
    """
    for version in versions:
        store.update_pointer(stable=version)
        timeline.asked_at[version] = time.perf_counter()
        time.sleep(period_s)
        while version not in load.recording.seen and time.perf_counter() < timeline.asked_at[version] + PATIENCE_S:
            time.sleep(0.01)
        each()


def record_steady(timeline: SwapTimeline, seconds: float) -> None:
    """Wait for so long without a swap, and note it as a steady stretch."""
    began = time.perf_counter()
    time.sleep(seconds)
    timeline.steady.append((began, time.perf_counter()))


def swaps(
    testbed: Testbed,
    url: str,
    versions: Sequence[int],
    *,
    name: str = "bench",
    period_s: float = 3.0,
    steady_s: float = 15.0,
    candidates: int = CANDIDATES,
    trial_s: float = TRIAL_S,
    each: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Move the pointer through the versions, with a stretch without swaps before, in the middle and after."""
    load, store, timeline = RecordedLoad(url, testbed.bodies(candidates)), store_of(testbed, name), SwapTimeline()
    rate = SHARE * capacity(load, trial_s)
    notify(f"{len(versions)} swaps in {len(versions) * period_s:.0f} s at {rate:.0f} requests/s of {candidates}")

    def act() -> None:
        half = len(versions) // 2
        record_steady(timeline, steady_s)
        swap_through(load, store, timeline, versions[:half], period_s, each)
        record_steady(timeline, steady_s)
        notify(f"{half} of {len(versions)} swaps done")
        swap_through(load, store, timeline, versions[half:], period_s, each)
        record_steady(timeline, steady_s)

    return figures(under_load(load, rate, act), timeline, versions, rate)


def figures(recording: Recording, timeline: SwapTimeline, versions: Sequence[int], rate: float) -> list[Figure]:
    """Return the figures of a run. Raises SystemExit if a version never answered."""
    due, latency_ms, version = recording.arrays()
    live_at = recording.live_at()
    missed = [v for v in versions if v not in live_at]
    if missed:
        raise SystemExit(f"error: {len(missed)} of {len(versions)} versions never answered, the first is {missed[0]}")
    stretches = timeline.steady_spans(live_at)
    steady = np.concatenate([_between(due, latency_ms, start, stop) for start, stop in stretches])
    steady_p99 = p99(steady)
    seconds = [_between(due, latency_ms, live_at[v] - 0.5, live_at[v] + 0.5) for v in versions]
    calm = [
        _between(due, latency_ms, at, min(at + 1.0, stop))
        for start, stop in stretches
        for at in np.arange(start, max(stop - 1.0, start) + 1e-9, 1.0)
    ]
    spans = [_between(due, latency_ms, timeline.asked_at[v], live_at[v] + 1.5) for v in versions]
    first = [latency_ms[version == v][:FIRST].max() for v in versions]
    control = [part.max() for part in np.array_split(steady, max(1, len(steady) // FIRST))]
    answered = len(due)
    took = {v: live_at[v] - timeline.asked_at[v] for v in versions}
    note = (
        f"{rate:.0f} requests/s, {answered:,} answers, {len(versions)} swaps in {due[-1] - due[0]:.0f} s with the "
        f"steady ones, {float(np.median(list(took.values()))):.1f} s each from the pointer's change; steady p50 "
        f"{np.percentile(steady, 50):.2f} ms, p99 {steady_p99:.2f} ms"
    )
    around = np.concatenate(seconds)
    over = [sum(p99(part) > SPIKE * steady_p99 for part in parts) / len(parts) for parts in (seconds, calm)]
    slow = [sum(one > FIRST_SPIKE * steady_p99 for one in ones) / len(ones) for ones in (first, control)]
    return [
        Figure(
            f"requests failed or degraded in {len(versions)} swaps under load",
            "at most",
            0,
            "",
            recording.failed + recording.degraded,
            note,
        ),
        Figure(
            "p99 in the seconds around swaps over the steady p99",
            "at most",
            SPIKE,
            reached=p99(around) / steady_p99,
            note=f"p99 {p99(around):.2f} ms over {steady_p99:.2f}; of single seconds {over[0]:.0%} are above "
            f"{SPIKE}x with a swap and {over[1]:.0%} without, which are {sum(b - a for a, b in stretches):.0f} s in "
            f"{len(stretches)} pieces; from the pointer's change to the retirement: "
            f"{p99(np.concatenate(spans)) / steady_p99:.2f}x",
        ),
        Figure(
            "the median swap: p99 in its second over the steady p99",
            "at most",
            SPIKE,
            reached=float(np.median([p99(part) for part in seconds])) / steady_p99,
            note=f"worst {max(map(p99, seconds)) / steady_p99:.2f}x; seconds without a swap: median "
            f"{float(np.median([p99(part) for part in calm])) / steady_p99:.2f}x, worst "
            f"{max(map(p99, calm)) / steady_p99:.2f}x",
        ),
        Figure(
            f"slowest of the first {FIRST} requests on a new version over the steady p99, median of the swaps",
            "at most",
            FIRST_SPIKE,
            reached=float(np.median(first)) / steady_p99,
            note=f"above {FIRST_SPIKE:g}x in {slow[0]:.0%} of the swaps, worst {max(first) / steady_p99:.2f}x; of "
            f"{FIRST} requests without a swap: median {float(np.median(control)) / steady_p99:.2f}x, above "
            f"{FIRST_SPIKE:g}x in {slow[1]:.0%}, worst {max(control) / steady_p99:.2f}x",
        ),
    ]


def p99(latency_ms: Floats) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(latency_ms, 99))


def _between(due: Floats, latency_ms: Floats, start: float, stop: float) -> Floats:
    return latency_ms[(due >= start) & (due < stop)]
