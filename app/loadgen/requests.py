"""The requests for POST /rank that the load generator sends, as bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from app.errors import ConfigError


def rank_bodies(
    user_ids: Sequence[str], item_ids: Sequence[str], candidates: int, count: int = 512, seed: int = 0
) -> list[bytes]:
    """Return bodies, each with a user and distinct candidates that are drawn uniformly."""
    rng = random.Random(seed)
    return [
        msgspec.json.encode(
            {"user_id": rng.choice(user_ids), "item_ids": rng.sample(item_ids, min(candidates, len(item_ids)))}
        )
        for _ in range(count)
    ]


class RequestCycle:
    """Yields the same HTTP requests over and over."""

    def __init__(self, url: str, bodies: Sequence[bytes], headers: dict[str, str]) -> None:
        """Prepare the requests. Raises ConfigError for a URL that is not http://host[:port]."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(f"{url}: expected http://host:port")
        self.address = parts.hostname, parts.port or 80
        extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._requests = [
            (
                f"POST {parts.path.rstrip('/')}/rank HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Content-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
            ).encode()
            + body
            for body in bodies
        ]
        self._next = 0

    def next(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]
