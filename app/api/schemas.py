"""`parse_rank` turns the bytes of POST /rank into a `RankRequest`, or refuses them.

msgspec checks types, lengths and ranges while it parses, in C and without a Python step per id. A plain body's ids are
not even parsed but stay as they are in its bytes (`app.features.request_ids`). A body with nulls for optional fields,
with ids that are not printable ASCII, or with numbers in unusual forms, takes a second pass.

A user that is null, empty or left out is a guest: scored as training saw a user that is missing.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Iterator, Mapping
from random import random
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from app.errors import InvalidRequest, NotJson
from app.features.request_ids import RequestIds
from app.features.store import RawFeatures
from app.features.values import FLOAT_EXACT, INT64_MAX, UINT64_MAX
from app.ranking.request import RankRequest

MAX_ID = 256
MAX_TEXT = 4096
MAX_ENTRIES = 1000
"""Most entries of one object of features, or of one list or object in it; a schema has at most as many fields."""
MAX_NAME_SHOWN = 64

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
UserId = Annotated[str, Meta(max_length=MAX_ID)]
Int64 = Annotated[int, Meta(ge=-INT64_MAX - 1, le=INT64_MAX)]
Integer = Annotated[int, Meta(ge=-INT64_MAX - 1, extra_json_schema={"maximum": UINT64_MAX})]
"""Of 64 bits, signed or unsigned; msgspec itself knows no bound above those of the signed."""
Count = Annotated[int, Meta(ge=1, le=INT64_MAX)]
# `$` alone would let a newline through, and the id is sent back; JSON Schema, made from this, has no `\Z`.
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,128}$(?!\n)")]
ModelChoice = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_SHOWN)] | Count

Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Scalar = Text | Int64 | float | bool | None
Feature = (
    Scalar
    | Annotated[list[Scalar], Meta(max_length=MAX_ENTRIES)]
    | Annotated[dict[Text, float | None], Meta(max_length=MAX_ENTRIES)]
)
Features = Annotated[dict[Id, Feature], Meta(max_length=MAX_ENTRIES)]
AnyScalar = Text | Integer | float | bool | None
AnyFeature = (
    AnyScalar
    | Annotated[list[AnyScalar], Meta(max_length=MAX_ENTRIES)]
    | Annotated[dict[Text, float | None], Meta(max_length=MAX_ENTRIES)]
)
AnyFeatures = Annotated[dict[Id, AnyFeature], Meta(max_length=MAX_ENTRIES)]


class PlainBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body as nearly every client sends it: without nulls. Its ids stay unparsed, for `RequestIds` to scan."""

    item_ids: msgspec.Raw
    user_id: UserId | Int64 = ""
    context: Features = {}
    user_features: Features = {}
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool = False
    request_id: RequestId | None = None


class PlainRankBody(PlainBody, forbid_unknown_fields=True):
    """A plain body that is parsed at once; `app.api.large_bodies` has the other."""

    item_features: dict[Id, Features] = {}


class RankBody(msgspec.Struct, forbid_unknown_fields=True):
    """Everything that is accepted, which the OpenAPI document shows: optional fields may be null."""

    item_ids: Annotated[list[Id | Integer], Meta(min_length=1)]
    user_id: Annotated[UserId | Integer | None, Meta(description="Left out, null or empty for a guest")] = None
    context: AnyFeatures | None = None
    user_features: AnyFeatures | None = None
    item_features: dict[Id, AnyFeatures | None] | None = None
    top_k: Count | None = None
    model: ModelChoice | None = None
    explain: bool | None = None
    request_id: RequestId | None = None


_plain_decoder = msgspec.json.Decoder(PlainRankBody)
_decoder = msgspec.json.Decoder(RankBody)
_any_json = msgspec.json.Decoder(msgspec.Raw)
_MISFIT = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$\.?(?P<location>[^`]*)`)?", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*?)`(?: - at `.*`)?", re.DOTALL)
_FORM = re.compile(rb"[\w.%+-]+=|--[\w'-]+\r?\n|<")
_BYTE = re.compile(r"\(byte \d+\)\Z")


def parse_rank(raw: bytes, max_candidates: int) -> RankRequest:
    """Parse the body of POST /rank. A byte order mark before it is skipped.

    Raises:
        NotJson: the bytes are not one JSON document in UTF-8. NaN, Infinity and lone surrogates are not JSON.
        InvalidRequest: it is JSON, but not a ranking request; one (location, message) pair names the first value that
            does not fit.
    """
    try:
        body = _plain_decoder.decode(raw)
        item_ids = RequestIds.from_json(bytes(body.item_ids), max_candidates)
    except msgspec.ValidationError:
        item_ids = None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        rest = raw.removeprefix(codecs.BOM_UTF8)
        if len(rest) < len(raw) and not rest.startswith(codecs.BOM_UTF8):
            return parse_rank(rest, max_candidates)
        _refuse(raw, error)
    if item_ids is None:
        return _parse_fully(raw, max_candidates)
    return to_request(body, item_ids, body.item_features)


