"""The body of POST /rank, parsed strictly from its bytes.

msgspec checks types, lengths and ranges while it parses, in C and without a Python step per id. In the usual body the
ids are not even parsed but kept as they stand, see `app.features.request_ids`; nulls for what may be left out, and ids
that are not printable ASCII, take a second pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from app.errors import InvalidRequest, NotJson
from app.features.request_ids import WireIds

MAX_ID = 256
MAX_TEXT = 4096
MAX_ENTRIES = 1000
"""Of one object of features, or one list or object in it; a schema has at most as many fields."""
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


class UsualBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body as it nearly always is: no nulls. The ids are left as they are, for `WireIds` to read."""

    user_id: Id | Int64
    item_ids: msgspec.Raw
    context: Features = {}
    user_features: Features = {}
    item_features: dict[Id, Features] = {}
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool = False
    request_id: RequestId | None = None


class AcceptedBody(msgspec.Struct, forbid_unknown_fields=True):
    """All that is accepted: also ids as JSON integers, and null for what may be left out."""

    user_id: Id | Int64
    item_ids: Annotated[list[Id | Int64], Meta(min_length=1)]
    context: Features | None = None
    user_features: Features | None = None
    item_features: dict[Id, Features | None] | None = None
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool | None = None
    request_id: RequestId | None = None


class RankBody(msgspec.Struct):
    """A valid request. Ids are in the order sent, duplicates included; `model` is a label or a version number."""

    user_id: Id
    item_ids: Sequence[str]
    context: Features = {}
    user_features: Features = {}
    item_features: dict[Id, Features] = {}
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool = False
    request_id: RequestId | None = None


_usual = msgspec.json.Decoder(UsualBody)
_accepted = msgspec.json.Decoder(AcceptedBody)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_COMPLAINT = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<location>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `.*`)?", re.DOTALL)
_BYTE = re.compile(r"\(byte \d+\)\Z")


def parse_rank(raw: bytes, max_candidates: int) -> RankBody:
    """Read the body of POST /rank.

    Raises:
        NotJson: the bytes are not one JSON document in UTF-8. NaN, Infinity and lone surrogates are not JSON.
        InvalidRequest: it is JSON, but not a ranking request; one (location, message) pair says what is wrong first.
    """
    try:
        usual = _usual.decode(raw)
        item_ids = WireIds.read(bytes(usual.item_ids), max_candidates)
    except msgspec.ValidationError:
        item_ids = None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(raw, error)
    body = _parse_loosely(raw, max_candidates) if item_ids is None else _rank_body(usual, item_ids)
    if body.model.__class__ is str and body.model.isdecimal() and body.model.isascii():
        body.model = int(body.model)
    return body


def _rank_body(body: UsualBody | AcceptedBody, item_ids: WireIds) -> RankBody:
    return RankBody(
        user_id=str(body.user_id),
        item_ids=item_ids,
        context=body.context or {},
        user_features=body.user_features or {},
        item_features={item_id: features or {} for item_id, features in (body.item_features or {}).items()},
        top_k=body.top_k,
        model=body.model,
        explain=bool(body.explain),
        request_id=body.request_id,
    )


def _parse_loosely(raw: bytes, max_candidates: int) -> RankBody:
    try:
        body = _accepted.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(raw, error)
    if len(body.item_ids) > max_candidates:
        raise _invalid("item_ids", f"{len(body.item_ids)} ids, at most {max_candidates} in one request")
    return _rank_body(body, WireIds.of([str(item_id) for item_id in body.item_ids]))


def _refuse(raw: bytes, error: Exception) -> NoReturn:
    if isinstance(error, RecursionError):
        raise _invalid("", "nested too deeply") from None
    if isinstance(error, msgspec.ValidationError):
        try:  # the first wrong value hides whether the rest is JSON at all
            _any_json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise _complaint(error) from None
        else:
            raise _complaint(error) from None
    place = _BYTE.search(str(error))
    raise NotJson(
        "expected one JSON object in UTF-8; NaN, Infinity and lone surrogates are not JSON"
        + (f" {place[0]}" if place else "")
    ) from None


def _complaint(error: msgspec.ValidationError) -> InvalidRequest:
    unknown = _UNKNOWN.fullmatch(str(error))
    if unknown:
        # The name is the client's: the one piece of input that is repeated, because a typo is hard to find without it.
        name = "".join(letter if letter.isprintable() else "?" for letter in unknown["name"][:MAX_NAME_SHOWN])
        return _invalid("", f"unknown field '{name}'")
    found: Any = _COMPLAINT.fullmatch(str(error))
    message = found["message"].replace("`", "'")
    return _invalid(found["location"] or "", f"key: {message}" if found["key"] else message)


def _invalid(location: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{location}: {message}" if location else message, errors=[(location or "body", message)])
