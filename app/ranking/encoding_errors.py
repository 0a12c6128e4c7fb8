"""`locate_user_error` and `locate_item_error` say where in a request the value is that fits no slot.

Encoders know fields by their names in the schema; the client knows the object it sent, the item and the raw name. A
path is written as those of `ignored` are.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.errors import EncodingError
from app.features.encoder import Encoder
from app.features.store import RawFeatures
from app.ranking.request import RankRequest

MAX_ID_SHOWN = 40
"""Letters of an item's id in a path, which has to leave room for the field's name."""


def locate_user_error(encoder: Encoder, request: RankRequest, error: EncodingError) -> EncodingError:
    """Return the error with the value's path, such as `context.hour`; `context` wins where both have the field."""
    is_of_context = _raw_name(encoder, error) in request.context
    return _with_path(encoder, "context" if is_of_context else "user_features", error)


def locate_item_error(encoder: Encoder, sent: Mapping[str, RawFeatures], error: EncodingError) -> EncodingError:
    """Return the error of the first item whose values do not fit, with the value's path.

    Args:
        sent: the values by item, encoded together before.
        error: what that raised; returned if no item fails alone.
    """
    slots = encoder.encode({})
    for item_id, raw in sent.items():
        try:
            encoder.patch(slots, raw)
        except EncodingError as item_error:
            shown = item_id if len(item_id) <= MAX_ID_SHOWN else item_id[: MAX_ID_SHOWN - 1] + "…"
            return _with_path(encoder, f"item_features.{shown}", item_error)
    return error


def _with_path(encoder: Encoder, parent: str, error: EncodingError) -> EncodingError:
    return EncodingError(f"{parent}.{_raw_name(encoder, error)}", error.message)


def _raw_name(encoder: Encoder, error: EncodingError) -> str:
    return next((one.raw_name for one in encoder.fields if one.name == error.field), error.field)
