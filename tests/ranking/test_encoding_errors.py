"""A value that fits no slot is named by the place that the client wrote it at, also where a field has another name."""

from __future__ import annotations

import pytest

from app.errors import EncodingError
from app.features.encoder import Encoder
from app.features.schema import parse_schema
from app.ranking.encoding_errors import locate_item_error, locate_user_error
from app.ranking.request import RankRequest

SCHEMA = parse_schema("""
version: 1
fields:
  - {name: user_age, source: "Age (years)", type: numeric, entity: user}
  - {name: hour, type: numeric, entity: context}
  - {name: price, source: "Price", type: numeric, entity: item}
""")


def error_of(encoder: Encoder, raw: dict[str, object]) -> EncodingError:
    with pytest.raises(EncodingError) as refused:
        encoder.patch(encoder.encode({}), raw)
    return refused.value


def test_places_have_raw_names() -> None:
    user, item = Encoder(SCHEMA, "user"), Encoder(SCHEMA, "item")
    sent: dict[str, object] = {"Age (years)": "old"}
    located = locate_user_error(user, RankRequest("4", ["1"], user_features=sent), error_of(user, sent))
    assert str(located).startswith("user_features.Age (years): expected a number")
    located = locate_user_error(user, RankRequest("4", ["1"], user_features=sent, context=sent), error_of(user, sent))
    assert str(located).startswith("context.Age (years): expected a number")
    of_items = {"10": {"Price": 3}, "20": {"Price": "a lot"}, "30": {"Price": "more"}}
    located = locate_item_error(item, of_items, error_of(item, of_items["20"]))
    assert located.errors[0][0] == "item_features.20.Price"
    assert str(located).startswith("item_features.20.Price: expected a number")
