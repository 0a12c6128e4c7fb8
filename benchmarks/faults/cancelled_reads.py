"""Reads that are cancelled while their replies are under way: every other read has to get its own reply."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.errors import StoreError
from app.features.redis_store import RedisFeatureStore
from app.features.store import RawFeatures
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.testbed import ITEM_KEY, USER_KEY, Testbed

READS, SMOKE_READS = 100_000, 1000
AT_ONCE = 200
DELAY_MS = 4.0
PATIENCE_S = 0.02
"""A read is cancelled after up to so long."""
ITEMS = 3
FIELDS = 4
LONGEST_S = 180.0


class _Deaf:
    """A listener that keeps nothing."""

    def on_items(
        self, item_ids: Sequence[str], items: Sequence[RawFeatures], hash_slots: Sequence[int] | None = None
    ) -> None: ...

    def on_invalidate(self, item_ids: Sequence[str] | None) -> None: ...

    def on_hash_slots_lost(self, hash_slots: Sequence[int]) -> None: ...

    def on_disconnect(self) -> None: ...


@contextlib.contextmanager
def _delaying_proxy(port: int) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.faults.delaying_proxy", str(port), str(DELAY_MS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.communicate(timeout=30)


async def _read_and_cancel(testbed: Testbed, url: str, reads: int) -> dict[str, int]:
    """Read users and items at random, many at once, and compare every reply with what was written."""
    names = {side: testbed.catalogue.names(side)[:FIELDS] for side in ("user", "item")}  # type: ignore[arg-type]
    users = testbed.catalogue.raw("user", 0, testbed.catalogue.users)
    items = testbed.catalogue.raw("item", 0, testbed.catalogue.items)
    store = RedisFeatureStore(url, USER_KEY.key("{id}"), ITEM_KEY.key("{id}"), timeout_s=1.0)
    store.select_fields(names["user"], names["item"])
    await store.start(_Deaf())
    counts = {"right": 0, "crossed": 0, "cancelled": 0, "failed": 0}
    left, dice = reads, random.Random(3)
    due = time.monotonic() + LONGEST_S

    def is_right(raw: RawFeatures, expected: dict[str, str], side: str) -> bool:
        return all(raw.get(name) == expected[name] for name in names[side])

    async def reader() -> None:
        nonlocal left
        while left > 0 and time.monotonic() < due:
            left -= 1
            user, chosen = dice.randrange(len(users)), dice.sample(range(len(items)), ITEMS)
            reading = asyncio.ensure_future(store.fetch(str(user), [str(number) for number in chosen], 1.0))
            done, _ = await asyncio.wait({reading}, timeout=dice.random() * PATIENCE_S)
            if not done:
                reading.cancel()
                counts["cancelled"] += 1
                continue
            try:
                fetched = reading.result()
            except StoreError:
                counts["failed"] += 1
                await asyncio.sleep(0.001)
                continue
            mine = is_right(fetched.user, users[user], "user") and all(
                is_right(raw, items[number], "item") for raw, number in zip(fetched.items, chosen, strict=True)
            )
            counts["right" if mine else "crossed"] += 1

    try:
        await asyncio.gather(*(reader() for _ in range(AT_ONCE)))
    finally:
        await store.stop()
    return counts


def _cancelled_reads(bed: FaultBed) -> Sequence[Check]:
    _, server = bed.with_store()
    reads = bed.count(READS, SMOKE_READS)
    with _delaying_proxy(server.port) as port:
        url = server.url.replace(f":{server.port}/", f":{port}/")
        counts = asyncio.run(_read_and_cancel(bed.testbed, url, reads))
    total = sum(counts.values())
    return [
        Check(f"{total:,} of {reads:,} reads, {counts['cancelled']:,} of them cancelled", total >= reads),
        Check(
            f"{counts['crossed']} crossed replies; {counts['right']:,} are right",
            not counts["crossed"] and counts["right"] > 0,
        ),
        Check(f"{counts['failed']:,} failed", counts["failed"] <= 0.01 * total),
    ]


ROWS = (
    Row(
        "cancelled-reads",
        "100,000 cancelled reads through a delaying proxy",
        "0 crossed replies",
        _cancelled_reads,
    ),
)
