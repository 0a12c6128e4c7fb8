"""How wide the item states of a model are: it is built for a schema, without having learned anything, and asked."""

from __future__ import annotations

from typing import Any

import torch

from app.features.fields import SIDES, Numeric
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import EMPTY_KEY
from app.models import build
from app.models.preprocessing import NumericStatistics, Preprocessing, numeric_key


def plain_schema(user_fields: int, item_fields: int, lists: int = 0, values: int = 5) -> FeatureSchema:
    """Return a schema of two ids and so many categories.

    Args:
        lists: how many fields of each side are lists, at most all.
        values: values in a list.

    Raises:
        SchemaError: it would have more fields than a schema may have.
    """
    lines = []
    for side, count in zip(SIDES, (user_fields, item_fields), strict=True):
        lines.append(f"  - {{name: {side}_id, entity: {side}, type: categorical, id: true}}")
        for number in range(count):
            kind = f"multi_categorical, max_length: {values}" if number < lists else "categorical"
            lines.append(f"  - {{name: {side}_f{number}, entity: {side}, type: {kind}}}")
    return parse_schema("version: 1\nfields:\n" + "\n".join(lines), origin="--fields")


def state_width(model: str, schema: FeatureSchema, **options: Any) -> int:
    """Return the columns of an item state of a model for this schema.

    Args:
        options: the model's own; None is its default.

    Raises:
        ConfigError: there is no such model, or it has no such option.
    """
    given = {name: value for name, value in options.items() if value is not None}
    numerics = {field.name: NumericStatistics() for field in schema.fields if isinstance(field, Numeric)}
    keys = sorted({EMPTY_KEY, *map(numeric_key, numerics)})
    built = build(model, Preprocessing(schema, torch.tensor(keys), numerics), **given).eval()
    slots = schema.layout("item").width
    with torch.inference_mode():
        state_ND = built.encode_items(torch.full((1, slots), EMPTY_KEY), torch.zeros(1, slots))
    return state_ND.shape[1]
