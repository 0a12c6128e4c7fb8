"""`connect` opens a `RespConnection` to the Redis or Valkey at a URL, and switches it to RESP3."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from app.errors import ConfigError, StoreError
from app.features.resp_commands import pack_command
from app.features.resp_connection import RespConnection


async def connect(
    url: str,
    *,
    timeout_s: float,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[], None],
) -> RespConnection:
    """Connect, authenticate, select the database, and switch to RESP3.

    Raises:
        StoreError: there was no connection within the time, or the server refused.
        ConfigError: the URL cannot be understood.
    """
    try:
        target: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ConfigError(f"CTR_REDIS_URL: {error}") from error
    loop = asyncio.get_running_loop()

    def factory() -> RespConnection:
        return RespConnection(on_push, on_lost)

    try:
        async with asyncio.timeout(timeout_s):
            if path := target.get("path"):
                _, connection = await loop.create_unix_connection(factory, path)
            else:
                tls = _tls_context(target) if target.get("connection_class") is SSLConnection else None
                _, connection = await loop.create_connection(
                    factory, target.get("host", "localhost"), target.get("port", 6379), ssl=tls
                )
            try:
                await _greet(connection, target)
            except BaseException:
                connection.close()
                raise
    except (OSError, TimeoutError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise StoreError(f"cannot connect to the feature store: {reason}") from error
    return connection


async def _greet(connection: RespConnection, target: dict[str, Any]) -> None:
    hello = ["HELLO", "3"]
    if password := target.get("password"):
        hello += ["AUTH", target.get("username") or "default", password]
    commands = [pack_command(*hello, "SETNAME", "ctr-serving")]
    if database := target.get("db"):
        commands.append(pack_command("SELECT", str(database)))
    for reply in await connection.send(b"".join(commands), len(commands)):
        if isinstance(reply, hiredis.ReplyError):
            hint = " (Redis 6 or newer, or Valkey, is needed)" if "unknown command" in str(reply) else ""
            raise StoreError(f"the feature store refused the connection: {str(reply)[:120]}{hint}")


def _tls_context(target: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.get("ssl_ca_certs"))
    if target.get("ssl_cert_reqs") in ("none", "CERT_NONE"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := target.get("ssl_certfile"):
        context.load_cert_chain(certificate, target.get("ssl_keyfile"))
    return context
