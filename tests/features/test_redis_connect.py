"""Connecting for requests and for commands: what fails is said in one line, TLS means the same, Redis 5 is known."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import hiredis
import pytest
import redis
from structlog.testing import capture_logs

from app.errors import ConfigError, StoreError
from app.features.item_cache import ItemCache
from app.features.loading.valkey_server import free_port
from app.features.redis_client import open_client
from app.features.redis_store import RedisFeatureStore
from tests.certificates import Certificates
from tests.features.stores import connected, reads
from tests.redis_servers import RedisServer, RespProxy, servers, stranger
from tests.waiting import async_until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.features.redis_link.HEARTBEAT_S", 0.2)


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
    template, reason = FAILURES[failure]
    # A busy machine is silent too; a plain server waits for the end of a line, which no greeting of TLS has.
    patience_s = 0.5 if "{silent}" in template or "rediss://127.0.0.1:{plain}" in template else 30.0
    monkeypatch.setattr("app.features.redis_client.CONNECT_TIMEOUT_S", patience_s)
    monkeypatch.setattr("app.features.redis_client.GREETING_TIMEOUT_S", patience_s)
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
            store = RedisFeatureStore(url, "user:{id}", "item:{id}", timeout_s=patience_s)
            await store.start(ItemCache(64))
            await async_until(lambda: any(line["event"] == "feature_store_unreachable" for line in lines))
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
    (tmp_path / "empty.pem").touch()
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(ConfigError, match=rf"^CTR_REDIS_URL: {option}.*{file.name}: [^\n]+$"):
            open_client(f"rediss://store?{option}={file}")
    with pytest.raises(ConfigError, match="ssl_ca_data"):
        open_client("rediss://store?ssl_ca_data=nothing")


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
