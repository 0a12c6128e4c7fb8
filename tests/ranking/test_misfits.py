"""A value that fits no slot is named by the place that the client wrote it at, also where a field has another name."""

from __future__ import annotations

import pytest

from app.errors import EncodingError
from app.features.encoder import Encoder
from app.features.schema import parse_schema
from app.ranking.misfits import item_misfit, user_misfit
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
    misfit = user_misfit(user, RankRequest("4", ["1"], user_features=sent), error_of(user, sent))
    assert str(misfit).startswith("user_features.Age (years): expected a number")
    misfit = user_misfit(user, RankRequest("4", ["1"], user_features=sent, context=sent), error_of(user, sent))
    assert str(misfit).startswith("context.Age (years): expected a number")
    of_items = {"10": {"Price": 3}, "20": {"Price": "a lot"}, "30": {"Price": "more"}}
    misfit = item_misfit(item, of_items, error_of(item, of_items["20"]))
    assert misfit.errors[0][0] == "item_features.20.Price"
    assert str(misfit).startswith("item_features.20.Price: expected a number")
