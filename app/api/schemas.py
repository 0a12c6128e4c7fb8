"""`parse_rank` turns the bytes of POST /rank into a `RankRequest`, or refuses them.

msgspec checks types, lengths and ranges while it parses, in C and without a Python step per id. A plain body's ids are
not even parsed but stay as they are in its bytes (`app.features.request_ids`). A body with nulls for optional fields,
or with ids that are not printable ASCII, takes a second pass.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from app.errors import InvalidRequest, NotJson
from app.features.request_ids import RequestIds
from app.ranking.request import RankRequest

MAX_ID = 256
MAX_TEXT = 4096
MAX_ENTRIES = 1000
"""Most entries of one object of features, or of one list or object in it; a schema has at most as many fields."""
MAX_NAME_SHOWN = 64
INT64_MAX = 2**63 - 1

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Int64 = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
Count = Annotated[int, Meta(ge=1, le=INT64_MAX)]
# `$` alone would let a newline through, and the id is sent back; JSON Schema, made from this, has no `\Z`.
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,128}$(?!\n)")]
ModelChoice = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_SHOWN)] | Count

Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Scalar = Text | Int64 | float | bool | None
Feature = (
    Scalar | Annotated[list[Scalar], Meta(max_length=MAX_ENTRIES)] | Annotated[dict[Text, float], Meta(max_length=1000)]
)
Features = Annotated[dict[Id, Feature], Meta(max_length=MAX_ENTRIES)]


class PlainRankBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body as nearly every client sends it: without nulls. Its ids stay unparsed, for `RequestIds` to scan."""

    user_id: Id | Int64
    item_ids: msgspec.Raw
    context: Features = {}
    user_features: Features = {}
    item_features: dict[Id, Features] = {}
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool = False
    request_id: RequestId | None = None


class RankBody(msgspec.Struct, forbid_unknown_fields=True):
    """Everything that is accepted, which the OpenAPI document shows: optional fields may be null."""

    user_id: Id | Int64
    item_ids: Annotated[list[Id | Int64], Meta(min_length=1)]
    context: Features | None = None
    user_features: Features | None = None
    item_features: dict[Id, Features | None] | None = None
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool | None = None
    request_id: RequestId | None = None


_plain_decoder = msgspec.json.Decoder(PlainRankBody)
_decoder = msgspec.json.Decoder(RankBody)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_MISFIT = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<location>[^`]*)`)?", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `.*`)?", re.DOTALL)
_BYTE = re.compile(r"\(byte \d+\)\Z")


def parse_rank(raw: bytes, max_candidates: int) -> RankRequest:
    """Parse the body of POST /rank.

    Raises:
        NotJson: the bytes are not one JSON document in UTF-8. NaN, Infinity and lone surrogates are not JSON.
        InvalidRequest: it is JSON, but not a ranking request; one (location, message) pair names the first misfit.
    """
    try:
        body = _plain_decoder.decode(raw)
        item_ids = RequestIds.from_json(bytes(body.item_ids), max_candidates)
    except msgspec.ValidationError:
        item_ids = None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(raw, error)
    return _parse_fully(raw, max_candidates) if item_ids is None else _request(body, item_ids)


def _parse_fully(raw: bytes, max_candidates: int) -> RankRequest:
    try:
        body = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(raw, error)
    if len(body.item_ids) > max_candidates:
        raise _invalid("item_ids", f"{len(body.item_ids)} ids, at most {max_candidates} in one request")
    return _request(body, RequestIds.from_strings([str(item_id) for item_id in body.item_ids]))


def _request(body: PlainRankBody | RankBody, item_ids: RequestIds) -> RankRequest:
    model = body.model
    if isinstance(model, str) and model.isdecimal() and model.isascii():
        model = int(model)
    return RankRequest(
        user_id=str(body.user_id),
        item_ids=item_ids,
        context=body.context or {},
        user_features=body.user_features or {},
        item_features={item_id: features or {} for item_id, features in (body.item_features or {}).items()},
        top_k=body.top_k,
        model=model,
        explain=bool(body.explain),
        request_id=body.request_id,
    )


def _refuse(raw: bytes, error: Exception) -> NoReturn:
    """Raise what `parse_rank` promises for a decoder's error."""
    if isinstance(error, RecursionError):
        raise _invalid("", "nested too deeply") from None
    if isinstance(error, msgspec.ValidationError):
        try:  # the decoder stops at the first misfit, so the rest may not be JSON at all
            _any_json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise _misfit(error) from None
        else:
            raise _misfit(error) from None
    position = _BYTE.search(str(error))
    raise NotJson(
        "expected one JSON object in UTF-8; NaN, Infinity and lone surrogates are not JSON"
        + (f" {position[0]}" if position else "")
    ) from None


def _misfit(error: msgspec.ValidationError) -> InvalidRequest:
    """Translate msgspec's message into a location and a message without the input."""
    unknown = _UNKNOWN_FIELD.fullmatch(str(error))
    if unknown:
        # The one piece of the client's input that is repeated, because a typo is hard to find without it.
        name = "".join(letter if letter.isprintable() else "?" for letter in unknown["name"][:MAX_NAME_SHOWN])
        return _invalid("", f"unknown field '{name}'")
    parts: Any = _MISFIT.fullmatch(str(error))
    message = parts["message"].replace("`", "'")
    return _invalid(parts["location"] or "", f"key: {message}" if parts["key"] else message)


def _invalid(location: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{location}: {message}" if location else message, errors=[(location or "body", message)])
