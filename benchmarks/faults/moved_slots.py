"""Slots of a cluster that move while their items are written and ranked."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import redis

from benchmarks.faults.bed import FaultBed
from benchmarks.faults.failover import TOLERANCE, artifact_of, cluster_of, scores_of
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.testbed import ITEM_KEY

MOVED, SMOKE_MOVED = 4096, 128
COMPARED = 100_000
WRITTEN, RANKED = 50, 250
SEEN_S = 0.1
"""How long after its acknowledgement an update is looked for first; one that is not seen is looked for once more."""
STALE_S = 1.0
FIELD = "item_f0"


@dataclass
class _Staleness:
    """Scores that were compared with those of the features that were written last."""

    compared: int = 0
    late: int = 0
    stale: int = 0
    marked: int = 0
    """Answers that say they are degraded, which are not compared."""
    stale_items: list[int] = field(default_factory=list)


def _moved_slots(bed: FaultBed) -> Sequence[Check]:
    moved, slots = 0, bed.count(MOVED, SMOKE_MOVED)
    most = bed.count(COMPARED, 1000)
    seen = _Staleness()
    over = threading.Event()
    with cluster_of(bed, "cluster-moved") as cluster:
        settings = {"CTR_REDIS_URL": cluster.url, "CTR_REDIS_TIMEOUT_MS": "200"}
        with (
            bed.service("cluster-moved", settings=settings) as service,
            bed.load(service) as load,
            cluster.client() as client,
        ):
            watching = threading.Thread(
                target=_write_and_look, args=(bed, service, client, seen, over, most), daemon=True
            )
            watching.start()
            began = time.perf_counter()
            moved = max(cluster.move_slots(cluster.masters[0], cluster.masters[1], range(slots)))
            took_s = time.perf_counter() - began
            while seen.compared < most and watching.is_alive() and time.perf_counter() - began < took_s + 60:
                time.sleep(0.1)
            over.set()
            watching.join(30)
    return [
        Check(f"{moved:,} slots moved in {took_s:.0f} s", moved == slots),
        Check(
            f"{seen.stale} of {seen.compared:,} scores stale {STALE_S:g} s after the update ({seen.late} later than "
            f"{SEEN_S:g} s, {seen.marked} answers marked as degraded)",
            seen.stale == 0 and seen.compared >= min(most, 1000),
        ),
        Check(
            f"{load.timeline.server_errors + load.timeline.lost} of {len(load.timeline):,} requests 5xx or lost",
            load.timeline.server_errors + load.timeline.lost == 0,
        ),
    ]


def _write_and_look(
    bed: FaultBed, service: Service, client: redis.RedisCluster[str], seen: _Staleness, over: threading.Event, most: int
) -> None:
    """Write items, and look whether answers have what was written last, while the slots move."""
    catalogue, dice, artifact = bed.testbed.catalogue, random.Random(8), artifact_of(bed)
    current = catalogue.raw("item", 0, catalogue.items)
    while not over.is_set() and seen.compared < most:
        numbers = dice.sample(range(catalogue.items), RANKED)
        for number in numbers[:WRITTEN]:
            value = str(dice.randrange(catalogue.cardinality))
            client.hset(ITEM_KEY.key(str(number)), FIELD, value)
            current[number] = {**current[number], FIELD: value}
        over.wait(SEEN_S)
        expected = scores_of(artifact, bed, 0, [current[number] for number in numbers], numbers)
        wrong = _wrong(service, numbers, expected, seen)
        if wrong:
            seen.late += len(wrong)
            over.wait(STALE_S)
            again = _wrong(service, wrong, expected, seen)
            seen.stale += len(again)
            seen.stale_items += again
        seen.compared += len(numbers)


def _wrong(service: Service, numbers: list[int], expected: dict[str, float], seen: _Staleness) -> list[int]:
    answer = service.rank("0", [str(number) for number in numbers]).json()
    if answer.get("degraded"):
        seen.marked += 1
        return []
    return [int(i["item_id"]) for i in answer["items"] if abs(expected[i["item_id"]] - i["score"]) > TOLERANCE]


ROWS = (
    Row(
        "cluster-slots",
        "Cluster of 3: 4,096 slots moved under load with updates",
        "0 stale of 100,000",
        _moved_slots,
    ),
)
