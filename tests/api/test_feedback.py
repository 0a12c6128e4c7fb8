"""POST /feedback takes what fits, names what does not, and never holds more than there is room for."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from app.api import feedback
from app.api.feedback import FeedbackIntake
from app.api.problems import install_problem_handlers
from app.errors import RequestError
from app.events.event_queue import EventQueue
from app.events.records import Feedback
from tests.api.fakes import client

pytestmark = pytest.mark.anyio

CLICK = {"request_id": "01M8JYJ58Z00008D8DT0WQ000F", "item_id": "181", "type": "click"}


def application(queue: EventQueue | None) -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)
    app.include_router(feedback.router(None if queue is None else FeedbackIntake(queue, ["click", "shown"]), 100_000))
    return app


async def send(queue: EventQueue | None, body: Any, **options: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(application(queue)) as http:
        return await http.post("/feedback", content=content, **options)


def taken(queue: EventQueue) -> list[Feedback]:
    return [record for record in queue.take(10**6) if isinstance(record, Feedback)]


async def test_one_record_is_taken() -> None:
    queue = EventQueue(10)
    before_us = time.time() * 1e6
    response = await send(queue, {**CLICK, "value": 3.5, "id": "c1", "item_id": 181})
    assert response.status_code == 202
    assert response.json() == {"accepted": 1, "rejected": 0, "errors": []}
    [record] = taken(queue)
    assert record._replace(at_us=0, received_at_us=0) == (CLICK["request_id"], "181", "click", 0, 0, 3.5, "c1")
    assert before_us - 1 <= record.at_us == record.received_at_us <= time.time() * 1e6


@pytest.mark.parametrize("at", ["2026-11-29T06:00:00Z", 1_795_932_000, 1_795_932_000_000, "1795932000"])
async def test_a_time_is_read_in_any_usual_form(at: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.feedback.time.time", lambda: 1_795_940_000.0)
    queue = EventQueue(10)
    assert (await send(queue, {**CLICK, "at": at})).status_code == 202
    assert taken(queue)[0].at_us == 1_795_932_000_000_000


@pytest.mark.parametrize(
    ("sent", "written"), [(181, "181"), (181.0, "181"), (-3, "-3"), (2**64 - 1, str(2**64 - 1)), ("7.0", "7.0")]
)
async def test_items_are_named_as_in_rank(sent: object, written: str) -> None:
    queue = EventQueue(10)
    assert (await send(queue, {**CLICK, "item_id": sent})).status_code == 202
    assert [record.item_id for record in taken(queue)] == [written]


BAD: list[tuple[Any, str]] = [
    ({"item_id": "1", "type": "click"}, "request_id"),
    ({**CLICK, "type": "clcik"}, "click, shown"),
    ({**CLICK, "request_id": "with blank"}, "request_id"),
    ({**CLICK, "at": 10**400}, "at"),
    ({**CLICK, "item_id": ""}, "item_id"),
    ({**CLICK, "item_id": 2**64}, "more than 64 bits"),
    ({**CLICK, "item_id": 7.5}, "item_id"),
    ({**CLICK, "item_id": 1e300}, "item_id"),
    ({**CLICK, "at": "yesterday"}, "not a time"),
    ({**CLICK, "at": time.time() + 3600}, "in the future"),
    ({**CLICK, "at": 1}, "a year ago"),
    ({**CLICK, "vlaue": 1}, "vlaue"),
    ({**CLICK, "id": "x" * 129}, "id"),
    (7, "object"),
    (None, "object"),
]


@pytest.mark.parametrize(("record", "said"), BAD)
async def test_a_record_that_does_not_fit_is_named_and_the_others_are_taken(record: Any, said: str) -> None:
    queue = EventQueue(10)
    response = await send(queue, [CLICK, record, {**CLICK, "type": "shown"}])
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert answer["errors"][0]["index"] == 1
    assert said in answer["errors"][0]["message"]
    assert [one.type for one in taken(queue)] == ["click", "shown"]


@pytest.mark.parametrize(("record", "said"), BAD)
async def test_a_body_without_a_record_that_fits_is_refused(record: Any, said: str) -> None:
    response = await send(EventQueue(10), [record])
    assert response.status_code == 422
    assert said in response.json()["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[{]", b"\xff\xfe", b"nan", b'"text', b"[" * 200_000])
async def test_what_is_not_json_is_a_400(body: bytes) -> None:
    assert (await send(EventQueue(10), body)).status_code == 400


@pytest.mark.parametrize("body", [[], [CLICK] * 1001, [CLICK] * 100_000])
async def test_no_record_or_too_many_are_a_422_that_says_so(body: list[Any]) -> None:
    queue = EventQueue(10**6)
    response = await send(queue, body)
    assert response.status_code == 422
    assert "record" in response.json()["detail"]
    assert len(queue) == 0


async def test_where_there_is_no_room_nothing_is_taken_and_the_client_is_told_when_to_come_back() -> None:
    queue = EventQueue(5)
    assert (await send(queue, [CLICK] * 3)).status_code == 202
    response = await send(queue, [CLICK] * 3)
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert len(queue) == 3
    assert (await send(queue, [CLICK] * 2)).status_code == 202


async def test_what_there_is_never_room_for_is_not_to_be_sent_again() -> None:
    queue = EventQueue(5)
    response = await send(queue, [CLICK] * 6)
    assert response.status_code == 422
    assert "at most 5" in response.json()["detail"]
    assert len(queue) == 0
    assert (await send(queue, [CLICK] * 5)).status_code == 202


async def test_a_byte_order_mark_is_skipped() -> None:
    assert (await send(EventQueue(5), b"\xef\xbb\xbf" + json.dumps(CLICK).encode())).status_code == 202


async def test_where_nothing_is_recorded_it_says_so() -> None:
    response = await send(None, CLICK)
    assert response.status_code == 404
    assert "CTR_EVENTS" in response.json()["detail"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
records = st.fixed_dictionaries({}, optional=dict.fromkeys((*CLICK, "at", "value", "id"), json_values))


@given(st.one_of(json_values, records, st.lists(records | json_values, max_size=4)))
def test_any_json_is_taken_or_refused_by_an_error_of_a_client(body: Any) -> None:
    queue, status = EventQueue(100), 202
    try:
        accepted = FeedbackIntake(queue, ["click"]).take(json.dumps(body).encode()).accepted
    except RequestError as error:
        accepted, status = 0, error.status
    assert status in (202, 400, 422)
    assert len(queue) == accepted
    assert (accepted > 0) == (status == 202)
