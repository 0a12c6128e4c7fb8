"""Items that change while they are ranked."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from benchmarks.faults.attack import Attack
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.comparison import SETTLE_S, compare
from benchmarks.faults.row import Check, Row
from benchmarks.faults.store_outage import READS

RATE = 500
MORE_READS = 0.5
"""A request, beside that of its user and one of each item that was written."""


def _updates(bed: FaultBed) -> Sequence[Check]:
    service, url = bed.usual(), bed.testbed.redis_url
    catalogue = bed.testbed.catalogue
    options = {"rate": RATE, "items": catalogue.items, "fields": catalogue.item_fields, "redis_url": url}
    reads: list[int] = []
    with (
        redis.Redis.from_url(url, decode_responses=True) as client,
        Attack("updates", service.url, **options) as attack,
    ):

        def go() -> None:
            reads.append(_reads(client))
            attack.go()

        def rest() -> None:
            attack.rest()
            reads.append(_reads(client))

        result = compare(bed.load(service), go, rest, rounds=bed.rounds, seconds=bed.round_s)
    written = int(attack.seen["written"])
    lasted_s = bed.round_s + SETTLE_S[True]
    requests = sum(len(one) for one in result.during) * lasted_s / bed.round_s
    # The first count is that of the rest before anything went.
    read = sum(after - before for before, after in zip(reads[1::2], reads[2::2], strict=True))
    more = (read - requests - written) / max(requests, 1)
    before_ms, during_ms = result.p50_ms()
    return [
        Check(f"{written:,} updates, {written / (bed.rounds * lasted_s):.0f} a second", written > 0),
        Check(
            f"{read / max(requests, 1):.2f} reads a request; beside its user's and one of each item that was written "
            f"{more:.2f} (at most {MORE_READS})",
            more <= MORE_READS,
        ),
        Check(
            f"p50 {during_ms / before_ms:.2f}x (at most 1.2x): {during_ms:.2f} ms over {before_ms:.2f}",
            during_ms <= 1.2 * before_ms,
            timed=True,
        ),
        result.none_failed("updates"),
    ]


def _reads(client: redis.Redis) -> int:
    """Return how many hashes the server has been asked for."""
    of_commands: dict[str, dict[str, int]] = client.info("commandstats")  # type: ignore[assignment]
    return sum(int(of_commands.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in READS)


ROWS = (
    Row(
        "updates",
        "item updates beside requests, 500 a second",
        "one round trip and one budget, whatever changes elsewhere",
        _updates,
        "found",
    ),
)
