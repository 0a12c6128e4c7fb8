"""`open_client`: redis-py's client for the commands, with the meaning of the URL that requests have."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import socket
from collections.abc import Iterator
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from app.errors import StoreError
from app.features.redis_connect import NO_PASSWORD_SET
from app.features.redis_sentinel import find_master
from app.features.redis_tls import tls_context
from app.features.store_errors import explain_failure, explain_reply
from app.redis_url import RedisUrl, parse_redis_url
from app.url_host import url_host

CLIENT_ERRORS = (redis.RedisError, redis.exceptions.RedisClusterException)
"""What redis-py raises of a server, and of a cluster as a whole."""
CONNECT_TIMEOUT_S, GREETING_TIMEOUT_S, TIMEOUT_S = 3.0, 5.0, 30.0
QUOTED_COMMAND = re.compile(r"^Command # \d+ \(.*\) of pipeline caused error: ", re.DOTALL)
"""What redis-py puts before an error: the command, with its values."""


class _TlsConnection(SSLConnection):
    """A connection with the project's own TLS context: redis-py trusts the system's authorities beside those named."""

    def __init__(self, *, context: Any, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Greet the server, and wait for an answer.

        TLS 1.3 sends session tickets behind its handshake. redis-py takes what it finds unread on a new connection for
        a reply to nothing, and gives the connection up; whoever reads an answer has read the tickets.
        """
        super().on_connect_check_health(check_health)
        untyped: Any = self
        untyped.send_command("PING", check_health=False)
        with contextlib.suppress(redis.ResponseError):
            self.read_response()

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        return self._context.wrap_socket(sock, server_hostname=self.host)


def open_client(text: str) -> redis.Redis:
    """Return a client of a server that answers. It waits long enough for a bulk load, and never repeats a write.

    It speaks RESP2, which every server knows, and sends nothing at connect that a proxy may not know.

    Raises:
        ConfigError: the URL has no one meaning, or names a file that cannot be read.
        StoreError: the server does not answer or refuses.
    """
    parsed = parse_redis_url(text)
    if parsed.cluster_nodes:
        return _open_cluster(parsed)
    url = find_master(parsed, connect_client)
    with connect_client(url, GREETING_TIMEOUT_S) as greeting:
        try:
            greeting.ping()
        except redis.exceptions.NoPermissionError:  # a user may have the right to load and not to PING
            pass
        except redis.RedisError as error:
            if url.password is None or not any(words in str(error) for words in NO_PASSWORD_SET):
                raise store_error(error, tls=url.tls is not None) from error
            url = RedisUrl(**{**vars(url), "username": "", "password": None})
    return connect_client(url, TIMEOUT_S)


def reply_text(reply: bytes | str) -> str:
    """Return a key, a name or a value of a reply as text; bytes that are no UTF-8 do not stop who only looks."""
    return reply.decode(errors="replace") if isinstance(reply, bytes) else reply


def store_error(error: Exception, *, tls: bool | None = None) -> StoreError:
    """Return what redis-py raised as the project's error, with what it means; `tls` as for `explain_failure`."""
    code = getattr(error, "status_code", None)
    if isinstance(error, redis.ResponseError) or code:
        return StoreError(f"Redis refused: {explain_reply(QUOTED_COMMAND.sub('', str(error)), code or '')}")
    return StoreError(f"Redis does not answer: {explain_failure(error, tls=tls)}")


@contextlib.contextmanager
def store_errors(*, tls: bool | None = None) -> Iterator[None]:
    """Raise what redis-py raises in the block as `store_error` of it."""
    try:
        yield
    except CLIENT_ERRORS as error:
        raise store_error(error, tls=tls) from error


def nodes_of(client: redis.Redis) -> list[redis.Redis]:
    """Return a client of each server that has some of the keys: the client itself, or one a master of a cluster."""
    untyped: Any = client
    if not hasattr(untyped, "get_primaries"):
        return [client]
    return [untyped.get_redis_connection(node) for node in untyped.get_primaries()]


def _open_cluster(url: RedisUrl) -> redis.Redis:
    """Return redis-py's client of a whole cluster, whose commands are those of one server. Raises StoreError."""
    (host, port), *others = url.cluster_nodes
    kind, options = _connection_options(dataclasses.replace(url, host=host, port=port), TIMEOUT_S)
    for name in ("host", "port", "db", "retry"):
        del options[name]
    # A pool of one's own kind, with options that redis-py does not know, is taken only beside a URL.
    context = {"context": options.pop("context")} if "context" in options else {}
    pool = functools.partial(ConnectionPool, connection_class=kind, **context)
    untyped: Any = redis.RedisCluster
    node: Any = ClusterNode
    with store_errors(tls=url.tls is not None):
        return cast(
            redis.Redis,
            untyped(
                url=f"redis://{url_host(host)}:{port}",
                startup_nodes=[node(*address) for address in others],
                connection_pool_class=pool,
                **options,
            ),
        )


def connect_client(url: RedisUrl, timeout_s: float) -> redis.Redis:
    """Return a client of one server, which has not been asked anything yet."""
    kind, options = _connection_options(url, timeout_s)
    return redis.Redis.from_pool(ConnectionPool(kind, **options))


def _connection_options(url: RedisUrl, timeout_s: float) -> tuple[type[Any], dict[str, Any]]:
    """Return the kind of connection to one server, and its arguments. Raises ConfigError for a file of TLS."""
    options: dict[str, Any] = {
        "db": url.database,
        "username": url.username or None,
        "password": url.password,
        "protocol": 2,
        "socket_connect_timeout": min(CONNECT_TIMEOUT_S, timeout_s),
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # no CLIENT SETINFO
    }
    kind: type[Any] = Connection
    if url.path:
        kind, options["path"] = UnixDomainSocketConnection, url.path
    else:
        options |= {"host": url.host, "port": url.port}
        if url.tls is not None:
            kind, options["context"] = _TlsConnection, tls_context(url.tls)
    return kind, options
