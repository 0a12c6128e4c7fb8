"""Stored values that are too large, too deep or wrong."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import compare
from benchmarks.faults.leavers import requests_of
from benchmarks.faults.mixed import MODEL, MixedCatalogue
from benchmarks.faults.protocol import PeakMemory
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.faults.store_server import StoreServer
from benchmarks.testbed import ITEM_KEY, USER_KEY

SHARE = 0.01
LARGE_BYTES, MANY_FIELDS, DEPTH = 30 << 20, 100_000, 100_000
MANY = "100,000 fields"
HUGE = (
    ("a field of 30 MB that no field reads", "blob", "x" * LARGE_BYTES),
    ("a field of the schema of 30 MB", "gender", "x" * LARGE_BYTES),
    ("JSON 100,000 deep", "liked_genres", "[" * DEPTH + "]" * DEPTH),
    ("weights 100,000 deep", "liked_genres", '{"a":' * DEPTH + "1" + "}" * DEPTH),
    ("a list of 3 million", "recent", "[" + "1," * 3_000_000 + "1]"),
)
"""User, field and what is stored there."""
GROWTH_MB = 80.0
PAUSE_S = 0.2
CANDIDATES = 100
INVALID = "ctr_features_invalid_total"


@contextlib.contextmanager
def _mixed_service(bed: FaultBed, name: str, catalogue: MixedCatalogue) -> Iterator[tuple[Service, StoreServer]]:
    """Run a service of the mixed model; what is wrong in its store is written before it starts."""
    folder = bed.testbed.folder / name
    folder.mkdir()
    catalogue.publish(bed.testbed)
    with StoreServer(folder, bed.secrets.password, bed.testbed.other_core) as store:
        with store.client() as client:
            catalogue.load(client)
            if name == "corrupted":
                for side, number, field, text in catalogue.corruptions(SHARE):
                    client.hset((USER_KEY if side == "user" else ITEM_KEY).key(str(number)), field, text)
        with bed.service(name, store=store, model=MODEL, ready=False) as service:
            if service.holds_within(lambda health: health["features"]["cached_items"] >= catalogue.items) is None:
                raise SystemExit("error: the items are not cached")
            yield service, store


def _corrupted(bed: FaultBed) -> Sequence[Check]:
    catalogue = MixedCatalogue(users=bed.count(5000, 300), items=bed.count(5000, 300))
    expected = Counter((side, field) for side, _, field, _ in catalogue.corruptions(SHARE))
    wrong_users = {number for side, number, _, _ in catalogue.corruptions(SHARE) if side == "user"}
    wrong_items = {number for side, number, _, _ in catalogue.corruptions(SHARE) if side == "item"}
    # Answers are marked for what their items hold too: these hold nothing wrong, so that the user alone decides.
    items = [str(number) for number in range(catalogue.items) if number not in wrong_items][:50]
    statuses: Counter[int] = Counter()
    marked = unmarked = 0
    with _mixed_service(bed, "corrupted", catalogue) as (service, _):
        for number in range(catalogue.users):
            answer = service.rank(str(number), items)
            statuses[answer.status_code] += 1
            says = "invalid_stored_features" in answer.text
            marked += says
            unmarked += (number in wrong_users) != says
        seen = _invalid(service)
        kept = service.holds_within(lambda _: sum(_invalid(service).values()) >= sum(expected.values()), 5)
        seen = _invalid(service) if kept is not None else seen
    by_entity = {side: sum(count for (of, _), count in expected.items() if of == side) for side in ("user", "item")}
    seen_by_entity = {side: sum(count for (of, _), count in seen.items() if of == side) for side in ("user", "item")}
    differ = {key: (expected[key], seen[key]) for key in expected | seen if expected[key] != seen[key]}
    return [
        Check(f"{sum(statuses.values()):,} requests: {dict(statuses)}", set(statuses) == {200}),
        Check(f"injected {by_entity}, counted {seen_by_entity}", by_entity == seen_by_entity),
        Check(
            f"{len(expected)} fields counted as injected" if not differ else f"by field injected and counted: {differ}",
            not differ,
        ),
        Check(
            f"{marked} answers say that their user's values are invalid; {unmarked} say so wrongly or not", not unmarked
        ),
    ]


def _invalid(service: Service) -> Counter[tuple[str, str]]:
    """Return the counter of invalid values, by entity and field."""
    counts: Counter[tuple[str, str]] = Counter()
    for labels, value in service.metrics(INVALID).items():
        named = dict(labels)
        if value:
            counts[named.get("entity", ""), named.get("field", "")] += int(value)
    return counts


def _huge(bed: FaultBed) -> Sequence[Check]:
    catalogue = MixedCatalogue(users=200, items=500)
    checks: list[Check] = []
    with _mixed_service(bed, "huge", catalogue) as (service, store):
        with store.client() as client:
            for user, field, text in HUGE:
                client.hset(USER_KEY.key(user), field, text)
            many = {f"field-{number}": "1" for number in range(MANY_FIELDS)}
            client.hset(USER_KEY.key(MANY), mapping=many)
            client.hset(ITEM_KEY.key("huge"), mapping={"year": "1999", "blob": "x" * LARGE_BYTES, **many})
        for user in (MANY, *(user for user, _, _ in HUGE)):
            checks += _others_beside(bed, service, store, user, ["1", "2", "huge"])
        invalid = _invalid(service)
        healthy = service.holds_within(lambda health: health["status"] == "ok", 5)
    told = ", ".join(f"{field} {count}" for (side, field), count in sorted(invalid.items()) if side == "user")
    return [
        *checks,
        Check(f"counted as invalid: {told or 'none'}", bool(told)),
        Check("healthy afterwards" if healthy is not None else "not healthy afterwards", healthy is not None),
    ]


def _others_beside(bed: FaultBed, service: Service, store: StoreServer, user: str, items: list[str]) -> list[Check]:
    """Ask for a huge user again and again, beside the usual load."""
    body = msgspec.json.encode({"user_id": user, "item_ids": items})
    options = {"connections": 2, "headers": service.headers, "requests": requests_of([body]), "pause_s": PAUSE_S}
    usual = [
        msgspec.json.encode({"user_id": str(number % 200), "item_ids": [str(n) for n in range(CANDIDATES)]})
        for number in range(200)
    ]
    with PeakMemory(service) as memory, Attack("requests", service.url, **options) as attack:
        load = bed.load(service, store=store, bodies=usual)
        result = compare(load, attack.go, attack.rest, rounds=1 if bed.smoke else 2, seconds=bed.round_s / 2)
    answers = {status: int(count) for status, count in attack.seen.items()}
    return [
        Check(f"{user}: answered {answers}", set(answers) == {"200"}),
        *result.checks(2.0, user),
        Check(f"memory {memory.grown_mb:.0f} MB more at most (of {GROWTH_MB:.0f})", memory.grown_mb <= GROWTH_MB),
    ]


ROWS = (
    Row(
        "huge-values",
        "a user's hash of 30 MB, 100,000 fields, or JSON 100,000 deep",
        "only the schema's fields are read, replies and depth bounded, beyond it missing and counted",
        _huge,
        "found",
    ),
    Row(
        "corrupted-values",
        "1 % of values corrupted (numeric, list and weighted fields among them)",
        "0 of 5xx, counters by entity and field equal what was injected",
        _corrupted,
    ),
)
