"""`RedisFeatureStore` before servers that can less than a Redis of today, that refuse, and that hold other things."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from app.errors import StoreError
from app.features import oversized_users
from app.features.item_cache import ItemCache
from app.features.loading.valkey_server import free_port
from app.features.redis_client import open_client, store_error
from app.features.redis_store import RedisFeatureStore
from app.features.resp_reader import OVERSIZED
from app.native.layout import MAX_VALUE_BYTES
from tests.features.stores import connected, reads
from tests.redis_servers import LOAD_COMMANDS, SERVE_COMMANDS, RedisServer, RespProxy, servers
from tests.waiting import async_until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.redis_link.HEARTBEAT_S", 0.2)


LESSER = {
    "no HELLO": {"unknown": ["HELLO"]},
    "no HELLO, no CLIENT": {"unknown": ["HELLO", "CLIENT"]},
    "no TRACKING": {"unknown": ["CLIENT TRACKING"]},
    "no CLIENT": {"unknown": ["CLIENT"]},
    "no PING, no MULTI": {"unknown": ["PING", "MULTI", "EXEC"]},
    "closes at HELLO": {"closes": ["HELLO"]},
    "closes at CLIENT": {"closes": ["CLIENT"]},
    "closes at HELLO and CLIENT": {"closes": ["HELLO", "CLIENT"]},
}


@pytest.mark.parametrize("lesser", LESSER)
async def test_a_proxy_that_knows_less_is_worked_with_and_what_it_lacks_is_said_once(
    lesser: str, server: RedisServer, features: redis.Redis
) -> None:
    features.execute_command("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all")
    with RespProxy(server.socket, **LESSER[lesser]) as proxy, capture_logs() as lines:  # type: ignore[arg-type]
        async with connected(f"redis://ann:secret@127.0.0.1:{proxy.port}/0") as store:
            assert await reads(store)
            assert [ids async for ids in store.scan()] == [["1"]]
            status = store.status()
            assert status.connected
            assert not status.problem
            await asyncio.sleep(0.5)  # beyond a heartbeat
            assert await reads(store)
        said = [line for line in lines if line["event"] == "feature_store_reports_no_changes"]
        if lesser == "no PING, no MULTI":
            assert status.tracking
            assert said == []
        else:
            assert not status.tracking
            assert len(said) == 1
            assert "each request reads its items" in status.detail
        assert "feature_store_unreachable" not in {line["event"] for line in lines}


async def test_protocol_2_asks_for_no_hello_and_protocol_3_for_nothing_less(
    server: RedisServer, features: redis.Redis
) -> None:
    with RespProxy(server.socket, unknown=["HELLO"]) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}?protocol=2") as store:
            assert await reads(store)
            assert "protocol=2" in store.status().detail
        assert "HELLO" not in proxy.seen
        async with connected(f"redis://127.0.0.1:{proxy.port}?protocol=3") as store:
            assert not store.status().connected
            assert "RESP3" in store.status().detail
    async with connected(f"redis://127.0.0.1:{server.port}?protocol=3") as store:
        assert store.status().tracking


async def test_a_database_a_socket_and_a_password_where_none_is_asked_for(
    server: RedisServer, features: redis.Redis
) -> None:
    with redis.Redis(unix_socket_path=str(server.socket), db=3) as third:
        third.hset("user:1", mapping={"age": "33"})
    for url in (
        f"redis://127.0.0.1:{server.port}/3",
        f"redis://127.0.0.1:{server.port}?db=3",
        f"unix://{server.socket}?db=3",
        f"redis://:any@127.0.0.1:{server.port}/3",
        f"redis://:any@127.0.0.1:{server.port}/3?protocol=2",
    ):
        async with connected(url) as store:
            assert (await store.fetch("1", (), 5.0)).user == {"age": "33"}, url
        with open_client(url) as client:
            assert client.hgetall("user:1") == {b"age": b"33"}, url
    async with connected(f"redis://127.0.0.1:{server.port}/99") as store:
        assert "database 99" in store.status().detail
    with pytest.raises(StoreError, match="out of range"):
        open_client(f"redis://127.0.0.1:{server.port}/99")


async def test_a_user_with_the_documented_commands_alone(server: RedisServer, features: redis.Redis) -> None:
    keys = "resetkeys", "~user:*", "~item:*", "-@all"
    features.execute_command("ACL", "SETUSER", "ann", "on", ">p#ss", *keys, *SERVE_COMMANDS.split())
    features.execute_command("ACL", "SETUSER", "bob", "on", "nopass", *keys, *LOAD_COMMANDS.split())
    with capture_logs() as lines:
        async with connected(f"redis://ann:p%23ss@127.0.0.1:{server.port}") as store:
            assert store.status() == (await reads(store) and store.status())
            assert store.status().tracking
            assert [ids async for ids in store.scan()] == [["1"]]
            await asyncio.sleep(0.5)
            assert store.status().problem == ""
    assert [line["event"] for line in lines] == ["feature_store_connected"]
    with open_client(f"redis://bob:@127.0.0.1:{server.port}") as client, client.pipeline() as pipeline:
        pipeline.delete("item:1")
        pipeline.hset("item:1", "year", "1991")
        pipeline.execute()
    features.execute_command("ACL", "SETUSER", "ann", "-client|tracking")
    async with connected(f"redis://ann:p%23ss@127.0.0.1:{server.port}", item_max_age_s=5.0) as store:
        assert await store.fetch("1", ["1"], 5.0) == ({"age": "30"}, [{"year": "1991"}])
        assert "read again after 5 s" in store.status().detail
        assert "NOPERM" in store.status().detail


REFUSALS = {
    "may not read": ("ann", "NOPERM", ["-hmget"]),
    "other keys": ("ann", "NOPERM", ["resetkeys", "~other:*"]),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_one_that_may_not_read_says_so_in_its_status_and_once_in_the_log(
    refusal: str, server: RedisServer, features: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.features.store_problem.LASTS_S", 1.0)
    user, word, rules = REFUSALS[refusal]
    features.execute_command("ACL", "SETUSER", user, "on", ">secret", "~*", "+@all", *rules)
    with capture_logs() as lines:
        async with connected(f"redis://{user}:secret@127.0.0.1:{server.port}") as store:
            assert word in store.status().problem, "before any request"
            for _ in range(20):
                with pytest.raises(StoreError, match=word):
                    await store.fetch("1", ["1"], 5.0)
            refused = [line for line in lines if line["event"] == "feature_store_refuses"]
            assert len(refused) == 1
            assert "docs/redis.md" in refused[0]["reason"]
            features.execute_command("ACL", "SETUSER", user, "~*", "+hmget")
            await async_until(lambda: store.status().problem == "", 10.0)
            assert await reads(store)


async def test_keys_of_another_type_are_unknown_and_said_once(server: RedisServer, features: redis.Redis) -> None:
    features.set("item:json", '{"year": 1990}')
    with capture_logs() as lines:
        async with connected(f"redis://127.0.0.1:{server.port}") as store:
            for _ in range(3):
                assert (await store.fetch("1", ["1", "json"], 5.0)).items == [{"year": "1990"}, {}]
            assert "WRONGTYPE" in store.status().detail
            assert store.status().problem == ""
    assert [line["event"] for line in lines].count("feature_store_refuses") == 1


async def test_only_the_selected_fields_are_read_and_a_value_beyond_the_bound_is_marked(
    server: RedisServer, features: redis.Redis
) -> None:
    """The hash of 100,000 other fields is not read, and of a value of 30 MB nothing is kept."""
    features.hset("user:1", mapping={f"other{number}": number for number in range(100_000)})
    features.hset("user:1", "large", bytes(30_000_000))
    features.hset("item:2", mapping={"year": "y" * (MAX_VALUE_BYTES + 1), "title": "two"})
    async with connected(f"redis://127.0.0.1:{server.port}") as store:
        assert await reads(store)
        store.select_fields(["large", "age"], ["title", "year"])
        large, after = await asyncio.gather(store.fetch("1", ["2"], 30.0), store.fetch("1", ["1"], 30.0))
        assert large == ({"large": OVERSIZED, "age": "30"}, [{"title": "two", "year": OVERSIZED}])
        assert after.items == [{"title": None, "year": "1990"}]
        store.select_fields([], [])
        fetched = await store.fetch("1", ["1", "none"], 5.0)
        assert [bool(one) for one in (fetched.user, *fetched.items)] == [True, True, False]


async def test_users_that_may_not_be_read_do_not_make_the_server_late(
    server: RedisServer, features: redis.Redis
) -> None:
    features.execute_command("ACL", "SETUSER", "items", "on", ">secret", "+@all", "~item:*")
    async with connected(f"redis://items:secret@127.0.0.1:{server.port}") as store:
        for _ in range(30):
            with pytest.raises(StoreError, match="NOPERM"):
                await store.fetch("1", [], 5.0)
        assert (await store.fetch(None, ["1"], 5.0)).items == [{"year": "1990"}]


async def test_a_value_that_comes_too_late_is_remembered_as_too_large(
    server: RedisServer, features: redis.Redis
) -> None:
    features.hset("user:1", "large", bytes(30_000_000))
    async with connected(f"redis://127.0.0.1:{server.port}") as store:
        assert await reads(store)
        store.select_fields(["large"], [])
        features.client_pause(500)
        with pytest.raises(StoreError):
            await store.fetch("1", [], 0.05)
        command = store._hashes.user_hash
        await async_until(lambda: store._hashes.user_command("1") is not command, 10.0)


async def test_a_value_that_was_too_large_is_not_asked_for_again_for_a_while(
    server: RedisServer, features: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    features.hset("user:1", mapping={"large": bytes(MAX_VALUE_BYTES + 1), "age": "30"})
    features.hset("user:2", mapping={"large": bytes(MAX_VALUE_BYTES + 1)})
    monkeypatch.setattr(oversized_users, "KEPT_S", 1.0)
    async with connected(f"redis://127.0.0.1:{server.port}") as store:
        assert await reads(store)
        for fields, expected in (
            (["large", "age"], {"large": OVERSIZED, "age": "30"}),
            (["large"], {"large": OVERSIZED}),
        ):
            store.select_fields(fields, [])
            assert (await store.fetch("1", [], 30.0)).user == expected
            sent = features.info("stats")["total_net_output_bytes"]
            assert (await store.fetch("1", [], 30.0)).user == expected
            assert features.info("stats")["total_net_output_bytes"] - sent < MAX_VALUE_BYTES
        store.select_fields(["large", "age"], [])
        assert (await store.fetch("2", [], 30.0)).user == {"large": OVERSIZED, "age": None}
        assert (await store.fetch("2", [], 30.0)).user == {"large": OVERSIZED, "age": None}
        features.hset("user:2", "large", "small now")
        await asyncio.sleep(1.1)
        assert (await store.fetch("2", [], 30.0)).user == {"large": "small now", "age": None}
        assert (await store.fetch("none", [], 30.0)).user == {}


async def test_items_read_for_other_fields_than_are_selected_now_are_stale(
    server: RedisServer, features: redis.Redis
) -> None:
    features.hset("item:1", "title", "one")
    cache = ItemCache(64)
    store = RedisFeatureStore(f"redis://127.0.0.1:{server.port}", "user:{id}", "item:{id}", timeout_s=5.0)
    store.select_fields([], ["year"])
    await store.start(cache)
    await store.fetch(None, ["1"], 5.0)
    assert cache.stale() == []
    store.select_fields(["age"], ["year"])
    assert cache.stale() == [], "users are not cached"
    reading = asyncio.ensure_future(store.fetch(None, ["1"], 5.0))
    await asyncio.sleep(0)
    store.select_fields(["age"], ["year", "title"])
    assert cache.stale() == ["1"]
    await reading
    assert cache.stale() == ["1"], "it was asked for before"
    await store.fetch(None, ["1"], 5.0)
    assert cache.stale() == []
    await store.stop()


async def test_a_node_of_a_cluster_and_a_replica_without_its_master(tmp_path: Path) -> None:
    program = next(iter(servers().values()))
    (tmp_path / "node").mkdir()
    cluster = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with RedisServer(program, tmp_path / "node", *cluster) as node, capture_logs() as lines:
        async with connected(f"redis://127.0.0.1:{node.port}") as store:
            assert "cluster" in store.status().problem, "CLUSTERDOWN: it has no slots"
            with node.client as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 100)
            with pytest.raises(StoreError, match="cluster"):
                await store.fetch("1", (), 5.0)
        with open_client(f"redis://127.0.0.1:{node.port}") as client:
            with pytest.raises(redis.RedisError) as refused:
                client.hset("user:1", "age", "1")
            assert "cluster" in str(store_error(refused.value))
    options = ("--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no")
    (tmp_path / "replica").mkdir()
    with RedisServer(program, tmp_path / "replica", *options) as replica:
        async with connected(f"redis://127.0.0.1:{replica.port}") as store:
            assert "MASTERDOWN" in store.status().problem
        with pytest.raises(StoreError, match="MASTERDOWN"):
            open_client(f"redis://127.0.0.1:{replica.port}")
    assert len([line for line in lines if line["event"] == "feature_store_refuses"]) == 1
