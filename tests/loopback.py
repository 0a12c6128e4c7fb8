"""HTTP to services on this machine.

A client of httpx reads every authority for TLS when it is made, 40 ms of processor, and `httpx.get` makes one for each
request. There is no TLS here.
"""

from __future__ import annotations

from typing import Any

import httpx

TIMEOUT_S = 60.0


def http_client(**options: Any) -> httpx.Client:
    """Return a client that keeps its connections."""
    return httpx.Client(**{"verify": False, "timeout": TIMEOUT_S, **options})


_client = http_client(limits=httpx.Limits(max_keepalive_connections=0))


def request(method: str, url: str, **options: Any) -> httpx.Response:
    """Send a request over a connection of its own, as `httpx.request` does."""
    return _client.request(method, url, **options)


def get(url: str, **options: Any) -> httpx.Response:
    return request("GET", url, **options)


def post(url: str, **options: Any) -> httpx.Response:
    return request("POST", url, **options)
