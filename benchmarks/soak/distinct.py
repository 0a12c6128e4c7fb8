"""Checks, with hundreds of distinct versions under load, that no answer mixes two and that memory does not grow."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import msgspec
import numpy as np
import torch

from app.registry.artifact.load import load
from benchmarks.agreement import compare, reference
from benchmarks.figure import Figure
from benchmarks.process import Process
from benchmarks.soak.recording import RecordedLoad
from benchmarks.soak.swaps import SHARE, TRIAL_S, capacity, under_load
from benchmarks.soak.versions import store_of
from benchmarks.testbed import Testbed

CANDIDATES = 100
SETTLED_AFTER = 20
"""Swaps before memory is measured."""
ENDS = 20
"""Number of swaps at the beginning, and at the end, whose median memory is compared."""
SWAP_TIMEOUT_S = 60.0
SWAP_S = 1.2
"""Shortest time of a swap that waits until the version before is retired."""
DIFFERENCE = 1e-5


def distinct(
    testbed: Testbed,
    process: Process,
    url: str,
    versions: Sequence[int],
    *,
    name: str = "bench",
    responses: int = 100_000,
    earlier_mb: Sequence[float] = (),
    trial_s: float = TRIAL_S,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Make each version stable as soon as the one before it is live, under load.

    Args:
        responses: least number of responses to recompute, if that many come in the time.
        earlier_mb: memory after earlier swaps of the same process.
    """
    requests = numbered(testbed.bodies(CANDIDATES))
    generator, store = RecordedLoad(url, requests), store_of(testbed, name)
    rate = SHARE * capacity(generator, trial_s)
    notify(f"{len(versions)} swaps, one after the other, at {rate:.0f} requests/s of {CANDIDATES}")
    memory_mb = list(earlier_mb)

    def act() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for count, version in enumerate(versions, 1):
                store.update_pointer(stable=version)
                wait_until_live(client, version)
                memory_mb.append(resident_mb(process))
                if count % 50 == 0:
                    notify(f"{count} of {len(versions)} swaps done, {memory_mb[-1]:.0f} MB resident")

    keep_each = max(1, int(rate * SWAP_S * len(versions) / responses))
    recording = under_load(generator, rate, act, keep_each=keep_each)
    notify(f"recomputing {len(recording.bodies):,} of {len(recording.version):,} responses")
    figure = recomputed(testbed, name, recording.bodies, requests, notify)
    figure.note += f"; of {len(recording.version):,} requests {recording.failed} failed"
    return [figure, growth(memory_mb)]


def wait_until_live(client: httpx.Client, version: int) -> None:
    """Wait until the version is live. Raises SystemExit if it is not live in time."""
    due = time.monotonic() + SWAP_TIMEOUT_S
    while client.get("/health").json()["model"]["version"] != version:
        if time.monotonic() > due:
            raise SystemExit(f"error: version {version} is not live after {SWAP_TIMEOUT_S:.0f} s")
        time.sleep(0.02)


def numbered(bodies: Sequence[bytes]) -> list[bytes]:
    """Return the requests, each with its number as its `request_id`, which the answer repeats."""
    decoded = map(msgspec.json.decode, bodies)
    return [msgspec.json.encode(body | {"request_id": str(number)}) for number, body in enumerate(decoded)]


def recomputed(
    testbed: Testbed, name: str, answers: Sequence[bytes], requests: Sequence[bytes], notify: Callable[[str], None]
) -> Figure:
    """Compare answers with the ranking of the version that each names, by its plain `forward`, in this process."""
    torch.set_num_threads(1)
    answers_of: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    degraded = 0
    for answer in answers:
        head = _head.decode(answer)
        if head.degraded:  # made without some of the features
            degraded += 1
        else:
            answers_of[head.version, int(head.request_id)].append(answer)
    store, worst, wrong, loaded = store_of(testbed, name), 0.0, 0, 0
    for version in sorted({version for version, _ in answers_of}):
        artifact = load(store.path(version))
        loaded += 1
        for number in sorted(number for answering, number in answers_of if answering == version):
            expected = reference(artifact, testbed, msgspec.json.decode(requests[number]))
            # One version gives the same answer to the same request, to the last byte.
            for distinct_answer in set(answers_of[version, number]):
                difference = compare(expected, msgspec.json.decode(distinct_answer)["items"])
                worst = max(worst, difference)
                if not difference <= DIFFERENCE:
                    wrong += answers_of[version, number].count(distinct_answer)
        if loaded % 50 == 0:
            notify(f"recomputed with {loaded} versions")
    return Figure(
        "largest difference of a response from the version it names, recomputed",
        "at most",
        DIFFERENCE,
        "",
        worst,
        f"{len(answers) - degraded:,} responses of {loaded} versions, {wrong} of them further off; {degraded} more say "
        "that they are degraded",
    )


class _Head(msgspec.Struct):
    request_id: str
    version: int
    degraded: list[str]


_head = msgspec.json.Decoder(_Head)


def resident_mb(process: Process) -> float:
    """Return the resident memory of a process, file pages included; NaN without /proc."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def growth(memory_mb: Sequence[float]) -> Figure:
    """Return the megabytes gained per 100 swaps, from the median of the first settled swaps to that of the last."""
    settled = memory_mb[SETTLED_AFTER:]
    ends = min(ENDS, len(settled) // 3)
    what = f"resident memory gained per 100 swaps of distinct versions, after the first {SETTLED_AFTER}"
    if not ends:
        return Figure(what, "at most", 1.0, "MB", None, f"{len(memory_mb)} swaps are too few")
    first, last = (float(np.median(part)) for part in (settled[:ends], settled[-ends:]))
    return Figure(
        what,
        "at most",
        1.0,
        "MB",
        100 * (last - first) / (len(settled) - ends),
        f"{len(memory_mb)} swaps; {first:.1f} MB at first, {last:.1f} at last, {max(settled):.1f} at most",
    )
