"""`Connections`: the open connections of a process, by what each waits for from its client.

A connection with a whole request in hand waits for nothing, and is never ended for another. All others wait in one
queue of a kind, the longest first, and each kind has its time. One sweep ends those whose time is over, so a request
sets no timer. Where no more connections fit, the kind that holds the most of them gives up its longest: whoever floods
the process with one kind, be it silence, half heads or bodies that trickle, makes room for everybody else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import structlog

from app.errors import HeadTooLarge, HeadTooSlow, NotHttp, Overloaded, RequestError
from app.observability.logs import LogThrottle

SWEEP_EVERY_S = 0.25
SWEEP_AT_ONCE, SWEEP_NEXT_S = 4, 0.001
"""So many connections are ended at a time, and the next so much later: thousands that were opened together would hold
requests up for a tenth of a second where they are ended together."""
LINGER_S = 5.0
"""How long what a client still sends is thrown away after a refusal: a socket that is closed over unread bytes resets
the connection, and the client loses the answer."""

REASONS: dict[type[RequestError], str] = {
    HeadTooLarge: "head_too_large",
    HeadTooSlow: "head_too_slow",
    NotHttp: "not_http",
}
"""The reasons by which refusals of a connection's first line or head are counted."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a process holds, and for how long they may wait."""

    total: int
    per_address: int
    header_timeout_s: float
    keep_alive_s: float
    trusted_proxies: Sequence[Network] = ()
    """Proxies: not bounded by `per_address`, and free to open connections that say nothing for a while."""


class ConnectionRefused(Overloaded):
    """There is no room for a connection; `reason` is the word by which it is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class WaitingConnection(Protocol):
    """The part of a connection that `Connections` calls."""

    def on_timeout(self) -> None:
        """End the connection, whose time to wait is over."""

    def on_evicted(self) -> None:
        """End the connection at once, to make room for another."""


class Queue(dict[WaitingConnection, float]):
    """Connections that wait for one kind of thing, and since when; the longest first."""

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__()
        self.name = name
        self.timeout_s = timeout_s


class Connections:
    """The connections of one process, for use on its event loop."""

    def __init__(self, limits: ConnectionLimits, on_refused: Callable[[str], None] = lambda reason: None) -> None:
        """
        Args:
            on_refused: told of each connection or request that was refused before the application saw it, by reason.
        """
        self.limits = limits
        self.total = limits.total
        """Most connections at a time; lowered where there are not as many descriptors."""
        self.on_refused = on_refused
        self.opening = Queue("opening", limits.header_timeout_s)
        """New connections, until the head of their first request is complete."""
        self.heads = Queue("heads", limits.header_timeout_s)
        """Connections on which a later request has begun whose head is not complete."""
        self.bodies = Queue("bodies", float("inf"))
        """Connections whose request lacks a part of its body; the application bounds their time."""
        self.idle = Queue("idle", limits.keep_alive_s)
        """Connections between two requests."""
        self.unread = Queue("unread", limits.keep_alive_s)
        """Connections whose clients do not read their answers."""
        self.lingering = Queue("lingering", LINGER_S)
        """Connections that were refused, whose clients have time to read why."""
        self._queues = (self.opening, self.heads, self.bodies, self.idle, self.unread, self.lingering)
        self._addresses: dict[WaitingConnection, str] = {}
        """The open connections."""
        self._per_address: Counter[str] = Counter()
        self._sweeping = False
        self._log_throttle = LogThrottle()

    def __len__(self) -> int:
        return len(self._addresses)

    def make_room(self, address: str) -> ConnectionRefused | None:
        """Make room for a connection from an address; return why there is none, or None if there is.

        A connection that is refused is taken all the same, to be answered: it makes room for the next.
        """
        most = self.limits.per_address
        if self._per_address[_bounded_as(address)] >= most and not self.trusts(address):
            return ConnectionRefused(
                "address",
                f"{most} connections from this address are open; keep fewer, or raise "
                "CTR_MAX_CONNECTIONS_PER_ADDRESS; name a proxy in CTR_TRUSTED_PROXIES",
            )
        while len(self) >= self.total:
            if not self.evict():
                return ConnectionRefused("full", f"{self.total} connections are open, each with a request at work")
        return None

    def add(self, connection: WaitingConnection, address: str) -> None:
        """Count a connection that was accepted; `address` is its client's."""
        address = _bounded_as(address)
        self._addresses[connection] = address
        self._per_address[address] += 1

    def opened(self, connection: WaitingConnection, address: str) -> Queue:
        """Have a new connection wait for its first request, and return the queue that it waits in."""
        if connection not in self._addresses:
            self.add(connection, address)
        queue = self.idle if self.limits.trusted_proxies and self.trusts(address) else self.opening
        queue[connection] = time.monotonic()
        if not self._sweeping:
            self._sweeping = True
            asyncio.get_running_loop().call_later(SWEEP_EVERY_S, self._sweep)
        return queue

    def remove(self, connection: WaitingConnection) -> None:
        """Forget a connection that is closed, or that ends and takes no place any more."""
        address = self._addresses.pop(connection, None)
        if address is not None:
            self._per_address[address] -= 1
            if not self._per_address[address]:
                del self._per_address[address]

    def trusts(self, address: str) -> bool:
        """Return whether an address is that of a trusted proxy."""
        return _is_in(address, tuple(self.limits.trusted_proxies))

    def evict(self) -> bool:
        """End the connection that waits longest among the most frequent kind; return whether any waits."""
        queue = max(self._queues, key=len)
        if not queue:
            return False
        connection = next(iter(queue))
        del queue[connection]
        self.remove(connection)
        self.on_refused("evicted")
        if self._log_throttle.admits():
            log.warning("connections_full", connections=self.total, longest_of=queue.name, waiting=len(queue) + 1)
        connection.on_evicted()
        return True

    def count_refusal(self, error: RequestError) -> None:
        """Count and log what could not be read as a request, or a connection for which there is no room."""
        reason = error.reason if isinstance(error, ConnectionRefused) else REASONS[type(error)]
        self.on_refused(reason)
        if self._log_throttle.admits():
            log.warning("connection_refused", reason=reason, detail=str(error))

    def _sweep(self) -> None:
        """End some of the connections whose time is over, and come back: soon if there are more."""
        self._sweeping = bool(self._addresses)
        if not self._sweeping:
            return
        now, wait_s = time.monotonic(), SWEEP_NEXT_S
        try:
            for _ in range(SWEEP_AT_ONCE):
                if not self._end_one(now):
                    wait_s = SWEEP_EVERY_S
                    break
        finally:
            asyncio.get_running_loop().call_later(wait_s, self._sweep)

    def _end_one(self, now: float) -> bool:
        """End a connection whose time is over; return whether there was one."""
        for queue in self._queues:
            connection = next(iter(queue), None)
            if connection is not None and queue[connection] <= now - queue.timeout_s:
                del queue[connection]
                connection.on_timeout()
                return True
        return False


@lru_cache(4096)
def _bounded_as(address: str) -> str:
    """Return the address by which a client is bounded: of IPv6 the first 64 bits, which one host has to itself."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


@lru_cache(4096)
def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    parsed = _parse(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read a client's address, IPv4 as such on a socket of IPv6 too; None for that of a client that has left."""
    if not address:
        return None
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed
