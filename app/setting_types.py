"""The types of settings that text alone does not describe: each is read to one form, or refused with what to write."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, SecretStr
from pydantic_settings import NoDecode

from app.errors import ConfigError
from app.header_keys import is_hashed
from app.ranking_policy import LabelPolicy, parse_label_policies
from app.redis_url import parse_redis_url

FOR_PUBLISHING: dict[str, JsonValue] = {"for_publishing": True}
"""Marks a setting that `app.publishing` reads: it is passed on to the processes in which a service has it run."""
ORIGIN = re.compile(r"\*|https?://[^/?#@\s*]+")
ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _split(raw: object) -> object:
    return tuple(part.strip() for part in raw.split(",") if part.strip()) if isinstance(raw, str) else raw


def _check_redis_url(url: str) -> str:
    if url := url.strip():
        try:
            parse_redis_url(url)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return url


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _with_one_slash(path: str) -> str:
    path = f"/{path.strip('/')}" if path.strip("/") else ""
    if not ROOT_PATH.fullmatch(path):
        raise ValueError("not a path of letters, digits and ._~-; write it without the host, as in /ctr")
    return path


def _as_browsers_write_them(origins: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin.rstrip("/").lower() for origin in origins)
    if not all(ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("not an origin; write scheme and host, as in https://shop.example, or * for all")
    return origins


def _as_networks(networks: object) -> object:
    parts = _split(networks)
    if not isinstance(parts, tuple):
        return parts
    try:
        return tuple(ipaddress.ip_network(part) for part in parts)
    except ValueError:
        raise ValueError("not an address or a network; write 10.1.2.3 or 10.0.0.0/8, with commas between") from None


def _at_least_one(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("nothing but commas; name one at least, or leave it out")
    return words


def _as_policies(raw: object) -> object:
    if not isinstance(raw, str):
        return raw
    try:
        return parse_label_policies(raw)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _check_key(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if CONTROL.search(text):
        raise ValueError("a line end or another control character in a key: no header can carry it")
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ValueError("a key in quotes, which would be a part of it: leave them out")
    is_hashed(text)
    return key


KeyPattern = Annotated[str, Field(pattern=r"^[^{}]*\{id\}[^{}]*$")]
"""A key of the feature store, in which `{id}` stands for the user or item."""
RedisAddress = Annotated[str, AfterValidator(_check_redis_url)]
"""A URL that `app.redis_url` reads, or nothing."""
Host = Annotated[str, AfterValidator(_without_brackets)]
"""A host or an address; IPv6 may be in brackets."""
RootPath = Annotated[str, AfterValidator(_with_one_slash)]
"""A path with a slash in front and none behind, or nothing."""
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_as_browsers_write_them)]
"""Origins of pages, comma-separated."""
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_as_networks)]
"""Addresses and networks, comma-separated."""
Files = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]
"""Paths of files, comma-separated."""
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_at_least_one)]
"""One word or more, comma-separated."""
LabelPolicies = Annotated[tuple[LabelPolicy, ...], NoDecode, BeforeValidator(_as_policies)]
"""Policies by which orders are drawn, by label."""
HeaderKey = Annotated[SecretStr, AfterValidator(_check_key)]
"""A secret that a header can carry."""
HeaderKeys = Annotated[tuple[HeaderKey, ...], NoDecode, BeforeValidator(_split)]
"""Secrets that a header can carry, comma-separated."""
