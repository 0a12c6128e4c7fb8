"""The bounds of a body, around any ASGI `receive`."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from app.api.bounded_body import BoundedBody, read_body
from app.errors import BodyTooLarge, BodyTooSlow

pytestmark = pytest.mark.anyio

LIMIT = 1000


async def silent() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_body_in_time_is_read_whatever_it_was_waited_for() -> None:
    """Each piece comes after several waits of its own."""
    pieces = [b"abc", b"de", b"f"]

    async def receive() -> Message:
        for _ in range(3):
            await asyncio.sleep(0.001)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    body = BoundedBody(receive, {}, LIMIT, 5.0)
    assert await read_body(body) == b"abcdef"
    assert body.refusal is None


async def test_who_is_waited_for_is_told_of_a_cancellation() -> None:
    told = []

    async def receive() -> Message:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise
        raise AssertionError

    reading = asyncio.ensure_future(read_body(BoundedBody(receive, {}, LIMIT, 5.0)))
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert told == ["cancelled"]


async def test_read_body_gives_up_when_the_client_leaves() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read_body(receive)


async def test_a_body_that_does_not_come_is_given_up_and_the_task_goes_on() -> None:
    body = BoundedBody(silent, {}, LIMIT, 0.01)
    with pytest.raises(BodyTooSlow, match=r"not complete after 0\.01 s"):
        await read_body(body)
    assert isinstance(body.refusal, BodyTooSlow)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_as_the_time_runs_out_stays_cancelled() -> None:
    async def receive() -> Message:
        reading.cancel()  # by the server, in the turn in which the time runs out
        return await silent()

    body = BoundedBody(receive, {}, LIMIT, -1.0)
    reading = asyncio.ensure_future(read_body(body))
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert body.refusal is None


async def test_a_body_that_is_too_large_is_refused_by_what_is_announced() -> None:
    with pytest.raises(BodyTooLarge):
        await read_body(BoundedBody(silent, {b"content-length": b"1001"}, LIMIT, 0.01))
