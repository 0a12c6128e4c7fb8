"""Sockets of a service's address: one that reserves it, and one for each worker, which share the port by SO_REUSEPORT.

On one shared socket a single worker can end up with nearly all keep-alive connections; with a socket each the kernel
spreads them. A socket that is bound and does not listen receives no connection.
"""

from __future__ import annotations

import errno
import socket

from app.errors import ConfigError
from app.settings import Settings
from app.url_host import url_host


def reserve(settings: Settings) -> socket.socket:
    """Return a socket that is bound and never listens: it keeps the port for the workers, which `bind` with it.

    Raises ConfigError if the address cannot be bound, or another process listens there.
    """
    reserved = _bound(settings, shared=False)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return reserved


def bind(settings: Settings) -> socket.socket:
    """Return a worker's socket, bound and not listening. Raises ConfigError if the address cannot be bound."""
    return _bound(settings, shared=True)


def addresses_of(settings: Settings) -> list[Settings]:
    """Return the settings once for each address to listen on: as they are, then with that of the admin."""
    if settings.admin_port is None:
        return [settings]
    return [settings, settings.model_copy(update={"host": settings.admin_host, "port": settings.admin_port})]


def _bound(settings: Settings, *, shared: bool) -> socket.socket:
    name = f"{url_host(settings.host)}:{settings.port}"
    is_admin = settings.port == settings.admin_port
    of_host = "CTR_ADMIN_HOST" if is_admin else "--host or CTR_HOST"
    of_port = "CTR_ADMIN_PORT" if is_admin else "--port or CTR_PORT"
    try:
        addresses = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot listen on {name}: {settings.host} is no address; choose another with {of_host}"
        ) from error
    # `localhost` is both, and 127.0.0.1 to most clients.
    family, kind, _, _, address = min(addresses, key=lambda info: info[0] != socket.AF_INET)
    bound = socket.socket(family, kind)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRNOTAVAIL:
            reason = f"{settings.host} is no address of this machine; choose another with {of_host}"
        elif error.errno == errno.EADDRINUSE:
            reason = f"another program has the port; end it, or choose another with {of_port}"
        else:
            reason = f"{error.strerror}; choose another with {of_port}"
        raise ConfigError(f"cannot listen on {name}: {reason}") from error
    bound.setblocking(False)
    return bound
