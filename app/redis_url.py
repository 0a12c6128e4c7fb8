"""`RedisUrl`: what `CTR_REDIS_URL` means, decided once for every command, before anything is connected.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][?OPTION=VALUE&...]      rediss:// is the same with TLS
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DATABASE][?...]
    redis+cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...][?...]
    unix://[[USER]:PASSWORD@]/PATH/OF/SOCKET[?db=DATABASE&...]

A URL that programs read in different ways is refused rather than guessed at: what is not encoded in a password moves
the host, a misspelt option is no option. No message holds any part of a password, so none quotes what may be one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.errors import ConfigError
from app.redis_url_options import (
    ENCODE,
    TlsOptions,
    decoded,
    protocol_of,
    read_options,
    refuse_sentinel_options,
    refuse_tls_options,
    tls_options,
)
from app.url_host import url_host

DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
"""Scheme to whether it asks for TLS."""
SENTINEL, CLUSTER = "+sentinel", "+cluster"
"""What ends a scheme of which the hosts are Sentinels, or nodes of a cluster."""
SERVICE = re.compile(r"[A-Za-z0-9_.-]+")
SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
PLAIN_HOST = re.compile(r"([\w-]+(\.[\w-]+)+|localhost|[\w-]+(?=:))(:\d{1,5})?(/\d{1,4})?/?")
"""What is surely a host, and no part of a password: it has dots, a port, or is `localhost`."""


@dataclass(frozen=True)
class RedisUrl:
    """The address of a Redis or Valkey, and who connects."""

    host: str = "localhost"
    port: int = DEFAULT_PORT
    path: str = ""
    """Path of a Unix socket; with one, host and port mean nothing."""
    database: int = 0
    username: str = ""
    password: str | None = field(default=None, repr=False)
    """None where the URL has neither a user nor a password."""
    tls: TlsOptions | None = None
    protocol: int | None = None
    """2 or 3 where the URL says so; otherwise 3 where the server knows it."""
    service: str = ""
    """The name under which Sentinels know the master that is meant."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of those Sentinels; with some, host and port mean nothing."""
    sentinel_username: str = ""
    sentinel_password: str | None = field(default=None, repr=False)
    cluster_nodes: tuple[tuple[str, int], ...] = ()
    """Hosts and ports of some nodes of a cluster, which name the others; with some, host and port mean nothing."""

    def __str__(self) -> str:
        """Say what it means in words, without the password."""
        place = f"the socket {self.path}" if self.path else f"{url_host(self.host)}:{self.port}"
        if self.sentinels:
            asked = ", ".join(f"{url_host(host)}:{port}" for host, port in self.sentinels)
            place = f"the master of {self.service} that the Sentinels {asked} name"
        if self.cluster_nodes:
            place = f"the cluster of {', '.join(f'{url_host(host)}:{port}' for host, port in self.cluster_nodes)}"
        user = f", user {self.username}" if self.username else ""
        return f"{place}, database {self.database}{user}, {'with' if self.tls else 'without'} TLS"


def parse_redis_url(url: str) -> RedisUrl:
    """Read `CTR_REDIS_URL`, whitespace around it aside.

    Raises ConfigError, in one line without any part of a password, for all that has no one meaning.
    """
    url = url.strip()
    match = SCHEME.fullmatch(url)
    if not match:
        raise ConfigError(_without_scheme(url))
    scheme, rest = match[1].lower(), match[2]
    _check_scheme(scheme)
    if re.search(r"[\s\x00-\x1f\x7f]", rest):
        raise ConfigError("there is a space or a line end within it; in a password write a space as %20")
    if "#" in rest:
        raise ConfigError(f"there is a '#' in it; {ENCODE}")
    hierarchy, _, query = rest.partition("?")
    authority, slash, path = hierarchy.partition("/")
    if "@" in path or "@" in query or authority.count("@") > 1:
        raise ConfigError(f"there is an '@' behind the host or a second one; {ENCODE}")
    options = read_options(query)
    userinfo, at, place = authority.rpartition("@")
    username, password = _credentials(userinfo, bool(at), options)
    protocol = protocol_of(options)
    if scheme == "unix":
        if place or not path:
            raise ConfigError("a socket is named by its absolute path, with three slashes: unix:///run/redis.sock")
        refuse_tls_options(options, "a unix socket has no TLS")
        refuse_sentinel_options(options, "a unix socket is no Sentinel")
        database = _database("", options)
        return RedisUrl(
            path=decoded(slash + path, "the path"),
            database=database,
            username=username,
            password=password,
            protocol=protocol,
        )
    service = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    cluster_nodes: tuple[tuple[str, int], ...] = ()
    host, port = "", 0
    plain = scheme.removesuffix(SENTINEL).removesuffix(CLUSTER)
    if scheme.endswith(SENTINEL):
        service, _, path = path.partition("/")
        if not SERVICE.fullmatch(service):
            raise ConfigError(
                f"it names no service; write {scheme}://HOST:PORT,HOST:PORT/SERVICE, as Sentinels know it"
            )
        sentinels = tuple(_host_and_port(one, SENTINEL_PORT) for one in place.split(","))
    else:
        refuse_sentinel_options(options, "it names no Sentinels: redis+sentinel:// does")
        if scheme.endswith(CLUSTER):
            cluster_nodes = tuple(_host_and_port(one, DEFAULT_PORT) for one in place.split(","))
        else:
            host, port = _host_and_port(place, DEFAULT_PORT)
    database = _database(path, options)
    if cluster_nodes and database:
        raise ConfigError("a cluster has database 0 alone; leave the database out")
    if not SCHEMES[plain]:
        refuse_tls_options(options, f"that is for TLS: write {scheme.replace(plain, plain + 's')}://, or leave it out")
    return RedisUrl(
        host,
        port,
        database=database,
        username=username,
        password=password,
        tls=tls_options(options) if SCHEMES[plain] else None,
        protocol=protocol,
        service=service,
        sentinels=sentinels,
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password=options.get("sentinel_password"),
        cluster_nodes=cluster_nodes,
    )


