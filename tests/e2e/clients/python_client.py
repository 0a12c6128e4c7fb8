"""Sends requests by one of Python's HTTP clients, and prints how often each status came: run by `test_clients.py`.

Arguments: the client, the address of a service, of one without a model, and how many requests of each kind.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

BODY = b'{"user_id": "4", "item_ids": ["1", "2", "3"]}'
SIZES = [700_000] * 12 + [1_500_000] * 6 + [5_000_000, 20_000_000]
"""Bytes of the bodies that are too large, in turn."""
HEADERS = {"Content-Type": "application/json"}

Post = Callable[[str, bytes], tuple[int, bytes]]


def with_urllib() -> Post:
    def post(url: str, body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(url, body, HEADERS)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    return post


def with_http_client(headers: dict[str, str]) -> Post:
    connections: dict[str, http.client.HTTPConnection] = {}

    def post(url: str, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(url)
        connection = connections.setdefault(parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=60))
        connection.request("POST", parts.path, body, {**HEADERS, **headers})
        response = connection.getresponse()
        return response.status, response.read()

    return post


def with_requests() -> Post:
    import requests

    session = requests.Session()

    def post(url: str, body: bytes) -> tuple[int, bytes]:
        response = session.post(url, data=body, headers=HEADERS, timeout=60)
        return response.status_code, response.content

    return post


def with_httpx() -> Post:
    import httpx

    client = httpx.Client(timeout=60)

    def post(url: str, body: bytes) -> tuple[int, bytes]:
        response = client.post(url, content=body, headers=HEADERS)
        return response.status_code, response.content

    return post


def with_aiohttp() -> Post:
    import aiohttp

    runner = asyncio.Runner()

    async def session() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60))

    client = runner.run(session())

    def post(url: str, body: bytes) -> tuple[int, bytes]:
        async def ask() -> tuple[int, bytes]:
            async with client.post(url, data=body, headers=HEADERS) as response:
                return response.status, await response.read()

        return runner.run(ask())

    return post


CLIENTS: dict[str, Callable[[], Post]] = {
    "urllib": with_urllib,
    "http.client": lambda: with_http_client({}),
    "http.client, close": lambda: with_http_client({"Connection": "close"}),
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
}


def main(client: str, service: str, without_model: str, count: int) -> Counter[str]:
    post = CLIENTS[client]()
    outcomes: Counter[str] = Counter()
    sizes = itertools.cycle(SIZES)
    for _ in range(count):
        for url, body in ((service, BODY), (service, b"x" * next(sizes)), (without_model, BODY)):
            try:
                status, answer = post(f"{url}/rank", body)
                json.loads(answer)
                outcomes[str(status)] += 1
            except Exception as error:
                outcomes[f"{type(error).__name__}: {error}"] += 1
    return outcomes


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))))
