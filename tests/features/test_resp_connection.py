"""One connection for many requests: commands are written together, replies go to their waiters, late ones to none."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.errors import StoreError
from app.features.resp_commands import pack_command
from app.features.resp_connection import RespConnection

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """What the store sees."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        raise AssertionError("nothing here is a reason to give the connection up")


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def connection(wire: Wire) -> RespConnection:
    connection = RespConnection(lambda push: None, lambda: None)
    connection.connection_made(wire)
    return connection


async def test_the_first_command_is_written_at_once_and_those_that_follow_in_the_same_turn_together(
    connection: RespConnection, wire: Wire
) -> None:
    futures = [connection.send(pack_command("GET", str(number)), 1) for number in range(4)]
    assert wire.writes == [pack_command("GET", "0")], "the store works while the rest is prepared"
    await asyncio.sleep(0)
    assert wire.writes[1:] == [b"".join(pack_command("GET", str(number)) for number in range(1, 4))]
    connection.data_received(b"".join(b"+%d\r\n" % number for number in range(4)))
    assert await asyncio.gather(*futures) == [["0"], ["1"], ["2"], ["3"]]
    futures.append(connection.send(pack_command("GET", "4"), 1))
    assert wire.writes[2:] == [pack_command("GET", "4")], "nothing is waited for, so nothing is kept"


async def test_unsent_commands_are_dropped_with_the_connection(connection: RespConnection, wire: Wire) -> None:
    futures = [connection.send(pack_command("GET", "a"), 1), connection.send(pack_command("GET", "b"), 1, 0.01)]
    connection.connection_lost(None)
    await asyncio.sleep(0.03)
    assert wire.writes == [pack_command("GET", "a")]
    for future in futures:
        with pytest.raises(StoreError, match="was lost"):
            await future
    with pytest.raises(StoreError, match="is lost"):
        connection.send(pack_command("GET", "c"), 1)


async def test_each_waiter_times_out_by_itself_and_late_replies_are_dropped(connection: RespConnection) -> None:
    began = time.monotonic()
    slow, none, fast = (
        connection.send(pack_command("GET", name), 1, due) for name, due in (("a", 0.2), ("b", 9.0), ("c", 0.05))
    )
    for future, due in ((fast, 0.05), (slow, 0.2)):
        with pytest.raises(StoreError, match="did not answer in time"):
            await future
        assert time.monotonic() - began >= due - 0.001
    assert not none.done()
    connection.data_received(b"+a\r\n+b\r\n+c\r\n")
    assert await none == ["b"]
    following = connection.send(pack_command("GET", "d"), 1, 9.0)
    connection.data_received(b"+d\r\n")
    assert await following == ["d"]


async def test_a_reply_that_waits_in_the_socket_of_a_busy_process_is_not_late(connection: RespConnection) -> None:
    future = connection.send(pack_command("GET", "a"), 1, 0.01)
    time.sleep(0.05)  # noqa: ASYNC251 - it is the event loop that is to be held up
    asyncio.get_running_loop().call_later(0.001, connection.data_received, b"+a\r\n")
    assert await future == ["a"]


async def test_a_cancelled_waiter_gets_no_error(connection: RespConnection) -> None:
    given_up, other = (
        connection.send(pack_command("GET", "a"), 1, 0.01),
        connection.send(pack_command("GET", "b"), 1, 0.03),
    )
    given_up.cancel()
    with pytest.raises(StoreError):
        await other
    assert given_up.cancelled()
    assert connection.waiting == 2, "their replies still come before any other"
