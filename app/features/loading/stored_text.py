"""`stored_text`: how a value of a file is written into a hash, so that it is encoded like the value itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from app.errors import EncodingError
from app.features.values import INT64_MAX, canonical_text, scalar_text


def stored_text(value: object, field: str) -> str | None:
    """Return a value as the hash holds it, None for one that is left out.

    A list becomes a JSON array, a weighted list a JSON object, a number its shortest text, a boolean true or false, a
    date or time ISO 8601; null, NaN and empty text are left out.

    Raises EncodingError if no feature is of this kind.
    """
    if isinstance(value, str) and value.isascii():  # nine values in ten
        return value or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple):
        if value and all(isinstance(part, Mapping) and part.keys() == {"key", "value"} for part in value):
            return _weights({canonical_text(part["key"], field): part["value"] for part in value}, field)
        return _json([_element(part, field) for part in value if part is not None], field)
    if isinstance(value, Mapping):
        return _weights(value, field)
    text = scalar_text(value, field)
    if not text.isascii():
        _json(text, field)
    return text or None


def stored_id(value: object, field: str) -> str:
    """Return an id as keys hold it and requests name it: 12345007, and not 1.2345007E7.

    Raises EncodingError if it is missing or no id.
    """
    text = stored_text(value, field)
    if text is None:
        raise EncodingError(field, "is empty")
    return canonical_text(value, field)


def _weights(weights: Mapping[object, object], field: str) -> str:
    # A Parquet struct has every key in every row, null where it does not apply.
    present = {str(name): weight for name, weight in weights.items() if weight is not None}
    return _json({name: _weight(weight, field) for name, weight in present.items()}, field)


def _weight(weight: object, field: str) -> object:
    return float(weight) if isinstance(weight, Decimal) else _element(weight, field)


def _element(value: object, field: str) -> object:
    """Return an element of a list as JSON can hold it."""
    if isinstance(value, list | tuple | Mapping):
        raise EncodingError(field, "a list of lists or objects is not a feature")
    if isinstance(value, float) and not math.isfinite(value):
        raise EncodingError(field, "a list cannot hold NaN or infinity")
    fits = isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) <= INT64_MAX)
    return value if fits else scalar_text(value, field)


def _json(value: object, field: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise EncodingError(field, "text must be valid Unicode, without lone surrogates") from None
    except (TypeError, OverflowError, ValueError) as error:
        raise EncodingError(field, f"cannot be stored: {error}") from error
