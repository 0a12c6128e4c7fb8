"""`user_misfit` and `item_misfit` say where in a request the value is that fits no slot, as the client wrote it.

Encoders know fields by their names in the schema; the client knows the object it sent, the item and the raw name. A
place is written as those of `ignored` are.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.errors import EncodingError
from app.features.encoder import Encoder
from app.features.store import RawFeatures
from app.ranking.request import RankRequest

MAX_ID_SHOWN = 40
"""Letters of an item's id in a place, which has to leave room for the field's name."""


def user_misfit(encoder: Encoder, request: RankRequest, error: EncodingError) -> EncodingError:
    """Return the error with its place: what `context` has of a field is read, and not what `user_features` has."""
    is_of_context = _raw_name(encoder, error) in request.context
    return _placed(encoder, "context" if is_of_context else "user_features", error)


def item_misfit(encoder: Encoder, sent: Mapping[str, RawFeatures], error: EncodingError) -> EncodingError:
    """Return the error of the first item, of those that values were sent for, with its place."""
    slots = encoder.encode({})
    for item_id, raw in sent.items():
        try:
            encoder.patch(slots, raw)
        except EncodingError as misfit:
            shown = item_id if len(item_id) <= MAX_ID_SHOWN else item_id[: MAX_ID_SHOWN - 1] + "…"
            return _placed(encoder, f"item_features.{shown}", misfit)
    return error


def _placed(encoder: Encoder, place: str, error: EncodingError) -> EncodingError:
    ((_, message),) = error.errors
    return EncodingError(f"{place}.{_raw_name(encoder, error)}", message)


def _raw_name(encoder: Encoder, error: EncodingError) -> str:
    return next((one.raw_name for one in encoder.fields if one.name == error.field), error.field)
