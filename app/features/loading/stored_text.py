"""`stored_text`: how a value of a file is written into a hash, so that it is encoded like the value itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from app.errors import EncodingError
from app.features.slots import canonical_text


def stored_text(value: object, field: str) -> str | None:
    """Return a value as the hash holds it, None for one that is left out.

    A list becomes a JSON array, a weighted list a JSON object, a number its shortest text, a boolean true or false;
    null, NaN and empty text are left out.

    Raises EncodingError if no feature is of this kind.
    """
    if isinstance(value, str) and value.isascii():  # nine values in ten
        return value or None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple):
        if value and all(isinstance(part, Mapping) and part.keys() == {"key", "value"} for part in value):
            return stored_text({part["key"]: part["value"] for part in value}, field)  # a Parquet map
        return _json([_element(part, field) for part in value if part is not None], field)
    if isinstance(value, Mapping):
        # A Parquet struct has every key in every row, null where it does not apply.
        weights = {str(name): _element(weight, field) for name, weight in value.items() if weight is not None}
        return _json(weights, field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = canonical_text(value, field)
    if not text.isascii():
        _json(text, field)
    return text


def _element(value: object, field: str) -> object:
    if isinstance(value, list | tuple | Mapping):
        raise EncodingError(field, "a list of lists or objects is not a feature")
    if isinstance(value, float) and not math.isfinite(value):
        raise EncodingError(field, "a list cannot hold NaN or infinity")
    return value


def _json(value: object, field: str) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        raise EncodingError(field, "text must be valid Unicode, without lone surrogates") from None
    except (TypeError, OverflowError, ValueError) as error:
        raise EncodingError(field, f"cannot be stored: {error}") from error
