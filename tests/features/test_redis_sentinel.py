"""A master that Sentinels watch: it is found, lost, and found again where they made another one of a replica."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from app.errors import StoreError
from app.features.item_cache import ItemCache
from app.features.loading.valkey_server import free_port
from app.features.redis_client import open_client
from app.features.redis_store import RedisFeatureStore
from tests.redis_servers import START_S, RedisServer, servers
from tests.waiting import async_until, until

pytestmark = pytest.mark.anyio

PROGRAM = next(iter(servers().values()))


class Watched:
    """A master, a replica, and a Sentinel that needs no other to agree; all end with the block."""

    def __init__(self, folder: Path) -> None:
        for name in ("first", "second"):
            (folder / name).mkdir()
        self.folder = folder
        self.first = RedisServer(PROGRAM, folder / "first")
        self.port = free_port()
        self.url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.port}/shop"

    def __enter__(self) -> Watched:
        self.first.start()
        options = "--replicaof", "127.0.0.1", str(self.first.port), "--repl-diskless-sync-delay", "0"
        self.second = RedisServer(PROGRAM, self.folder / "second", *options)
        self.second.start()
        configuration = self.folder / "sentinel.conf"
        configuration.write_text(
            f"port {self.port}\ndir {self.folder}\nsentinel monitor shop 127.0.0.1 {self.first.port} 1\n"
            "sentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 5000\n"
        )
        self._sentinel = subprocess.Popen([PROGRAM, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
        until(lambda: replicas_known(self.port) == 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._sentinel.kill()
        self._sentinel.wait()
        self.first.kill()
        self.second.kill()


def replicas_known(port: int) -> int:
    """Return how many replicas the Sentinel knows that have caught up with the master."""
    try:
        with redis.Redis(port=port, protocol=2, decode_responses=True) as sentinel:
            known = sentinel.execute_command("SENTINEL", "REPLICAS", "shop")
    except redis.RedisError:
        return 0
    states = [state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True)) for state in known]
    return sum(state.get("master-link-status") == "ok" for state in states)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("watched")) as watched:
        yield watched


async def test_what_is_wrong_with_the_sentinels_is_one_line(watched: Watched) -> None:
    names = {
        f"redis+sentinel://127.0.0.1:{watched.port}/other": "no master of other",
        f"redis+sentinel://127.0.0.1:1,127.0.0.1:{free_port()}/shop": "no master of shop",
        f"redis+sentinel://127.0.0.1:{watched.first.port}/shop": "no master of shop",
        f"redis://127.0.0.1:{watched.port}": "redis+sentinel://",
        f"redis://127.0.0.1:{watched.port}?protocol=2": "redis+sentinel://",
    }
    for url, reason in names.items():
        store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=0.5)
        store.select_fields(["age"], ["year"])
        await store.start(ItemCache(64))
        status = store.status()
        await store.stop()
        said = status.problem or status.detail
        assert reason in said
        assert "\n" not in said
        assert len(said) < 300
    with pytest.raises(StoreError, match="no master of other"):
        await asyncio.to_thread(open_client, f"redis+sentinel://127.0.0.1:{watched.port}/other")


async def test_the_master_is_followed_through_a_failover(watched: Watched) -> None:
    """It comes last: it ends the first master."""
    with open_client(watched.url) as client:
        client.hset("user:1", "age", "30")
        client.hset("item:1", "year", "1990")
        client.wait(1, 10_000)
    cache = ItemCache(64)
    store = RedisFeatureStore(watched.url, "user:{id}", "item:{id}", timeout_s=0.5)
    store.select_fields(["age"], ["year"])
    with capture_logs() as lines:
        await store.start(cache)
        assert (await store.fetch("1", ["1"], 5.0)) == ({"age": "30"}, [{"year": "1990"}])
        assert store.tracking
        watched.first.kill()
        await async_until(lambda: cache.stale() == ["1"])
        lost = time.monotonic()
        while True:
            try:
                assert (await store.fetch("1", ["1"], 5.0)) == ({"age": "30"}, [{"year": "1990"}])
                break
            except StoreError:
                assert time.monotonic() < lost + START_S
                await asyncio.sleep(0.01)
        assert store.tracking
        assert cache.stale() == []
        await asyncio.to_thread(write, watched.url)
        await async_until(lambda: cache.stale() == ["1"])  # the new master reports changes
        await store.stop()
    stores = [line["store"] for line in lines if line["event"] == "feature_store_connected"]
    assert [str(watched.first.port) in stores[0], str(watched.second.port) in stores[-1]] == [True, True]


def write(url: str) -> None:
    with open_client(url) as client:
        client.hset("item:1", "year", "1991")
