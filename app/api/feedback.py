"""POST /feedback: what became of items that were shown, one record or up to a thousand, into the event log.

A record that does not fit is named and the others are taken. Nothing is looked up and nothing waited for: whether a
record belongs to an impression is found out when they are joined.
"""

from __future__ import annotations

import codecs
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import Meta
from pydantic import Field

from app.api.content_coding import decoded
from app.api.problems import documented_problems
from app.api.response_model import ResponseModel
from app.api.schemas import Id, Integer, RequestId, whole
from app.errors import MAX_REPORTED, InvalidRequest, NotFound, NotJson, Overloaded
from app.events.event_queue import EventQueue
from app.events.records import Feedback
from app.features.times import HOW_TO_WRITE, seconds_of_value
from app.features.values import UINT64_MAX

MAX_RECORDS = 1000
FUTURE_S = 300.0
"""Clocks may differ by so much; what happens later than that has not happened."""
PAST_S = 366 * 86_400.0

Word = Annotated[str, Meta(min_length=1, max_length=64)]


class FeedbackRecord(msgspec.Struct, forbid_unknown_fields=True):
    """One record of feedback as it is sent."""

    request_id: Annotated[RequestId, Meta(description="As in the answer of POST /rank")]
    item_id: Annotated[Id | Integer, Meta(description="As in POST /rank")]
    type: Annotated[Word, Meta(description="One of CTR_FEEDBACK_TYPES")]
    at: Annotated[str | int | float | None, Meta(description="When it happened; left out, now")] = None
    value: Annotated[float | None, Meta(description="Say of an order")] = None
    id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=128)] | None,
        Meta(description="The sender's name for the record; sent twice, it counts once"),
    ] = None


class RefusedRecord(ResponseModel):
    """A record that was not taken."""

    index: int = Field(description="Its place among those that were sent, from 0")
    message: str


class FeedbackResult(ResponseModel):
    """How many records were taken."""

    accepted: int
    rejected: int
    errors: list[RefusedRecord] = Field(description=f"The first {MAX_REPORTED} that were rejected")


class FeedbackIntake:
    """Checks records and puts them into the event log's queue."""

    def __init__(self, queue: EventQueue, types: Sequence[str]) -> None:
        """
        Args:
            types: what `type` may say.
        """
        self._queue = queue
        self._types = tuple(types)

    def take(self, raw: bytes) -> FeedbackResult:
        """Put the records of a body into the queue.

        Raises:
            NotJson: the body is not JSON.
            InvalidRequest: it is empty, has more records than may be or the queue ever takes, or none that fits.
            Overloaded: the queue has no room for them; none was taken.
        """
        parts = _parts(raw.removeprefix(codecs.BOM_UTF8))
        now_s = time.time()
        records: list[Feedback] = []
        refused: list[RefusedRecord] = []
        for index, part in enumerate(parts):
            try:
                records.append(self._record(part, now_s))
            except (msgspec.ValidationError, ValueError) as error:
                refused.append(RefusedRecord(index=index, message=_FORM.sub("'", str(error))))
        if not records:
            raise InvalidRequest(
                "none of the records fits",
                errors=[(f"[{one.index}]", one.message) for one in refused],
            )
        if len(records) > self._queue.limit:
            message = f"{len(records)} records, at most {self._queue.limit} at once (CTR_EVENTS_BUFFER); send several"
            raise InvalidRequest(message, errors=[("body", message)])
        if len(self._queue) + len(records) > self._queue.limit:
            raise Overloaded("more feedback than can be written at once; send it again")
        for record in records:
            self._queue.put(record)
        return FeedbackResult(accepted=len(records), rejected=len(refused), errors=refused[:MAX_REPORTED])

    def _record(self, raw: msgspec.Raw, now_s: float) -> Feedback:
        """Return one record. Raises ValidationError or ValueError, which say what does not fit."""
        body = _parse(raw)
        if isinstance(body.item_id, int) and body.item_id > UINT64_MAX:
            raise ValueError("item_id: an integer of more than 64 bits; send it as a string")
        if body.type not in self._types:
            raise ValueError(f"type: expected one of {', '.join(self._types)} (CTR_FEEDBACK_TYPES)")
        at_s = now_s if body.at is None else seconds_of_value(body.at)
        if at_s is None:
            raise ValueError(f"at: not a time; {HOW_TO_WRITE}")
        if not now_s - PAST_S < at_s < now_s + FUTURE_S:
            raise ValueError("at: in the future, or more than a year ago; the server's time is in the header Date")
        return Feedback(
            body.request_id, str(body.item_id), body.type, int(at_s * 1e6), int(now_s * 1e6), body.value, body.id
        )


_FORM = re.compile("`")
_parts_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_record_decoder = msgspec.json.Decoder(FeedbackRecord)


def _parse(raw: msgspec.Raw) -> FeedbackRecord:
    """Return one record, whose item may be written as 7.0. Raises ValidationError."""
    try:
        return _record_decoder.decode(raw)
    except msgspec.ValidationError:
        document = msgspec.json.decode(raw)
        if not isinstance(document, dict) or not isinstance(document.get("item_id"), float):
            raise
        return msgspec.convert(document | {"item_id": whole(document["item_id"])}, FeedbackRecord)


def _parts(raw: bytes) -> list[msgspec.Raw]:
    """Return the records of a body, which is one object or a list of them."""
    try:
        parts = _parts_decoder.decode(raw) if raw.lstrip()[:1] == b"[" else [msgspec.json.decode(raw, type=msgspec.Raw)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise NotJson("expected one JSON object of a record, or a list of them, in UTF-8") from None
    if not parts:
        raise InvalidRequest("no record was sent", errors=[("body", "an empty list")])
    if len(parts) > MAX_RECORDS:
        message = f"{len(parts)} records, at most {MAX_RECORDS} in one request; send several"
        raise InvalidRequest(message, errors=[("body", message)])
    return parts


def _documented() -> dict[str, Any]:
    """Return what OpenAPI says of the body, which FastAPI does not parse."""
    record = {"$ref": "#/components/schemas/FeedbackRecord"}
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": MAX_RECORDS}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"anyOf": [record, records]}}}}
    }


PROBLEMS = documented_problems(
    {
        400: "Not JSON",
        404: "Nothing is recorded here: CTR_EVENTS is not set",
        413: "More than CTR_MAX_BODY_BYTES",
        415: "A Content-Encoding other than gzip",
        422: "No record fits; `errors` names the first",
        503: "No room for more now; nothing was taken, send it again",
    }
)


def router(intake: FeedbackIntake | None, max_body_bytes: int) -> APIRouter:
    """Return the route.

    Args:
        intake: None where nothing is recorded.
        max_body_bytes: most bytes of a body once its Content-Encoding is undone.
    """
    routes = APIRouter(tags=["feedback"], responses=PROBLEMS)

    @routes.post("/feedback", status_code=202, openapi_extra=_documented())
    async def feedback(request: Request) -> FeedbackResult:
        """Record clicks and other feedback on what was ranked. A record that does not fit is named in `errors`."""
        if intake is None:
            raise NotFound("nothing is recorded here; the operator sets CTR_EVENTS to switch it on")
        return intake.take(decoded(await request.body(), dict(request.scope["headers"]), max_body_bytes))

    return routes
