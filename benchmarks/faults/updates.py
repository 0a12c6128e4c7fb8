"""Items that change while they are ranked."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import SETTLE_S, compare
from benchmarks.faults.row import Check, Row
from benchmarks.faults.store_server import StoreServer

RATE = 500
ROUND_TRIPS = 1.1


def _updates(bed: FaultBed) -> Sequence[Check]:
    service, store = bed.with_store()
    catalogue = bed.testbed.catalogue
    options = {"rate": RATE, "items": catalogue.items, "fields": catalogue.item_fields, "redis_url": store.url}
    reads: list[int] = []
    with Attack("updates", service.url, **options) as attack:

        def go() -> None:
            attack.go()
            reads.append(_reads(store))

        def rest() -> None:
            attack.rest()
            reads.append(_reads(store))

        result = compare(bed.load(service, store=store), go, rest, rounds=bed.rounds, seconds=bed.round_s)
    written = int(attack.seen["written"])
    requests = sum(len(one) for one in result.during) * (bed.round_s + SETTLE_S[True]) / bed.round_s
    # The first reading comes with the first rest, before anything went.
    read = sum(after - before for before, after in zip(reads[1::2], reads[2::2], strict=False))
    # Each update is a read of the server's too, and may be followed by one that fetches the item again.
    trips = (read - 2 * written) / max(requests, 1)
    before_ms, during_ms = result.p50_ms()
    return [
        Check(
            f"{written:,} updates, {written / (bed.rounds * (bed.round_s + SETTLE_S[True])):.0f} a second", written > 0
        ),
        Check(
            f"{trips:.2f} round trips a request (at most {ROUND_TRIPS}; each update and its refresh taken off)",
            trips <= ROUND_TRIPS,
            timed=True,
        ),
        Check(
            f"p50 {during_ms / before_ms:.2f}x (at most 1.2x): {during_ms:.2f} ms over {before_ms:.2f}",
            during_ms <= 1.2 * before_ms,
            timed=True,
        ),
        result.none_failed("the"),
    ]


def _reads(store: StoreServer) -> int:
    """Return how many times the server has read from a connection: what was sent together is one read."""
    with store.client() as client:
        stats: dict[str, int] = client.info("stats")  # type: ignore[assignment]
        if "total_reads_processed" not in stats:
            raise redis.RedisError("the server does not count its reads")
        return int(stats["total_reads_processed"])


ROWS = (
    Row(
        "updates",
        "item updates beside requests, 500 a second",
        "one round trip and one budget, whatever changes elsewhere",
        _updates,
        "found",
    ),
)
