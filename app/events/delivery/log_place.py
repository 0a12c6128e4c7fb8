"""`log_place`: what `CTR_EVENTS` and `--events` mean: a folder, a bucket of an object store, or a stream of Redis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import ConfigError
from app.redis_url import SCHEMES, RedisUrl, parse_redis_url

BUCKET_SCHEME = "s3"
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?")
STREAM = re.compile(r"(?!\d+$)[\w.:-]{1,200}", re.ASCII)
STREAM_SCHEMES = {f"{scheme}{suffix}" for scheme in SCHEMES for suffix in ("", "+sentinel", "+cluster")}
HOW = "write a folder, s3://BUCKET/PREFIX, or redis://HOST:PORT/STREAM"


@dataclass(frozen=True)
class LogPlace:
    """Where an event log is."""

    kind: Literal["folder", "bucket", "stream"]
    folder: Path = Path()
    url: str = ""
    """Of a bucket, or of the server of a stream; that may hold a password."""
    stream: str = ""
    server: RedisUrl | None = None

    def __str__(self) -> str:
        """Say where it is, without a password."""
        if self.kind == "folder":
            return str(self.folder)
        return self.url if self.kind == "bucket" else f"the stream {self.stream} of {self.server}"


def log_place(text: str) -> LogPlace:
    """Read where a log is. Raises ConfigError, without any part of a password."""
    text = text.strip()
    scheme = SCHEME.match(text)
    if scheme is None:
        return LogPlace("folder", Path(text))
    name = scheme[1].lower()
    if name == BUCKET_SCHEME:
        if not BUCKET.fullmatch(text):
            raise ConfigError(
                "a bucket is written s3://BUCKET/PREFIX, and nothing else; keys, region and endpoint come from "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
            )
        return LogPlace("bucket", url=text.rstrip("/"))
    if name in STREAM_SCHEMES:
        url, mark, options = text.partition("?")
        server, _, stream = url.rpartition("/")
        if not STREAM.fullmatch(stream) or server.endswith(":/"):
            raise ConfigError(f"CTR_EVENTS names no stream behind the server: {name}://HOST:PORT/STREAM")
        url = f"{server}{mark}{options}"
        return LogPlace("stream", url=url, stream=stream, server=parse_redis_url(url))
    raise ConfigError(f"{name}:// is no place for an event log: {HOW}")
