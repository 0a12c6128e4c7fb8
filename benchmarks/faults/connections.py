"""Slow, idle and half-open connections in front of a service with few descriptors."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import compare
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.process import ctr
from benchmarks.soak.versions import publish, store_of

KINDS = {"slow": 500, "idle": 1000, "half-open": 400}
DESCRIPTORS = 256
CLOSED_WITHIN_S = 10.0
HELD_S, REST_S = 11.0, 4.0
SWAP_S = 10.0
LIMITED = ("/bin/sh", "-c", f'ulimit -{{}} -n {DESCRIPTORS}; exec "$@"', "sh")


def _few_descriptors(bed: FaultBed) -> Sequence[Check]:
    """The hard limit leaves no way out: the service has to do with what it has."""
    return _held(bed, "few-descriptors", "H -S")


def _low_soft_limit(bed: FaultBed) -> Sequence[Check]:
    """Most systems start programs with a low soft limit under a high hard one."""
    return _held(bed, "low-soft-limit", "S")


def _held(bed: FaultBed, name: str, limit: str) -> Sequence[Check]:
    program = tuple(part.format(limit) for part in LIMITED)
    kinds = {kind: bed.count(number, number // 10) for kind, number in KINDS.items()}
    (other,) = publish(bed.testbed, "bench", [1])
    store = store_of(bed.testbed, "bench")
    with bed.service(name, program=(*program, ctr())) as service:
        with (
            Attack("hold", service.url, kinds=kinds) as attack,
            Attack("newcomers", service.url) as newcomers,
        ):
            newcomers.go()
            swapped: list[float | None] = []

            def go() -> None:
                attack.go()
                if not swapped:
                    store.update_pointer(stable=other)
                    swapped.append(service.holds_within(lambda health: health["model"]["version"] == other, SWAP_S))

            rounds = 1 if bed.smoke else 2
            result = compare(bed.load(service), go, attack.rest, rounds=rounds, seconds=HELD_S, rest_seconds=REST_S)
        store.update_pointer(stable=1)
        return [*_checks(attack, newcomers, swapped[0], kinds), *result.checks(1.2, "them"), *_after(service)]


def _checks(attack: Attack, newcomers: Attack, swapped_s: float | None, kinds: dict[str, int]) -> list[Check]:
    seen = {
        kind: {part: attack.seen.get(f"{kind} {part}", 0.0) for part in ("opened", "closed", "slowest")}
        for kind in kinds
    }
    told = ", ".join(
        f"{of['opened']:.0f} {kind} ones opened, {of['closed']:.0f} closed after at most {of['slowest']:.1f} s"
        for kind, of in seen.items()
    )
    half = seen["half-open"]
    failed = newcomers.seen.get("failed", 0)
    return [
        Check(told, half["closed"] >= half["opened"] and half["slowest"] <= CLOSED_WITHIN_S),
        Check(
            f"{failed:.0f} of {newcomers.seen.get('answered', 0) + failed:.0f} new honest connections failed, the "
            f"slowest took {newcomers.seen.get('slowest ms', 0):.0f} ms",
            failed == 0,
        ),
        Check(
            "the swap did not go through" if swapped_s is None else f"the swap took {swapped_s:.1f} s",
            swapped_s is not None,
        ),
    ]


def _after(service: Service) -> list[Check]:
    time.sleep(0.5)
    answer = service.rank("1", ["1", "2"])
    return [
        Check(
            f"afterwards: {answer.status_code}, degraded {answer.json().get('degraded')}",
            answer.json().get("degraded") == [],
        )
    ]


ROWS = (
    Row(
        "low-soft-limit",
        "half-open, silent and trickling connections, soft descriptor limit 256",
        "a whole head within 5 s of accept, a bound per address, the soft limit raised at start",
        _low_soft_limit,
        "found",
    ),
    Row(
        "few-descriptors",
        "500 slow clients, 1,000 idle and 400 half-open connections, few descriptors (256)",
        "normal clients: 0 rejected, p99 at most 1.2x; half-open ones closed within 10 s; a swap goes through",
        _few_descriptors,
    ),
)
