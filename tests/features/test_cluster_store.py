"""A real cluster of three masters: read by one round trip to each, trusted no longer than is right, served in part."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from app.errors import StoreError
from app.features.cluster_store import ClusterFeatureStore
from app.features.item_cache import ItemCache
from app.features.key_template import KeyTemplate
from app.features.loading.feature_loader import FeatureLoader
from app.features.loading.record_file import RecordFile
from app.features.loading.valkey_server import free_port
from app.features.redis_client import nodes_of, open_client
from tests.certificates import Certificates
from tests.redis_clusters import MASTERS, SLOTS, Cluster, node_of, wait
from tests.redis_servers import RedisServer, servers
from tests.waiting import async_until

pytestmark = pytest.mark.anyio
ITEMS = [str(number) for number in range(60)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: Cluster) -> Iterator[redis.Redis]:
    """A client of the whole cluster, with items of the year 1900 + id."""
    with open_client(cluster.url) as client:
        for item in ITEMS:
            client.hset(f"item:{item}", "year", str(1900 + int(item)))
        client.hset("user:1", "age", "30")
        yield client


@contextlib.asynccontextmanager
async def connected(url: str, *, timeout_s: float = 5.0) -> AsyncIterator[tuple[ClusterFeatureStore, ItemCache]]:
    store, cache = ClusterFeatureStore(url, "user:{id}", "item:{id}", timeout_s=timeout_s), ItemCache(128)
    store.select_fields(["age"], ["year"])
    await store.start(cache)
    try:
        yield store, cache
    finally:
        await store.stop()


async def test_each_node_gives_its_own_and_reports_what_changes(cluster: Cluster, client: redis.Redis) -> None:
    async with connected(cluster.url) as (store, cache):
        assert store.tracking
        assert store.status().problem == ""
        assert "3 masters" in store.status().detail
        fetched = await store.fetch("1", [*ITEMS, "none"], 5.0)
        assert fetched.user == {"age": "30"}
        assert fetched.items == (*({"year": str(1900 + int(item))} for item in ITEMS), {})
        assert cache.stale() == []
        assert sorted([item async for ids in store.scan() for item in ids]) == sorted(ITEMS)
        changed = [next(item for item in ITEMS if node_of(f"item:{item}") == node) for node in range(MASTERS)]
        for item in changed:
            await asyncio.to_thread(client.hset, f"item:{item}", "year", "2000")
        await async_until(lambda: sorted(cache.stale()) == sorted(changed))
        assert (await store.fetch(None, changed, 5.0)).items == ({"year": "2000"},) * MASTERS
        assert cache.stale() == []


async def test_a_slot_that_moves_is_asked_where_it_is_and_trusted_once_it_was_read_again(
    cluster: Cluster, client: redis.Redis
) -> None:
    item = next(item for item in ITEMS if node_of(f"item:{item}") == 0)
    async with connected(cluster.url) as (store, cache):
        await store.fetch(None, ITEMS, 5.0)
        with cluster.moving(f"item:{item}", 0, 1):
            await async_until(lambda: cache.stale() == [item])
            assert (await store.fetch(None, [item], 5.0)).items == ({"year": str(1900 + int(item))},)
            assert cache.stale() == [item], "read by ASK, which is not the last word"
            cluster.ask(cluster.nodes[1], "PING")
            await asyncio.to_thread(client.hset, f"item:{item}", "year", "2001")
            assert (await store.fetch(None, [item], 5.0)).items == ({"year": "2001"},)
        assert (await store.fetch("1", ITEMS, 5.0)).items[ITEMS.index(item)] == {"year": "2001"}
        await async_until(lambda: store.status().problem == "")
        await asyncio.to_thread(client.hset, f"item:{item}", "year", "2002")
        await async_until(lambda: cache.stale() == [item])
        await store.fetch(None, [item], 5.0)
        assert cache.stale() == []
        with cluster.moving(f"item:{item}", 1, 0):  # back again
            pass
        assert (await store.fetch(None, [item], 5.0)).items == ({"year": "2002"},)


async def test_a_node_that_hangs_costs_its_own_items_alone(cluster: Cluster, client: redis.Redis) -> None:
    of_node = [node_of(f"item:{item}") for item in ITEMS]
    async with connected(cluster.url, timeout_s=1.0) as (store, cache):
        await store.fetch(None, ITEMS, 5.0)
        for node in cluster.nodes:  # the others wait for it, and the cluster stays what it is
            cluster.ask(node, "CONFIG", "SET", "cluster-node-timeout", 600_000)
        with cluster.nodes[2].stopped():
            first = await store.fetch(None, ITEMS, 1.0)
            began = time.monotonic()
            second = await store.fetch(None, ITEMS, 60.0)
            assert time.monotonic() - began < 50.0, "it is not asked again"
            for fetched in (first, second):
                assert [item is None for item in fetched.items] == [node == 2 for node in of_node]
            assert "1 of 3" in store.status().problem
            with pytest.raises(StoreError):
                await store.fetch(None, [item for item, node in zip(ITEMS, of_node, strict=True) if node == 2], 5.0)
        await async_until(lambda: store.status().problem == "")
        assert None not in (await store.fetch(None, ITEMS, 5.0)).items
        assert cache.stale() == []
        for node in cluster.nodes:
            cluster.ask(node, "CONFIG", "SET", "cluster-node-timeout", 1000)


def test_entities_are_loaded_replaced_and_removed(cluster: Cluster, client: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps({"id": item, "genre": "Drama"}) + "\n" for item in ITEMS))
    loader = FeatureLoader(client, KeyTemplate("item:{id}"), id_field="id")
    assert loader.load(RecordFile(file)).loaded == len(ITEMS)
    assert {client.hgetall(f"item:{item}").get(b"genre") for item in ITEMS} == {b"Drama"}
    assert all(client.hlen(f"item:{item}") <= 2 for item in ITEMS), "the year is gone"
    assert len(nodes_of(client)) == MASTERS
    assert loader.delete(RecordFile(file)) == len(ITEMS)


def test_a_server_without_cluster_mode_is_said_so(valkey_url: str) -> None:
    with pytest.raises(StoreError, match="Cluster"):
        open_client(valkey_url.replace("redis://", "redis+cluster://"))


async def test_tls_is_spoken_to_all_nodes_by_requests_and_commands(tmp_path: Path) -> None:
    """One node with all slots, as the first server of this machine that has TLS."""
    certificates = Certificates(tmp_path)
    options = "--cluster-enabled", "yes", "--cluster-port", str(free_port())
    for number, program in enumerate(servers().values()):
        (tmp_path / f"node-{number}").mkdir()
        with RedisServer(program, tmp_path / f"node-{number}", *options) as node:
            port = node.listen_with_tls(certificates)
            if port is None:
                continue
            node.kill()
            node._arguments += ["--tls-cluster", "yes"]  # Redis 7.0 names the ports of TLS only then
            node.start()
            with node.client as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
                wait(lambda: dict(admin.cluster("INFO"))["cluster_state"] == "ok")
            url = f"rediss+cluster://localhost:{port}?ssl_ca_certs={certificates.ca}"
            client = await asyncio.to_thread(open_client, url)
            await asyncio.to_thread(client.hset, "item:1", "year", "1990")
            client.close()
            async with connected(url) as (store, _):
                assert (await store.fetch("1", ["1"], 5.0)) == ({}, ({"year": "1990"},))
            with pytest.raises(StoreError, match="not trusted"):
                await asyncio.to_thread(open_client, f"rediss+cluster://localhost:{port}")
            return
    pytest.skip("no server of this machine has TLS")
