"""`RedisFeatureStore` before servers that can less than a Redis of today, that refuse, and that are none."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from structlog.testing import capture_logs

from app.errors import ConfigError, StoreError
from app.features.item_cache import ItemCache
from app.features.key_template import KeyTemplate
from app.features.loading.feature_loader import FeatureLoader
from app.features.loading.record_file import RecordFile
from app.features.redis_client import open_client, store_error
from app.features.redis_store import RedisFeatureStore
from app.features.resp_reader import OVERSIZED
from app.features.store_problem import LATE_FETCHES
from app.native.layout import MAX_VALUE_BYTES
from tests.redis_servers import (
    LOAD_COMMANDS,
    SERVE_COMMANDS,
    Certificates,
    RedisServer,
    RespProxy,
    free_port,
    servers,
    stranger,
)

pytestmark = pytest.mark.anyio

Store = Callable[..., Any]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.redis_link.HEARTBEAT_S", 0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    folder = tmp_path_factory.mktemp("server")
    with RedisServer(next(iter(servers().values())), folder, "--aclfile", str(_empty(folder / "acl"))) as server:
        yield server


def _empty(path: Path) -> Path:
    path.touch()
    return path


@pytest.fixture
def features(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client as client:
        client.flushall()
        client.execute_command("ACL", "LOAD")
        client.hset("user:1", mapping={"age": "30"})
        client.hset("item:1", mapping={"year": "1990"})
        yield client


@contextlib.asynccontextmanager
async def connected(url: str, *, timeout_s: float = 5.0, **options: Any) -> AsyncIterator[RedisFeatureStore]:
    store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=timeout_s, **options)
    store.select_fields(["age"], ["year"])
    await store.start(ItemCache(64))
    try:
        yield store
    finally:
        await store.stop()


async def reads(store: RedisFeatureStore) -> bool:
    return await store.fetch("1", ["1"], 5.0) == ({"age": "30"}, [{"year": "1990"}])


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
            await until(lambda: store.status().problem == "", 10.0)
            assert await reads(store)


async def until(condition: Callable[[], bool], seconds: float) -> None:
    due = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < due
        await asyncio.sleep(0.05)


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


async def not_asked(store: RedisFeatureStore) -> bool:
    try:
        await store.fetch("1", (), 5.0)
    except StoreError as error:
        return "not asked" in str(error)
    return False


async def test_a_silent_store_is_not_asked_until_it_answers_again(server: RedisServer, features: redis.Redis) -> None:
    with RespProxy(server.socket) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.05) as store:
            assert await reads(store)
            features.client_pause(20_000)
            with pytest.raises(StoreError, match="in time"):
                await store.fetch("1", (), 0.05)
            before = proxy.seen["HMGET"]
            for _ in range(1000):
                assert await not_asked(store)
            assert "CTR_REDIS_TIMEOUT_MS" in store.status().problem
            assert proxy.seen["HMGET"] - before <= 20, "heartbeats alone"
            features.client_unpause()
            await until(lambda: store.status().problem == "" and store.tracking, 20.0)
            assert await reads(store)


async def test_one_with_little_time_is_no_sign_of_a_silent_store(server: RedisServer, features: redis.Redis) -> None:
    with RespProxy(server.socket, delay_s=0.02) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=20.0) as store:
            for _ in range(LATE_FETCHES + 5):
                with contextlib.suppress(StoreError):
                    await store.fetch("1", (), 0.001)
            assert await reads(store)
            assert store.status().problem == ""


async def test_a_store_that_is_always_too_late_is_asked_by_heartbeats_alone(
    server: RedisServer, features: redis.Redis
) -> None:
    with RespProxy(server.socket) as proxy, capture_logs() as lines:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=0.05) as store:
            proxy.delay_s = 0.1
            late = 0
            while "times in a row" not in store.status().problem:
                late += not await not_asked_within(store, 0.05)
                await asyncio.sleep(0.01)
            assert late <= LATE_FETCHES
            assert await not_asked(store)
            proxy.delay_s = 0.0
            await until(lambda: not store._link.problem.late, 20.0)
            assert await reads(store)
    assert [line["event"] for line in lines].count("feature_store_refuses") == 1


async def not_asked_within(store: RedisFeatureStore, seconds: float) -> bool:
    try:
        await store.fetch("1", (), seconds)
    except StoreError as error:
        return "not asked" in str(error)
    raise AssertionError("it answered in time")


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.faults)])
async def test_cancelled_reads_never_cross_replies(server: RedisServer, features: redis.Redis, count: int) -> None:
    """Reads are given up at any moment, through a proxy that holds answers back; the others get their own."""
    users = 50
    with features.pipeline() as pipeline:
        for number in range(users):
            pipeline.hset(f"user:{number}", "age", number)
            pipeline.hset(f"item:{number}", "year", number)
        pipeline.execute()
    dice = random.Random(0)
    answered = cancelled = 0
    with RespProxy(server.socket, delay_s=0.002) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}", timeout_s=60.0) as store:
            while cancelled < count:
                numbers = [dice.randrange(users) for _ in range(50)]
                reading = [asyncio.create_task(store.fetch(str(n), [str(n)] * (n % 3), 60.0)) for n in numbers]
                for task in dice.sample(reading, 40):
                    asyncio.get_running_loop().call_later(dice.random() * 0.01, task.cancel)
                for number, task in zip(numbers, reading, strict=True):
                    try:
                        assert await task == ({"age": str(number)}, [{"year": str(number)}] * (number % 3))
                        answered += 1
                    except asyncio.CancelledError:
                        cancelled += 1
            assert store.status().connected
    assert answered >= count // 5


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


FAILURES = {
    "refused": ("redis://127.0.0.1:{free}", "Connection refused"),
    "no such host": ("redis://no-such-host.invalid", "cannot be resolved"),
    "no such socket": ("unix:///no/such/socket", "No such file"),
    "HTTP": ("redis://127.0.0.1:{http}", "no Redis"),
    "a TLS port without TLS": ("redis://127.0.0.1:{tls}", "rediss://"),
    "a plain port with TLS": ("rediss://127.0.0.1:{plain}", "TLS"),
    "silence": ("redis://127.0.0.1:{silent}", "in time"),
    "TLS and silence": ("rediss://127.0.0.1:{silent}", "in time"),
    "an unknown authority": ("rediss://127.0.0.1:{tls}", "not trusted"),
    "another host": ("rediss://127.0.0.1:{other}?ssl_ca_certs={ca}", "not trusted"),
    "no client certificate": ("rediss://127.0.0.1:{mutual}?ssl_ca_certs={ca}", "ssl_certfile"),
    "no password": ("redis://127.0.0.1:{locked}", "NOAUTH"),
    "a wrong password": ("redis://:secret@127.0.0.1:{locked}", "wrong"),
    "a wrong user": ("redis://ann:secret@127.0.0.1:{locked}", "wrong"),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    certificates.issue("other", "elsewhere.example")
    certificates.issue("client")
    return certificates


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
async def test_why_there_is_no_connection_is_one_line(
    failure: str,
    server: RedisServer,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.features.redis_client.CONNECT_TIMEOUT_S", 0.5)
    monkeypatch.setattr("app.features.redis_client.GREETING_TIMEOUT_S", 0.5)
    template, reason = FAILURES[failure]
    with contextlib.ExitStack() as stack:
        ports = {"free": free_port(), "plain": server.port}
        for name, context in (
            ("tls", certificates.server_context()),
            ("other", certificates.server_context("other")),
            ("mutual", certificates.server_context(wants_client=True)),
        ):
            if f"{{{name}}}" in template:
                ports[name] = stack.enter_context(RespProxy(server.socket, tls=context)).port
        ports["http"] = stack.enter_context(stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        ports["silent"] = stack.enter_context(stranger(b""))
        if "{locked}" in template:
            locked = stack.enter_context(RedisServer(next(iter(servers().values())), tmp_path))
            with locked.client as client:
                client.config_set("requirepass", "hunter2")
            ports["locked"] = locked.port
        url = template.format(**ports, ca=certificates.ca)
        with capture_logs() as lines:
            store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=0.5)
            await store.start(ItemCache(64))
            await asyncio.sleep(0.5)
            await store.stop()
        said = [line["reason"] for line in lines if line["event"] == "feature_store_unreachable"]
        assert len(said) == len(set(said)), "each reason once, though it is tried several times"
        assert any(reason in one for one in said), said
        with pytest.raises(StoreError) as refused:
            open_client(url)
        assert reason in str(refused.value)
        for message in (*said, str(refused.value)):
            assert "\n" not in message
            assert len(message) < 300
            assert "secret" not in message


TRUSTED = {
    "its authority": "rediss://localhost:{port}?ssl_ca_certs={ca}",
    "by address": "rediss://127.0.0.1:{port}?ssl_ca_certs={ca}",
    "its authority's text": "rediss://localhost:{port}?ssl_ca_data={text}",
    "with a certificate": "rediss://localhost:{port}?ssl_ca_certs={ca}&ssl_certfile={client}.pem&ssl_keyfile={client}.key",
    "any host": "rediss://localhost:{other}?ssl_ca_certs={ca}&ssl_check_hostname=false",
    "anything": "rediss://localhost:{other}?ssl_cert_reqs=none",
}


@pytest.mark.parametrize("trust", TRUSTED)
async def test_tls_options_mean_the_same_to_requests_and_to_commands(
    trust: str, server: RedisServer, features: redis.Redis, certificates: Certificates
) -> None:
    from urllib.parse import quote

    mutual = trust == "with a certificate"
    with (
        RespProxy(server.socket, tls=certificates.server_context(wants_client=mutual)) as proxy,
        RespProxy(server.socket, tls=certificates.server_context("other")) as other,
    ):
        text = quote(certificates.ca.read_text(), safe="+/=")
        client = certificates.folder / "client"
        url = TRUSTED[trust].format(port=proxy.port, other=other.port, ca=certificates.ca, text=text, client=client)
        async with connected(url) as store:
            assert await reads(store), store.status()
            assert store.status().tracking
        with open_client(url) as commands:
            assert commands.hgetall("user:1") == {b"age": b"30"}


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile"])
def test_a_file_that_is_missing_or_no_certificate_is_named(option: str, tmp_path: Path) -> None:
    for file in (tmp_path / "missing.pem", _empty(tmp_path / "empty.pem")):
        with pytest.raises(ConfigError, match=rf"^CTR_REDIS_URL: {option}.*{file.name}: [^\n]+$"):
            open_client(f"rediss://store?{option}={file}")
    with pytest.raises(ConfigError, match="ssl_ca_data"):
        open_client("rediss://store?ssl_ca_data=nothing")


WRITES = {
    "a replica": (["replicaof 127.0.0.1 1"], "READONLY", "name the master"),
    "full memory": (["config set maxmemory 1"], "OOM", "maxmemory"),
    "too few replicas": (["config set min-replicas-to-write 1"], "NOREPLICAS", "replicas"),
    "no right to write": (["acl setuser default -hset"], "NOPERM", "docs/redis.md"),
}


@pytest.mark.parametrize("case", WRITES)
def test_a_server_that_takes_no_writes_says_why(case: str, tmp_path: Path) -> None:
    commands, code, meaning = WRITES[case]
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": "1", "year": 1990}\n')
    with RedisServer(next(iter(servers().values())), tmp_path) as server, server.client as client:
        for command in commands:
            client.execute_command(*command.split())
        with (
            open_client(f"redis://127.0.0.1:{server.port}") as loading,
            pytest.raises(StoreError, match=meaning) as refused,
        ):
            FeatureLoader(loading, KeyTemplate("item:{id}")).load(RecordFile(file))
    assert code in str(refused.value)
    assert "1990" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lesser", [{"unknown": ["MULTI", "EXEC"]}, {"closes": ["MULTI"]}], ids=["unknown", "closes"])
def test_a_proxy_without_transactions_is_loaded_and_that_is_said_once(lesser: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text("".join(f'{{"id": "{n}", "year": 1990}}\n' for n in range(250)))
    said: list[str] = []
    with RedisServer(next(iter(servers().values())), tmp_path) as server, server.client as client:
        client.set("item:1", "of another type")
        with (
            RespProxy(server.socket, **lesser) as proxy,
            open_client(f"redis://127.0.0.1:{proxy.port}") as loading,
        ):
            loaded = FeatureLoader(loading, KeyTemplate("item:{id}"), on_note=said.append).load(RecordFile(file))
        assert loaded.loaded == 250
        assert client.hgetall("item:1") == {"year": "1990"}
    assert len(said) == 1
    assert "MULTI" in said[0]


@pytest.mark.parametrize("who", ["", ":secret@", "ann:secret@", ":wrong@"])
async def test_redis_5_knows_neither_hello_nor_users(who: str) -> None:
    wrong = b"-ERR wrong number of arguments for 'auth' command\r\n"

    def answer(words: list[bytes]) -> bytes:
        match [words[0].upper(), *words[1:]]:
            case [b"AUTH", password]:
                return b"+OK\r\n" if password == b"secret" else b"-ERR invalid password\r\n"
            case [b"AUTH", *_]:
                return wrong
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"HMGET", b"user:1", b"age"]:
                return b"*1\r\n$2\r\n30\r\n"
            case [b"HMGET", *_]:
                return b"*1\r\n$-1\r\n"
            case [b"HGETALL", b"user:1"]:
                return b"*2\r\n$3\r\nage\r\n$2\r\n30\r\n"
            case [name, *_]:
                return b"-ERR unknown command `%b`, with args beginning with: \r\n" % name
        raise AssertionError(words)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                commands.feed(data)
                while words := commands.gets():
                    writer.write(answer(words))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://{who}127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def read() -> Any:
        with open_client(url) as client:
            return client.hgetall("user:1")

    async with connected(url) as store:
        if who == ":wrong@":
            assert "invalid password" in store.status().detail
            with pytest.raises(StoreError, match="invalid password"):
                await asyncio.to_thread(read)
        else:
            assert (await store.fetch("1", ["1"], 5.0)) == ({"age": "30"}, [{}])
            assert not store.status().tracking
            assert await asyncio.to_thread(read) == {b"age": b"30"}
    server.close()
    await asyncio.sleep(0.1)  # for its connections to end
