"""Clients that leave in the middle of a request."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row

TIMES, SMOKE_TIMES = 10_000, 300
PATIENCE_S = 120.0
LINGER_S = 1.0


def requests_of(bodies: Sequence[bytes]) -> list[tuple[str, str, str]]:
    """Return requests for POST /rank as an `Attack` takes them."""
    return [("POST", "/rank", base64.b64encode(body).decode()) for body in bodies]


def _leave(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    before = service.connections()
    times = bed.count(TIMES, SMOKE_TIMES)
    requests = requests_of(bed.testbed.bodies(500)[:32])
    with Attack(
        "leave", service.url, connections=32, headers=service.headers, requests=requests, times=times
    ) as attack:
        attack.go()
        attack.wait_until_finished(PATIENCE_S)
    ended = time.monotonic()
    while (at_work := service.metric("ctr_inflight_requests")) and time.monotonic() < ended + PATIENCE_S:
        time.sleep(0.1)
    after_s = time.monotonic() - ended
    while (connections := service.connections()) > before and time.monotonic() < ended + PATIENCE_S:
        time.sleep(0.1)
    left = int(attack.seen.get("left", 0))
    answer = service.rank("1", ["1", "2"])
    return [
        Check(f"{left:,} of {times:,} clients left", left >= times),
        Check(f"{at_work:.0f} at work after {after_s:.1f} s", at_work == 0),
        Check(
            f"none within {LINGER_S:g} s" if after_s <= LINGER_S else "later than asked",
            after_s <= LINGER_S,
            timed=True,
        ),
        Check(f"{connections} connections, {before} before", connections <= before),
        Check(f"the next request: {answer.status_code}", answer.status_code == 200),
    ]


ROWS = (
    Row(
        "leavers",
        "10,000 clients that leave mid-request",
        "nothing in flight 1 s later",
        _leave,
        smoke=True,
    ),
)