def _parse_fully(raw: bytes, max_candidates: int) -> RankRequest:
    try:
        body = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        body = _with_whole_numbers(raw, error)
    for location, integer in _integers(body):
        if integer > UINT64_MAX:
            raise _invalid(location, "an integer of more than 64 bits; send it as a string")
    if len(body.item_ids) > max_candidates:
        raise _invalid("item_ids", f"{len(body.item_ids)} ids, at most {max_candidates} in one request; send several")
    ids = RequestIds.from_strings([str(item_id) for item_id in body.item_ids])
    sent = {item_id: features or {} for item_id, features in (body.item_features or {}).items()}
    return to_request(body, ids, sent)


def _with_whole_numbers(raw: bytes, error: Exception) -> RankBody:
    """Decode a body in which integers may be written as 7.0, which JSON Schema calls an integer too.

    Raises what `_refuse` raises for the decoder's error if there are none, or if that does not help.
    """
    if not isinstance(error, msgspec.ValidationError):
        _refuse(raw, error)
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _refuse(raw, error)
    if not isinstance(document, dict):
        _refuse(raw, error)
    for name in ("user_id", "top_k", "model"):
        if name in document:
            document[name] = whole(document[name])
    if isinstance(document.get("item_ids"), list):
        document["item_ids"] = [whole(item_id) for item_id in document["item_ids"]]
    try:
        return msgspec.convert(document, RankBody)
    except (msgspec.ValidationError, RecursionError):
        _refuse(raw, error)


def whole(value: object) -> object:
    """Return 7 for 7.0, an integer in JSON Schema, as far as doubles are exact; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= FLOAT_EXACT else value


def _integers(body: RankBody) -> Iterator[tuple[str, int]]:
    """Go through the integers of a body that msgspec does not bound, each with its location."""
    if isinstance(body.user_id, int):
        yield "user_id", body.user_id
    for index, item_id in enumerate(body.item_ids):
        if isinstance(item_id, int):
            yield f"item_ids[{index}]", item_id
    owners = [("context", body.context), ("user_features", body.user_features)]
    owners += [("item_features[...]", features) for features in (body.item_features or {}).values()]
    for location, features in owners:
        for value in (features or {}).values():
            if isinstance(value, int):
                yield f"{location}[...]", value
            elif isinstance(value, list):
                yield from (
                    (f"{location}[...][{index}]", one) for index, one in enumerate(value) if isinstance(one, int)
                )


def to_request(
    body: PlainBody | RankBody, item_ids: RequestIds, item_features: Mapping[str, RawFeatures]
) -> RankRequest:
    """Return what a body asks for, with its ids and its features of items as they were read."""
    model = body.model
    if isinstance(model, str) and model.isdecimal() and model.isascii():
        model = int(model)
    guest = body.user_id is None or body.user_id == ""
    return RankRequest(
        user_id=None if guest else str(body.user_id),
        item_ids=item_ids,
        context=body.context or {},
        user_features=body.user_features or {},
        item_features=item_features,
        top_k=body.top_k,
        model=model,
        explain=bool(body.explain),
        request_id=body.request_id,
        guest_arm=random() if guest else 1.0,
    )


def _refuse(raw: bytes, error: Exception) -> NoReturn:
    """Raise what `parse_rank` promises for a decoder's error."""
    if isinstance(error, RecursionError):
        raise _invalid("", "nested too deeply") from None
    if isinstance(error, msgspec.ValidationError):
        try:  # the decoder stops at the first value that does not fit, so the rest may not be JSON at all
            _any_json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        except RecursionError:
            raise _not_fitting(error) from None
        else:
            raise _not_fitting(error) from None
    position = _BYTE.search(str(error))
    raise NotJson(
        f"expected one JSON object in UTF-8{_what_else_it_is(raw)}" + (f" {position[0]}" if position else "")
    ) from None


def _what_else_it_is(raw: bytes) -> str:
    """Say what the bytes are in place of JSON, if that is easily seen, and what to do."""
    if not raw.strip():
        return ', but the body is empty; send one such as {"user_id": "42", "item_ids": ["10", "20"]}'
    if raw.startswith(b"\x1f\x8b"):
        return ", but this is gzip; say so with Content-Encoding: gzip"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw[:4]:
        return ", but this is UTF-16 or UTF-32; encode it as UTF-8"
    if _FORM.match(raw):
        return ", but this is a form; send JSON, with Content-Type: application/json"
    if raw.lstrip().startswith(b"{'"):
        return ", where names and texts have double quotes"
    return "; NaN, Infinity and lone surrogates are not JSON"


def _not_fitting(error: msgspec.ValidationError) -> InvalidRequest:
    """Translate msgspec's message into a location and a message without the input."""
    unknown = _UNKNOWN_FIELD.fullmatch(str(error))
    if unknown:
        # The one piece of the client's input that is repeated, because a typo is hard to find without it.
        name = "".join(letter if letter.isprintable() else "?" for letter in unknown["name"][:MAX_NAME_SHOWN])
        nearest = difflib.get_close_matches(name, RankBody.__struct_fields__, 1, 0.6)
        advice = f"; did you mean '{nearest[0]}'?" if nearest and "- at" not in str(error) else ""
        return _invalid("", f"unknown field '{name}'{advice}")
    parts: Any = _MISFIT.fullmatch(str(error))
    message = parts["message"].replace("`", "'")
    return _invalid(parts["location"] or "", f"key: {message}" if parts["key"] else message)


def _invalid(location: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{location}: {message}" if location else message, errors=[(location or "body", message)])
