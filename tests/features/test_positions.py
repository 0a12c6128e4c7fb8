"""A field of the position is read of rows that were shown, and held at one value for whoever asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import EncodingError, SchemaError
from app.features.encoder import Encoder
from app.features.schema import parse_schema, schema_from_json

PLAIN = """\
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: hour, entity: context, type: categorical}
  - {name: item_id, entity: item, type: categorical, id: true}
"""
PLACE = "  - {name: place, source: rank, entity: position, type: categorical, serve_as: 1}\n"
DEPTH = "  - {name: depth, source: rank, entity: position, type: numeric, serve_as: 1}\n"
SCHEMA = parse_schema(PLAIN + PLACE + DEPTH)
SENT = st.one_of(st.none(), st.integers(-5, 5000), st.text(max_size=5), st.floats(allow_nan=True), st.booleans())


def slots_of(encoder: Encoder, raw: dict[str, Any]) -> tuple[list[int], list[float]]:
    slots = encoder.encode(raw, "7")
    return slots.keys.tolist(), slots.values.tolist()


def test_it_is_on_the_users_side_and_read_of_rows_alone() -> None:
    logged, asked = Encoder(SCHEMA, "user", logged=True), Encoder(SCHEMA, "user")
    assert [field.name for field in SCHEMA.side("user")] == ["user_id", "hour", "place", "depth"]
    assert (logged.raw_names, asked.raw_names) == (["user_id", "hour", "rank"], ["user_id", "hour"])
    assert asked.overridable == {"hour"}
    assert slots_of(logged, {"hour": 3, "rank": 1}) == slots_of(asked, {"hour": 3})
    assert slots_of(logged, {"hour": 3, "rank": 4}) != slots_of(asked, {"hour": 3})
    assert slots_of(logged, {"hour": 3}) != slots_of(asked, {"hour": 3}), "a row without a position lacks one"


@given(SENT, st.integers(1, 80))
def test_what_is_sent_or_stored_for_it_changes_no_slot(sent: object, count: int) -> None:
    asked = Encoder(SCHEMA, "user")
    held = asked.encode({"hour": 3}, "7")
    given_rows = [{"hour": 3, "rank": sent}] * count
    many = asked.encode_many(given_rows, ["7"] * count)
    columns = asked.encode_columns({"user_id": ["7"] * count, "hour": [3] * count, "rank": [sent] * count}, count)
    patched = asked.encode_many([{"hour": 3}] * count, ["7"] * count)
    asked.patch_many(patched, {row: {"rank": sent} for row in range(count)})
    one, other = asked.encode({"hour": 3, "rank": sent}, "7"), asked.patch(held, {"rank": sent})
    for slots in (one, other, *(type(held)(table.keys[0], table.values[0]) for table in (many, columns, patched))):
        np.testing.assert_array_equal(slots.keys, held.keys)
        np.testing.assert_array_equal(slots.values, held.values)


def test_an_explanation_leaves_it_where_it_is_held() -> None:
    asked = Encoder(SCHEMA, "user")
    without, names = asked.without_each(asked.encode({"hour": 3}, "7"))
    assert names == ["user_id", "hour"]
    assert (without.keys[:, 2:] == asked.encode({"hour": 3}, "7").keys[2:]).all()


def test_columns_of_rows_are_read() -> None:
    logged = Encoder(SCHEMA, "user", logged=True)
    table = logged.encode_columns({"user_id": ["7", "7"], "hour": [3, 3], "rank": [1, 9]}, 2)
    for row, place in enumerate((1, 9)):
        slots = logged.encode({"hour": 3, "rank": place}, "7")
        np.testing.assert_array_equal(table.keys[row], slots.keys)
        np.testing.assert_array_equal(table.values[row], slots.values)
    with pytest.raises(EncodingError):
        logged.encode({"rank": "first"})


def test_it_is_kept_in_the_manifest_and_schemas_without_one_are_as_they_were() -> None:
    dumped = SCHEMA.model_dump(mode="json")
    assert schema_from_json(dumped) == SCHEMA
    assert schema_from_json(dumped).hash == SCHEMA.hash
    assert "serve_as" not in str(parse_schema(PLAIN).model_dump(mode="json"))
    other = parse_schema(PLAIN + PLACE.replace("serve_as: 1", "serve_as: 2") + DEPTH)
    assert other.hash != SCHEMA.hash


def test_a_schema_without_its_positions_is_the_plain_one() -> None:
    crossed = PLAIN + PLACE + "crosses: [{fields: [place, item_id]}, {fields: [hour, item_id]}]\n"
    assert parse_schema(crossed).without_positions == parse_schema(PLAIN + "crosses: [{fields: [hour, item_id]}]\n")
    plain = parse_schema(PLAIN)
    assert plain.without_positions is plain


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        (PLACE.replace(", serve_as: 1", ""), "field 'place': a position needs `serve_as`"),
        (PLACE.replace("serve_as: 1", 'serve_as: ""'), "field 'place': a position needs `serve_as`"),
        (PLACE.replace("type: categorical", "type: multi_categorical"), "is categorical or numeric"),
        (PLACE.replace("serve_as", "id: true, serve_as"), "position has no id"),
        (PLACE.replace("rank", "hour"), "'hour' reads 'hour' too"),
        (
            "  - {name: a, entity: user, type: categorical, serve_as: 1}\n",
            "`serve_as` is for fields of `entity: position`",
        ),
    ],
)
def test_what_could_depend_on_a_request_is_refused(field: str, complaint: str) -> None:
    with pytest.raises(SchemaError, match=complaint):
        parse_schema(PLAIN + field)


@pytest.mark.parametrize(
    "field",
    [DEPTH.replace("serve_as: 1", "serve_as: first"), PLACE.replace("serve_as: 1", 'serve_as: 0, missing: ["0"]')],
)
def test_a_value_that_is_none_of_the_fields_is_refused(field: str) -> None:
    with pytest.raises(SchemaError, match="serve_as"):
        Encoder(parse_schema(PLAIN + field), "user")
