"""`connect` opens a `RespConnection` to the Redis or Valkey at a URL, in RESP3 where the server knows it.

Proxies, managed stores and Redis 5 may not know HELLO: they refuse it, or close the connection. Such a server is asked
again in RESP2, which has no pushes, so that it cannot report changes.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import hiredis

from app.errors import ConfigError, StoreError
from app.features.redis_tls import tls_context
from app.features.resp_commands import pack_command
from app.features.resp_connection import NEVER, RespConnection
from app.features.store_errors import SENTINEL, WANTS_CERTIFICATE, WANTS_TLS, explain_failure, explain_reply
from app.redis_url import RedisUrl
from app.url_host import url_host

CLIENT_NAME = "ctr-serving"
NO_PASSWORD_SET = ("without any password configured", "no password is set")
"""What servers say that were sent a password and want none, in RESP2; in RESP3 they take any."""
FINAL = ("WRONGPASS", "NOAUTH", "DENIED", "LOADING", "MASTERDOWN")
"""Answers to HELLO by servers that know it."""


class Greeted(NamedTuple):
    """A connection that is ready for use."""

    connection: RespConnection
    resp3: bool
    server: str
    """Its program and version as far as it says so, such as `redis 7.0.15`."""
    mode: str = ""
    """`standalone`, `cluster` or `sentinel`, as far as it says so."""
    no_resp3_reason: str = ""
    """Why it is not RESP3."""


class _NoHello(Exception):
    """The server does not know HELLO."""


async def connect(
    url: RedisUrl,
    *,
    timeout_s: float,
    patience_s: float = NEVER,
    on_push: Callable[[list[Any]], None] = lambda push: None,
    on_lost: Callable[[], None] = lambda: None,
) -> Greeted:
    """Connect, authenticate, select the database, and switch to RESP3 if the server can.

    Args:
        patience_s: as for `RespConnection`.
        on_lost: called if a connection that was returned is lost.

    Raises:
        StoreError: there was no connection within the time, or the server refused.
    """
    opened = functools.partial(_open, url, patience_s=patience_s, on_push=on_push, on_lost=on_lost)
    try:
        async with asyncio.timeout(timeout_s):
            if url.protocol == 2:
                return await opened(resp3=False, reason="CTR_REDIS_URL says protocol=2")
            try:
                return await opened(resp3=True)
            except _NoHello as error:
                if url.protocol == 3:
                    message = f"the feature store does not know RESP3, which protocol=3 asks for: {error}"
                    raise StoreError(message) from error
                return await opened(resp3=False, reason=str(error))
    except (OSError, TimeoutError, ConfigError) as error:
        reason = str(error) if isinstance(error, ConfigError) else explain_failure(error, tls=url.tls is not None)
        raise StoreError(f"cannot connect to the feature store: {reason}") from error


async def _open(
    url: RedisUrl,
    *,
    patience_s: float,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[], None],
    resp3: bool,
    reason: str = "",
) -> Greeted:
    loop = asyncio.get_running_loop()
    greeted = False

    def factory() -> RespConnection:
        return RespConnection(on_push, lambda: on_lost() if greeted else None, patience_s=patience_s)

    if url.path:
        _, connection = await loop.create_unix_connection(factory, url.path)
    else:
        tls = None if url.tls is None else tls_context(url.tls)
        _, connection = await loop.create_connection(factory, url.host, url.port, ssl=tls)
    try:
        hello = await _hello(connection, url) if resp3 else await _authenticate(connection, url)
    except BaseException:
        connection.close()
        raise
    greeted = True
    server = f"{hello.get('server', '')} {hello.get('version', '')}".strip()
    return Greeted(connection, resp3, server, str(hello.get("mode", "")), reason)


async def _hello(connection: RespConnection, url: RedisUrl) -> Mapping[str, Any]:
    """Greet in RESP3, and return what the server says of itself. Raises _NoHello, StoreError."""
    hello = ["HELLO", "3"]
    if url.password is not None:
        hello += ["AUTH", url.username or "default", url.password]
    try:
        (reply,) = await connection.send(pack_command(*hello, "SETNAME", CLIENT_NAME), 1)
    except StoreError as error:
        if connection.not_redis:
            raise
        raise _NoHello("the server closes the connection at HELLO") from error
    if isinstance(reply, hiredis.ReplyError):
        if str(reply).startswith(FINAL):
            raise StoreError(f"the feature store refused the connection: {explain_reply(reply)}")
        raise _NoHello(f"the server refuses HELLO 3: {explain_reply(reply)}")
    if not isinstance(reply, dict):  # a proxy that passes HELLO on, and speaks RESP2 itself
        raise _NoHello("the server answers HELLO 3 in RESP2")
    if reply.get("mode") == "sentinel":
        raise StoreError(f"what answers there is no store: {SENTINEL}")
    if url.service and reply.get("role") not in (None, "master"):
        raise StoreError(f"{url_host(url.host)}:{url.port} is not the master of {url.service} any more")
    await _select(connection, url)
    return reply


async def _authenticate(connection: RespConnection, url: RedisUrl) -> Mapping[str, Any]:
    """Greet in RESP2, and return nothing: the server does not say what it is. Raises StoreError."""
    try:
        if url.password is not None:
            words = [url.username, url.password] if url.username else [url.password]
            (reply,) = await connection.send(pack_command("AUTH", *words), 1)
            if url.username and "wrong number of arguments" in str(reply):  # Redis 5 has no users
                (reply,) = await connection.send(pack_command("AUTH", url.password), 1)
            if isinstance(reply, hiredis.ReplyError) and not any(text in str(reply) for text in NO_PASSWORD_SET):
                raise StoreError(f"the feature store refused the connection: {explain_reply(reply)}")
        await _select(connection, url)
        # A server that wants TLS, or is no Redis, may not have answered a word so far.
        await connection.send(pack_command("PING"), 1)
    except StoreError as error:
        if connection.open or connection.not_redis:
            raise
        reason = connection.lost_reason or "the server closes the connection"
        hint = WANTS_CERTIFICATE if url.tls else WANTS_TLS
        raise StoreError(f"cannot connect to the feature store: {reason}; {hint}") from error
    return {}


async def _select(connection: RespConnection, url: RedisUrl) -> None:
    if not url.database:
        return
    (reply,) = await connection.send(pack_command("SELECT", str(url.database)), 1)
    if isinstance(reply, hiredis.ReplyError):
        raise StoreError(f"the feature store refused database {url.database}: {explain_reply(reply)}")
