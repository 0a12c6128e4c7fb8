"""`connect_tracked`: connects to a server, asks it to report which items change, and tries to read from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from app.errors import StoreError
from app.features.redis_connect import Greeted, connect
from app.features.resp_commands import pack_command
from app.features.resp_connection import RespConnection
from app.features.store_errors import explain_reply
from app.redis_url import RedisUrl


async def connect_tracked(
    url: RedisUrl,
    prefix: str,
    probe: Callable[[Greeted], Awaitable[None]],
    *,
    timeout_s: float,
    patience_s: float,
    on_push: Callable[[list[Any]], None],
    on_lost: Callable[[], None],
) -> tuple[Greeted, str]:
    """Connect, and ask for reports of changes.

    Args:
        prefix: what the keys of items begin with.
        patience_s: as for `RespConnection`.
        probe: reads from a new connection. Raises StoreError if there is no answer.

    Returns:
        The connection, and why the server does not report changes; nothing if it does.

    Raises:
        StoreError: there was no connection, or no answer.
    """
    refusal = ""
    for track in (True, False):
        greeted = await connect(url, timeout_s=timeout_s, patience_s=patience_s, on_push=on_push, on_lost=on_lost)
        try:
            if not greeted.resp3:
                refusal = greeted.no_resp3_reason
            elif track:
                refusal = await _enable_tracking(greeted.connection, prefix, timeout_s)
            await probe(greeted)
        except StoreError as error:
            greeted.connection.close()
            if not (greeted.resp3 and track):
                raise
            # Some proxies end the connection at a command that they do not know.
            refusal = f"CLIENT TRACKING: {error}"
            continue
        break
    return greeted, refusal


async def _enable_tracking(connection: RespConnection, prefix: str, timeout_s: float) -> str:
    """Return why the server does not report changes; nothing if it does. Raises StoreError without an answer."""
    command = pack_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
    (reply,) = await connection.send(command, 1, timeout_s)
    return f"CLIENT TRACKING: {explain_reply(reply)}" if isinstance(reply, hiredis.ReplyError) else ""
