"""Tests of which connection makes room for another, and of how many an address may have."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime.connections import SWEEP_AT_ONCE, ConnectionLimits, Connections, Queue
from tests.waiting import async_until

pytestmark = pytest.mark.anyio


@dataclass(eq=False)
class Waiting:
    """A connection that remembers what was done to it."""

    ended: list[str] = field(default_factory=list)

    def on_timeout(self) -> None:
        self.ended.append("timeout")

    def on_evicted(self) -> None:
        self.ended.append("evicted")


def table(total: int = 8, per_address: int = 8, proxies: str = "") -> tuple[Connections, list[str]]:
    refused: list[str] = []
    networks = [ipaddress.ip_network(proxy) for proxy in proxies.split()]
    limits = ConnectionLimits(total, per_address, 5, 75, networks)
    return Connections(limits, refused.append), refused


def reason(connections: Connections, address: str) -> str:
    refusal = connections.make_room(address)
    return refusal.reason if refusal else ""


def test_the_most_frequent_kind_gives_up_the_one_that_waits_longest() -> None:
    connections, refused = table(total=8)
    served = [Waiting() for _ in range(3)]
    silent = [Waiting() for _ in range(5)]
    for queue, waiting in ((connections.idle, served), (connections.opening, silent)):
        for connection in waiting:
            connections.add(connection, "10.0.0.1")
            queue[connection] = 0.0
    for number in range(3):
        assert connections.make_room("10.0.0.2") is None
        assert [connection.ended for connection in silent[: number + 1]] == [["evicted"]] * (number + 1)
        fresh = Waiting()
        connections.add(fresh, "10.0.0.2")
        silent.append(fresh)
        connections.opening[fresh] = 1.0
    assert not any(connection.ended for connection in served), "whoever floods makes room"
    assert len(connections) == 8
    assert refused == ["evicted"] * 3


def test_requests_at_work_make_no_room() -> None:
    connections, refused = table(total=2)
    for _ in range(2):
        connections.add(Waiting(), "10.0.0.1")
    assert reason(connections, "10.0.0.1") == "full"
    assert refused == [], "who refuses it counts it"


def test_connections_of_one_address_are_bounded_but_those_of_a_proxy() -> None:
    connections, _ = table(per_address=2, proxies="10.1.0.0/16 fd00::/8")
    for address in ("10.0.0.1", "10.1.2.3", "fd00::1", "2001:db8::1"):
        for _ in range(2):
            connections.add(Waiting(), address)
    connections.total = 100
    assert reason(connections, "10.0.0.1") == "address"
    assert reason(connections, "::ffff:10.0.0.1") == "address", "the same client, on a socket of IPv6"
    assert reason(connections, "2001:db8::2") == "address", "a host has all of its network"
    assert reason(connections, "2001:db8:0:1::1") == ""
    assert reason(connections, "10.0.0.2") == ""
    assert reason(connections, "10.1.2.3") == ""
    assert reason(connections, "::ffff:10.1.2.3") == ""
    assert reason(connections, "fd00::1") == ""


async def test_a_proxy_may_open_connections_ahead_of_requests() -> None:
    connections, _ = table(proxies="10.1.0.0/16")
    assert connections.opened(Waiting(), "10.1.2.3") is connections.idle
    assert connections.opened(Waiting(), "10.2.2.3") is connections.opening


async def test_many_whose_time_is_over_are_ended_a_few_at_a_time() -> None:
    connections, _ = table(total=100, per_address=100)
    connections.opening.timeout_s = 0.0
    waiting = [Waiting() for _ in range(5 * SWEEP_AT_ONCE + 1)]
    for connection in waiting:
        connections.opened(connection, "10.0.0.1")
    ended = [0]
    while ended[-1] < len(waiting):
        await asyncio.sleep(0)
        ended.append(sum(bool(connection.ended) for connection in waiting))
    assert max(np.diff(ended)) == SWEEP_AT_ONCE
    assert waiting[0].ended == ["timeout"]


async def test_a_fault_while_one_connection_ends_leaves_none_open_for_ever() -> None:
    connections, _ = table()
    connections.idle.timeout_s = connections.opening.timeout_s = 0.0

    class Broken(Waiting):
        def on_timeout(self) -> None:
            super().on_timeout()
            raise OSError

    broken, sound = Broken(), Waiting()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    for connection in (broken, sound):
        connections.opened(connection, "10.0.0.1")
    await async_until(lambda: sound.ended)
    loop.set_exception_handler(None)
    assert broken.ended == sound.ended == ["timeout"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=60))
def test_counts_are_those_of_the_open_connections(steps: list[tuple[int, int]]) -> None:
    """By a count of its own: addresses of open connections, and as many of them as there may be."""
    connections, _ = table(total=6, per_address=3)
    queues: list[Queue] = [connections.opening, connections.idle, connections.bodies]
    open_connections: dict[Waiting, str] = {}
    for host, action in steps:
        address = f"10.0.0.{host}"
        if action < 2:
            refused = reason(connections, address)
            open_connections = {c: a for c, a in open_connections.items() if not c.ended}
            assert (refused == "address") == (list(open_connections.values()).count(address) >= 3)
            if not refused:
                connection = Waiting()
                open_connections[connection] = address
                connections.add(connection, address)
                queues[host % 3][connection] = 0.0
        elif open_connections:
            connection = next(iter(open_connections))
            del open_connections[connection]
            for _ in range(2):
                connections.remove(connection)
            for queue in queues:
                queue.pop(connection, None)
        assert len(connections) == len(open_connections) <= 6
