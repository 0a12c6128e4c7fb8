"""`find_master`: where the master of a service is that Sentinels watch, asked each time that it is connected to."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import redis
from redis.sentinel import MasterNotFoundError, Sentinel

from app.errors import StoreError
from app.redis_url import RedisUrl

_untyped_sentinel: Any = Sentinel
ANSWER_S = 0.5
"""How long one Sentinel is waited for: there are others."""


def find_master(url: RedisUrl, connect: Callable[[RedisUrl, float], redis.Redis]) -> RedisUrl:
    """Return the URL of the master; a URL without Sentinels as it is.

    Args:
        connect: returns a client of one server; the second argument is how many seconds it waits.

    Raises StoreError if none of them names one.
    """
    if not url.sentinels:
        return url
    with contextlib.ExitStack() as stack:
        discovery: Any = _untyped_sentinel([])
        discovery.sentinels = [
            stack.enter_context(connect(_sentinel_url(url, host, port), ANSWER_S)) for host, port in url.sentinels
        ]
        try:
            host, port = discovery.discover_master(url.service)
        except (MasterNotFoundError, redis.RedisError) as error:
            raise StoreError(f"the Sentinels name no master of {url.service}: {_reason(error)}") from error
    return dataclasses.replace(url, host=host, port=int(port), sentinels=())


def _sentinel_url(url: RedisUrl, host: str, port: int) -> RedisUrl:
    return RedisUrl(host, port, username=url.sentinel_username, password=url.sentinel_password, tls=url.tls)


def _reason(error: Exception) -> str:
    """Return what the Sentinels said, in one line; redis-py quotes the clients, which are of no use to people."""
    words = " ".join(str(error).split())
    return words.rpartition(" - ")[2][:120] if " - " in words else "none of them answers, or knows it"
