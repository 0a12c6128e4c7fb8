"""`field_encoder`: which encoder turns a raw field into its slots."""

from __future__ import annotations

from app.features.categorical_encoder import CategoricalEncoder
from app.features.fields import AnyField, Categorical, MissingWords, MultiCategorical
from app.features.multi_categorical_encoder import MultiCategoricalEncoder
from app.features.numeric_encoder import NumericEncoder
from app.features.values import Reading

FieldEncoder = CategoricalEncoder | NumericEncoder


def field_encoder(field: AnyField, missing: MissingWords = (), reading: Reading = 2) -> FieldEncoder:
    """Return the encoder of a field.

    Args:
        missing: values that count as missing, beside the field's own.
        reading: how categories are spelled.
    """
    words = (*missing, *field.missing)
    if isinstance(field, MultiCategorical):
        return MultiCategoricalEncoder(field, words, reading)
    if isinstance(field, Categorical):
        return CategoricalEncoder(field, words, reading)
    return NumericEncoder(field, words)
