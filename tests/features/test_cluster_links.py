"""Which node has a slot, and what is trusted of it, with nodes that answer when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import hiredis
import pytest

from app.errors import StoreError
from app.features.cluster_fetch import ClusterFetch, hash_slot
from app.features.cluster_links import ClusterLinks
from app.features.cluster_topology import Address
from app.features.item_cache import ItemCache
from app.features.row_hash_slots import HASH_SLOTS
from app.features.store_problem import StoreProblem
from app.features.stored_hashes import StoredHashes

pytestmark = pytest.mark.anyio
FIRST, SECOND = ("first", 1), ("second", 2)
Answer = Callable[[list[Any]], None]


class FakeLink:
    """A node whose replies the test gives: `sent` has what was asked and how to answer it."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[bytes, Answer]] = asyncio.Queue()
        self.connected = self.tracking = True
        self.trouble = self.detail = ""
        self.problem = StoreProblem()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, commands: bytes, replies: int, timeout_s: float, on_replies: Answer) -> list[Any]:
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def answer(values: list[Any]) -> None:
            assert len(values) == replies
            on_replies(values)
            if not future.done():
                future.set_result(values)

        self.sent.put_nowait((commands, answer))
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError as error:
            raise StoreError("too late") from error


class Bed:
    """Two nodes, a half of the slots each, and the cache that hears of them."""

    def __init__(self) -> None:
        self.ranges: Mapping[tuple[int, int], Address] = {
            (0, HASH_SLOTS // 2 - 1): FIRST,
            (HASH_SLOTS // 2, HASH_SLOTS - 1): SECOND,
        }
        self.fakes = {FIRST: FakeLink(), SECOND: FakeLink()}
        self.cache = ItemCache(64)
        self.hashes = StoredHashes("user:{id}", "item:{id}")
        self.hashes.select(["age"], ["year"])
        untyped: Any = self
        self.links = ClusterLinks(untyped, self.fakes.__getitem__, self.cache.on_hash_slots_lost)  # type: ignore[arg-type]

    def read(self, known: Sequence[Address]) -> Mapping[tuple[int, int], Address]:
        return self.ranges

    def close(self) -> None: ...

    def fetch(self, *items: str, timeout_s: float = 60.0) -> asyncio.Task[Any]:
        fetch = ClusterFetch(self.links, self.hashes, self.cache)
        for item in items:
            fetch.add_item(item)
        return asyncio.create_task(fetch.run(timeout_s))

    async def sent(self, address: Address) -> tuple[bytes, Answer]:
        return await asyncio.wait_for(self.fakes[address].sent.get(), 30.0)


@pytest.fixture
async def bed() -> Bed:
    bed = Bed()
    await bed.links.start()
    return bed


def item_of(address: Address) -> str:
    """Return an item of the first or the second node."""
    half = (FIRST, SECOND).index(address)
    return next(str(n) for n in range(99) if hash_slot(f"item:{n}") * 2 // HASH_SLOTS == half)


async def test_a_reply_that_was_asked_for_before_its_slot_was_lost_is_not_fresh(bed: Bed) -> None:
    item = item_of(FIRST)
    for lose in (lambda: bed.links.lose([hash_slot(f"item:{item}")]), lambda: bed.links.on_link_lost(FIRST)):
        reading = bed.fetch(item)
        _, answer = await bed.sent(FIRST)
        lose()
        answer([["1990"]])
        assert await reading == ({"year": "1990"},)
        assert bed.cache.stale() == [item]
        reading = bed.fetch(item)
        (await bed.sent(FIRST))[1]([["1990"]])
        await reading
        assert bed.cache.stale() == []
    await bed.links.stop()


async def test_a_slot_that_is_lost_takes_its_items_alone_with_it(bed: Bed) -> None:
    items = [item_of(FIRST), item_of(SECOND)]
    reading = bed.fetch(*items)
    (await bed.sent(FIRST))[1]([["1990"]])
    (await bed.sent(SECOND))[1]([["1991"]])
    assert await reading == ({"year": "1990"}, {"year": "1991"})
    bed.links.on_link_lost(SECOND)
    assert bed.cache.stale() == items[1:]
    await bed.links.stop()


async def test_moved_is_followed_at_once_and_what_was_read_of_the_slot_is_stale(bed: Bed) -> None:
    item = item_of(FIRST)
    slot = hash_slot(f"item:{item}")
    reading = bed.fetch(item)
    (await bed.sent(FIRST))[1]([hiredis.ReplyError(f"MOVED {slot} second:2")])
    (await bed.sent(SECOND))[1]([["1992"]])
    assert await reading == ({"year": "1992"},)
    assert bed.links.owner(slot) == SECOND
    assert bed.cache.stale() == [], "asked of the owner after it was known to be"
    await bed.links.stop()


async def test_ask_is_followed_for_its_key_alone_and_its_reply_is_not_fresh(bed: Bed) -> None:
    item = item_of(FIRST)
    slot = hash_slot(f"item:{item}")
    reading = bed.fetch(item)
    (await bed.sent(FIRST))[1]([hiredis.ReplyError(f"ASK {slot} second:2")])
    commands, answer = await bed.sent(SECOND)
    assert commands.startswith(b"*1\r\n$6\r\nASKING\r\n")
    answer(["OK", ["1992"]])
    assert await reading == ({"year": "1992"},)
    assert bed.links.owner(slot) == FIRST
    assert bed.cache.stale() == [item]
    await bed.links.stop()


async def test_what_one_node_does_not_give_is_none_and_comes_late_to_the_cache(bed: Bed) -> None:
    items = [item_of(FIRST), item_of(SECOND)]
    reading = bed.fetch(*items, timeout_s=0.05)
    _, late = await bed.sent(FIRST)
    (await bed.sent(SECOND))[1]([["1991"]])
    fetched = await reading
    assert fetched == (None, {"year": "1991"})
    late([["1990"]])
    assert fetched == (None, {"year": "1991"})
    assert items[0] in bed.cache
    assert bed.cache.stale() == []
    with pytest.raises(StoreError, match="too late"):
        await bed.fetch(items[0], timeout_s=0.01)
    await bed.links.stop()


async def test_nodes_that_point_at_one_another_do_not_keep_a_request(bed: Bed) -> None:
    item = item_of(FIRST)
    slot = hash_slot(f"item:{item}")
    reading = bed.fetch(item)
    for here, there in ((FIRST, "second:2"), (SECOND, "first:1"), (FIRST, "second:2")):
        (await bed.sent(here))[1]([hiredis.ReplyError(f"MOVED {slot} {there}")])
    with pytest.raises(StoreError):
        await reading
    await bed.links.stop()
