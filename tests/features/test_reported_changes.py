"""However an item is changed, it is not fresh as it was: at once where the server reports it, else within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from app.features.cache_refresher import CacheRefresher
from app.features.item_ages import digest
from app.features.item_cache import ItemCache
from app.features.redis_store import RedisFeatureStore
from app.features.row_flags import FRESH
from tests.redis_servers import RedisServer, RespProxy, servers

pytestmark = pytest.mark.anyio

ITEMS = 40
FIELDS = ["rating", "year"]
REPORTED_S = 0.5
SWAP_S = 2.0
"""What docs/redis.md promises of a swap of the whole catalogue."""
NEW = {"year": "2001"}
Change = Callable[[redis.Redis, redis.Redis], Any]
FIRST = next(iter(servers()))


def key(number: int) -> str:
    return f"item:{number}"


def renamed(features: redis.Redis, other: redis.Redis) -> None:
    features.hset("aside", mapping=NEW)
    features.rename("aside", key(1))


def moved(features: redis.Redis, other: redis.Redis) -> None:
    features.delete(key(1))
    other.hset(key(1), mapping=NEW)
    assert other.move(key(1), 0)


def restored(features: redis.Redis, other: redis.Redis) -> None:
    features.hset("aside", mapping=NEW)
    features.restore(key(1), 0, features.dump("aside"), replace=True)


def by_script(features: redis.Redis, other: redis.Redis) -> None:
    features.eval("return redis.call('HSET', KEYS[1], 'year', '2001')", 1, key(1))


def by_transaction(features: redis.Redis, other: redis.Redis) -> None:
    with features.pipeline() as pipeline:
        pipeline.delete(key(1))
        pipeline.hset(key(1), mapping=NEW)
        pipeline.execute()


def copied(features: redis.Redis, other: redis.Redis) -> None:
    features.hset("aside", mapping=NEW)
    features.copy("aside", key(1), replace=True)


CHANGES: dict[str, Change] = {
    "HSET": lambda features, other: features.hset(key(1), mapping=NEW),
    "HDEL": lambda features, other: features.hdel(key(1), "year"),
    "DEL": lambda features, other: features.delete(key(1)),
    "UNLINK": lambda features, other: features.unlink(key(1)),
    "RENAME to it": renamed,
    "RENAME of it": lambda features, other: features.rename(key(1), "aside"),
    "COPY": copied,
    "MOVE to it": moved,
    "MOVE of it": lambda features, other: features.move(key(1), 8),
    "RESTORE": restored,
    "EVAL": by_script,
    "MULTI": by_transaction,
    "PEXPIRE": lambda features, other: features.pexpire(key(1), 50),
    "HPEXPIRE": lambda features, other: features.hpexpire(key(1), 50, "year"),
    "FLUSHDB": lambda features, other: features.flushdb(),
    "FLUSHALL": lambda features, other: features.flushall(),
    "FLUSHALL ASYNC": lambda features, other: features.flushall(asynchronous=True),
    "SWAPDB": lambda features, other: features.swapdb(0, 9),
}


def fill(client: redis.Redis, year: int) -> None:
    for number in range(ITEMS):
        client.hset(key(number), mapping={"year": str(year), "rating": str(number)})


@contextlib.asynccontextmanager
async def cached(url: str, **options: Any) -> AsyncIterator[ItemCache]:
    """A cache that is filled and refreshed, as in a service."""
    store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=5.0, **options)
    store.select_fields([], FIELDS)
    cache = ItemCache(1000, aged=bool(options))
    await store.start(cache)
    refresher = CacheRefresher(store, cache, fill=True, max_age_s=options.get("item_max_age_s", 600.0))
    refresher.start()
    try:
        await until(lambda: len(cache) == ITEMS and not cache.stale(), 30.0)
        yield cache
    finally:
        await refresher.stop()
        await store.stop()


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Wait for a condition, and return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + seconds, "it never came"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


def holds(cache: ItemCache, number: int, raw: Mapping[str, str]) -> bool:
    """Return whether an item is not fresh, or fresh with these features."""
    lookup = cache.find([str(number)])
    read = {field: raw.get(field) for field in FIELDS} if raw else {}
    return not lookup.flags_all & FRESH or bool(cache._ages.same(lookup.rows, digest([read]))[0])


async def check(url: str, client: redis.Redis, change: Change, seconds: float, **options: Any) -> float:
    """Make a change, and return the seconds until no item is fresh with what it was."""
    with redis.Redis(connection_pool=_database(client, 9)) as other:
        client.flushall()
        fill(client, 1990)
        fill(other, 2000)
        async with cached(url, **options) as cache:
            try:
                change(client, other)
            except redis.ResponseError as error:
                pytest.skip(str(error))
            await asyncio.sleep(0.1 if "pexpire" in str(change.__code__.co_names) else 0.0)
            current = [client.hgetall(key(number)) for number in range(ITEMS)]
            assert current[1] != {"year": "1990", "rating": "1"}, "it is changed"
            return await until(lambda: all(holds(cache, n, raw) for n, raw in enumerate(current)), seconds)


def _database(client: redis.Redis, number: int) -> redis.ConnectionPool:
    pool = client.connection_pool
    return redis.ConnectionPool(pool.connection_class, **{**pool.connection_kwargs, "db": number})


def _parameters() -> list[Any]:
    return [
        pytest.param(name, change, id=f"{name}-{change}", marks=[] if name == FIRST else pytest.mark.faults)
        for name in servers()
        for change in CHANGES
    ]


@pytest.mark.parametrize(("name", "change"), _parameters())
async def test_a_changed_item_is_not_fresh_with_what_it_was(name: str, change: str, tmp_path: Path) -> None:
    with RedisServer(servers()[name], tmp_path) as server, server.client as client:
        bound = SWAP_S if change == "SWAPDB" else REPORTED_S
        url = f"redis://127.0.0.1:{server.port}"
        if await check(url, client, CHANGES[change], bound + 5.0) > bound:
            assert await check(url, client, CHANGES[change], bound + 5.0) < bound, "a machine may pause, but once"


@pytest.mark.parametrize("change", ["HSET", "SWAPDB", "FLUSHALL"])
async def test_where_nothing_is_reported_items_are_aged(change: str, tmp_path: Path) -> None:
    age_s = 1.0
    with (
        RedisServer(servers()[FIRST], tmp_path) as server,
        server.client as client,
        RespProxy(server.socket, unknown=["HELLO", "CLIENT"]) as proxy,
    ):
        url = f"redis://127.0.0.1:{proxy.port}"
        assert await check(url, client, CHANGES[change], 10.0, item_max_age_s=age_s) < age_s + 0.5


async def test_a_proxy_that_takes_tracking_and_reports_nothing_is_found_out(tmp_path: Path) -> None:
    with (
        RedisServer(servers()[FIRST], tmp_path) as server,
        server.client as client,
        RespProxy(server.socket, deaf=True) as proxy,
    ):
        assert await check(f"redis://127.0.0.1:{proxy.port}", client, CHANGES["HSET"], 10.0) < SWAP_S


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == FIRST else pytest.mark.faults) for name in servers()]
)
async def test_what_reaches_a_replica_is_seen_by_who_reads_it(name: str, tmp_path: Path) -> None:
    for folder in ("master", "replica"):
        (tmp_path / folder).mkdir()
    with (
        RedisServer(servers()[name], tmp_path / "master", "--repl-diskless-sync-delay", "0") as master,
        master.client as client,
        redis.Redis(connection_pool=_database(client, 9)) as other,
    ):
        fill(client, 1990)
        fill(other, 2000)
        options = ("--replicaof", "127.0.0.1", str(master.port))
        with RedisServer(servers()[name], tmp_path / "replica", *options) as replica, replica.client as copy:
            await until(lambda: copy.info("replication")["master_link_status"] == "up", 60.0)
            await until(lambda: copy.dbsize() == ITEMS, 60.0)
            async with cached(f"redis://127.0.0.1:{replica.port}") as cache:
                client.hset(key(1), mapping=NEW)
                await until(lambda: holds(cache, 1, {"year": "2001", "rating": "1"}), REPORTED_S + 5.0)
                client.swapdb(0, 9)
                await until(lambda: holds(cache, 2, {"year": "2000", "rating": "2"}), SWAP_S + 5.0)
                copy.replicaof("NO", "ONE")
                fill(copy, 1900)
                copy.replicaof("127.0.0.1", str(master.port))  # a whole copy of the master's data
                await until(lambda: copy.hget(key(3), "year") == "2000", 60.0)
                await until(lambda: holds(cache, 3, {"year": "2000", "rating": "3"}), REPORTED_S + 5.0)
