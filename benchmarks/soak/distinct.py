"""Hundreds of distinct versions under load: no answer mixes two, and memory does not grow."""

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
from benchmarks.stage import Stage

CANDIDATES = 100
SETTLED_AFTER = 20
"""Swaps before memory is looked at."""
ENDS = 20
"""Swaps at the beginning and the end whose median memory is compared."""
SWAP_TIMEOUT_S = 60.0
SWAP_S = 1.2
"""At least that long takes a swap that waits for the one before to be retired."""
DIFFERENCE = 1e-5


def distinct(
    stage: Stage,
    process: Process,
    url: str,
    versions: Sequence[int],
    *,
    name: str = "bench",
    responses: int = 100_000,
    earlier_mb: Sequence[float] = (),
    trial_s: float = TRIAL_S,
    say: Callable[[str], None] = lambda _: None,
) -> list[Figure]:
    """Point at each version as soon as the one before it is live.

    Args:
        responses: how many are recomputed at the least, where that many come in the time.
        earlier_mb: memory after swaps of the same process before these.
    """
    requests = numbered(stage.bodies(CANDIDATES))
    generator, store = RecordedLoad(url, requests), store_of(stage, name)
    rate = SHARE * capacity(generator, trial_s)
    say(f"{len(versions)} swaps, one after the other, at {rate:.0f} requests/s of {CANDIDATES}")
    memory_mb = list(earlier_mb)

    def act() -> None:
        with httpx.Client(base_url=url, timeout=30) as client:
            for count, version in enumerate(versions, 1):
                store.update_pointer(stable=version)
                wait_until_live(client, version)
                memory_mb.append(resident_mb(process))
                if count % 50 == 0:
                    say(f"{count} of {len(versions)} swaps done, {memory_mb[-1]:.0f} MB resident")

    keep_each = max(1, int(rate * SWAP_S * len(versions) / responses))
    recording = under_load(generator, rate, act, keep_each=keep_each)
    say(f"recomputing {len(recording.bodies):,} of {len(recording.version):,} responses")
    figure = recomputed(stage, name, recording.bodies, requests, say)
    figure.note += f"; of {len(recording.version):,} requests {recording.failed} failed"
    return [figure, growth(memory_mb)]


def wait_until_live(client: httpx.Client, version: int) -> None:
    """Raises SystemExit where it does not go live."""
    due = time.monotonic() + SWAP_TIMEOUT_S
    while client.get("/health").json()["model"]["version"] != version:
        if time.monotonic() > due:
            raise SystemExit(f"error: version {version} is not live after {SWAP_TIMEOUT_S:.0f} s")
        time.sleep(0.02)


def numbered(bodies: Sequence[bytes]) -> list[bytes]:
    """The same requests, each with its number as its `request_id`, which the answer repeats."""
    decoded = map(msgspec.json.decode, bodies)
    return [msgspec.json.encode(body | {"request_id": str(number)}) for number, body in enumerate(decoded)]


def recomputed(
    stage: Stage, name: str, answers: Sequence[bytes], requests: Sequence[bytes], say: Callable[[str], None]
) -> Figure:
    """Compare answers with the ranking of the version that each names, by its plain `forward`, in this process."""
    torch.set_num_threads(1)
    seen: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    degraded = 0
    for answer in answers:
        head = _head.decode(answer)
        if head.degraded:  # made without some of the features, as it says itself
            degraded += 1
        else:
            seen[head.version, int(head.request_id)].append(answer)
    store, worst, wrong, loaded = store_of(stage, name), 0.0, 0, 0
    for version in sorted({version for version, _ in seen}):
        artifact = load(store.path(version))
        loaded += 1
        for number in sorted(number for of, number in seen if of == version):
            expected = reference(artifact, stage, msgspec.json.decode(requests[number]))
            # Of the same version the same request has the same answer, to the last byte.
            for distinct_answer in set(seen[version, number]):
                difference = compare(expected, msgspec.json.decode(distinct_answer)["items"])
                worst = max(worst, difference)
                if not difference <= DIFFERENCE:
                    wrong += seen[version, number].count(distinct_answer)
        if loaded % 50 == 0:
            say(f"recomputed with {loaded} versions")
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
    """Of the process that serves, file pages included; NaN where /proc does not tell."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def growth(memory_mb: Sequence[float]) -> Figure:
    """Megabytes per 100 swaps, from the median of the first settled ones to that of the last."""
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
