"""Valid requests that cost many times what a usual one does, and open routes, beside usual requests."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from app.features.item_rows import UNKNOWN_DIVISOR
from app.settings import Settings
from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import compare
from benchmarks.faults.leavers import requests_of
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service

LARGEST = 2000
CONNECTIONS = 4
OPEN_CLIENTS = 16
MALFORMED, SMOKE_MALFORMED = 3000, 200
LINES_PER_MINUTE = 60
INVENTED_REQUESTS = 300
INVENTED_MB = 40.0
PATIENCE_S = 20.0
CACHE_SIZE: int = Settings.model_fields["item_cache_size"].default
BODIES = 8


def heavy_bodies(bed: FaultBed, kind: str) -> list[bytes]:
    """Return requests of the most candidates, each of a kind that costs more than its number."""
    dice, catalogue = random.Random(14), bed.testbed.catalogue
    size = min(LARGEST, catalogue.items)
    bodies = []
    for _ in range(BODIES):
        ids = [str(number) for number in dice.sample(range(catalogue.items), size)]
        body: dict[str, Any] = {"user_id": str(dice.randrange(catalogue.users)), "item_ids": ids}
        if kind == "overrides":
            body["item_features"] = {
                item: {f"item_f{field}": str(dice.randrange(1000)) for field in range(4)} for item in ids
            }
        elif kind == "empty overrides":
            body["item_features"] = {item: {} for item in ids}
        elif kind == "unknown ids":
            body["item_ids"] = [f"unknown-{dice.randrange(10**9)}" for _ in range(LARGEST)]
        elif kind == "explain":
            body["explain"] = True
        bodies.append(msgspec.json.encode(body))
    return bodies


def _heavy(kind: str, bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    requests = requests_of(heavy_bodies(bed, kind))
    headers = service.headers
    with Attack("requests", service.url, connections=CONNECTIONS, headers=headers, requests=requests) as attack:
        result = compare(bed.load(service), attack.go, attack.rest, rounds=bed.rounds, seconds=bed.round_s)
    return [*result.checks(2.0, "heavy requests"), _answers(attack)]


def _answers(attack: Attack) -> Check:
    """Return the answers to the attack, of which none may be a fault of the service."""
    answers = {status: int(count) for status, count in sorted(attack.seen.items()) if status.isdigit()}
    told = ", ".join(f"{count:,} x {status}" for status, count in answers.items()) or "none"
    return Check(f"its own answers: {told}", answers.keys() <= {"200", "429", "503", "504"})


def _open_routes(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    requests = [("GET", path, "") for path in ("/metrics", "/openapi.json", "/models", "/docs", "/health")]
    with Attack(
        "requests", service.url, connections=OPEN_CLIENTS, headers=service.headers, requests=requests
    ) as attack:
        result = compare(bed.load(service), attack.go, attack.rest, rounds=bed.rounds, seconds=bed.round_s)
    checks = result.checks(2.0, f"{OPEN_CLIENTS} clients of open routes")
    checks.append(_answers(attack))
    lines, began = len(service.log_lines()), time.monotonic()
    times = bed.count(MALFORMED, SMOKE_MALFORMED)
    bad = [("POST", "/rank", base64.b64encode(body).decode()) for body in (b"{", b'{"item_ids": 1}', b"\xff")]
    with Attack(
        "requests", service.url, connections=4, headers=service.headers, requests=bad, times=times
    ) as malformed:
        malformed.go()
        malformed.wait_until_finished(30)
    refused = sum(count for status, count in malformed.seen.items() if status.startswith("4"))
    lines = len(service.log_lines()) - lines
    most = LINES_PER_MINUTE * max(1.0, (time.monotonic() - began) / 60)
    checks.append(
        Check(f"{refused:,.0f} malformed requests made {lines} log lines (at most {most:.0f})", lines <= most)
    )
    with bed.service("no-docs", settings={"CTR_DOCS": "false"}) as closed:
        for path in ("/docs", "/openapi.json"):
            status = closed.get(path).status_code
            checks.append(Check(f"CTR_DOCS=false: {path} {status}", status == 404))
    return checks


def _invented_ids(bed: FaultBed) -> Sequence[Check]:
    service = bed.usual()
    dice = random.Random(7)
    cached = service.health()["features"]["cached_items"]
    before_mb = service.process.resident_mb()
    times, memory_mb = bed.count(INVENTED_REQUESTS, 30), []
    for number in range(times):
        answer = service.rank("1", [f"no-{number}-{dice.randrange(10**12)}" for _ in range(LARGEST)], timeout=30)
        if answer.status_code not in (200, 429, 503):
            return [Check(f"request {number}: {answer.status_code} {answer.text[:100]}", ok=False)]
        if number in (times // 3, times - 1):
            memory_mb.append(service.process.resident_mb() - before_mb)
    known = [str(number) for number in range(bed.testbed.catalogue.items)][:LARGEST]
    hits_before, misses_before = _looked_up(service)
    service.rank("1", known)
    due, hits, misses = time.monotonic() + PATIENCE_S, 0.0, 0.0
    while hits + misses < len(known) and time.monotonic() < due:  # asked again so soon, the last answer is given again
        time.sleep(0.2)
        hits, misses = _looked_up(service)
        hits, misses = hits - hits_before, misses - misses_before
    now = service.health()["features"]["cached_items"]
    most = bed.testbed.catalogue.items + CACHE_SIZE // UNKNOWN_DIVISOR
    return [
        Check(
            f"{times} requests of {LARGEST:,} invented ids: {memory_mb[-1]:.0f} MB more (at most {INVENTED_MB:.0f}), "
            f"{memory_mb[0]:.0f} of them in the first third",
            memory_mb[-1] <= INVENTED_MB,
        ),
        Check(f"of {len(known):,} real items {hits:.0f} are still cached, {misses:.0f} are not", hits == len(known)),
        Check(f"{now:,} items cached, {cached:,} before (at most {most:,})", now <= most),
    ]


def _looked_up(service: Service) -> tuple[float, float]:
    return service.metric("ctr_item_cache_hits_total"), service.metric("ctr_item_cache_misses_total")


def _row(kind: str) -> Row:
    run: Callable[[FaultBed], Sequence[Check]] = partial(_heavy, kind)
    return Row(
        kind.replace(" ", "-"),
        f"four connections of 2,000 candidates with {kind}",
        "cost is part of admission; others' p99 at most 2x",
        run,
        "found",
    )


ROWS = (
    *(_row(kind) for kind in ("overrides", "empty overrides", "unknown ids", "explain")),
    Row(
        "invented-ids",
        "invented item ids",
        "a bounded place of their own; memory bounded whatever is asked; no real item evicted",
        _invented_ids,
        "found",
    ),
    Row(
        "open-routes",
        "open and heavy routes, and malformed requests",
        "usual requests' p99 at most 2x; CTR_DOCS=false; malformed requests logged at a bounded rate",
        _open_routes,
        "found",
    ),
)