def _without_scheme(url: str) -> str:
    if url[:1] in "\"'" and url:
        return "it begins with a quotation mark; take the quotation marks around it away"
    if url.startswith("/") and "@" not in url:
        return f"there is no scheme; write unix://{url}"
    if PLAIN_HOST.fullmatch(url):
        return f"there is no scheme; write redis://{url}, or rediss://{url} for TLS"
    return "there is no scheme; write redis://HOST:PORT, or rediss://HOST:PORT for TLS"


def _check_scheme(scheme: str) -> None:
    if scheme == "unix" or scheme in SCHEMES:
        return
    for suffix in (SENTINEL, CLUSTER):
        if scheme.removesuffix(suffix) in SCHEMES:
            return
        if suffix[1:] in scheme:
            raise ConfigError(
                f"the scheme {scheme[:20]}:// is not known; write redis{suffix}://, or rediss{suffix}:// for TLS"
            )
    meant = "unix" if "unix" in scheme or "sock" in scheme else "rediss" if "ssl" in scheme or "tls" in scheme else ""
    known = f"write {meant}://" if meant else "write redis://, rediss:// (TLS) or unix:// (a socket)"
    raise ConfigError(f"the scheme {scheme[:20]}:// is not known; {known}")


def _credentials(userinfo: str, given: bool, options: Mapping[str, str]) -> tuple[str, str | None]:
    raw_username, colon, raw_password = userinfo.partition(":")
    if given and ("username" in options or "password" in options):
        raise ConfigError("user and password are there twice: before the '@' and as options")
    username = options.get("username") or decoded(raw_username, "the user name")
    password = options.get("password", decoded(raw_password, "the password") if colon else None)
    if username and password is None:
        raise ConfigError(
            "a user is named without a password; a password alone is written :PASSWORD@HOST, a user without one "
            "USER:@HOST"
        )
    return username, (password if password or username else None)


def _host_and_port(place: str, default_port: int) -> tuple[str, int]:
    """Read `HOST`, `HOST:PORT` or `[IPV6]:PORT`."""
    if place.startswith("["):
        host, bracket, raw_port = place[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            bracket = ""
        if not bracket or raw_port[:1] not in ("", ":"):
            raise ConfigError("what is in brackets is no IPv6 address; write redis://[::1]:6379")
        colon, raw_port = raw_port[:1], raw_port[1:]
    else:
        host, colon, raw_port = place.partition(":")
        if "," in place:
            raise ConfigError(
                "it names several hosts; nodes of a cluster are named by redis+cluster://, Sentinels by "
                "redis+sentinel://"
            )
        if ":" in raw_port:
            raise ConfigError(
                "there are several ':' in the host; write an IPv6 address in brackets: redis://[::1]:6379"
            )
        if not host:
            raise ConfigError("it names no host; write redis://localhost:6379 for this machine")
        if not HOST.fullmatch(host):
            raise ConfigError(f"the host has letters that no host has; {ENCODE}")
    if not colon:
        return host, default_port
    if not (raw_port.isascii() and raw_port.isdigit()) or not 1 <= int(raw_port[:6]) <= 65_535:
        raise ConfigError(f"the port is no number from 1 to 65535; where that is part of a password: {ENCODE}")
    return host, int(raw_port)


def _database(path: str, options: Mapping[str, str]) -> int:
    named = [text for text in (path.strip("/"), options.get("db", "")) if text]
    if any(not (text.isascii() and text.isdigit()) or len(text) > 6 for text in named):
        raise ConfigError("the database is no number; write /0, or leave it out")
    if len({int(text) for text in named}) > 1:
        raise ConfigError("the path and the option db name different databases")
    return int(named[0]) if named else 0
