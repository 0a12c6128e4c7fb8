"""The encoding depends on schema and raw values alone, on any machine and by any of the encoder's methods."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from app.errors import EncodingError
from app.features.encoder import LEAST_ROWS, Encoder
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import EMPTY_KEY, Slots, slot_key
from app.features.values import canonical_text
from tests.factories import raw_context, raw_item, raw_user, redis_text, small_schema

SCHEMA = small_schema()
USER, ITEM = Encoder(SCHEMA, "user"), Encoder(SCHEMA, "item")
RAW_NAMES = sorted({field.raw_name for field in SCHEMA.fields})

text = st.text(st.characters(codec="utf-8"), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=20,  # of each of twelve fields; a hundred take longer to draw than to encode
)
json_raws = st.dictionaries(st.sampled_from(RAW_NAMES) | st.text(max_size=5), json_values, max_size=12)
# Python and JSON write smaller numbers differently, 1e-07 and 1e-7; as categories those are two.
finite = st.floats(-1e6, 1e6, width=32).filter(lambda number: number == 0 or abs(number) >= 1e-4)
weights = st.dictionaries(text.filter(bool), st.floats(0, 1e6), max_size=6)
good_users = st.fixed_dictionaries(
    {},
    optional={
        "gender": text | st.integers(-(2**63), 2**63 - 1) | finite | st.booleans(),
        "age": finite | st.integers(-(10**6), 10**6),
        "liked_genres": weights | st.lists(text, max_size=6),
        "hour": st.integers(0, 23),
        "session_length": finite,
    },
)
good_items = st.fixed_dictionaries(
    {},
    optional={
        "genres": st.lists(text, max_size=5) | text.filter(lambda value: value[:1] not in "[{"),
        "tags": st.dictionaries(text, finite, max_size=5),
        "year": finite,
        "popularity": st.integers(0, 10**9),
        "rating": finite,
    },
)


def fields(*specs: dict[str, Any]) -> FeatureSchema:
    return parse_schema(msgspec.json.encode({"fields": specs}).decode())


def one(raw: object, **spec: Any) -> tuple[list[int], list[float]]:
    """Encode the value of a single field `f`."""
    slots = Encoder(fields({"name": "f", "entity": "item", **spec}), "item").encode({"f": raw})
    return slots.keys.tolist(), slots.values.tolist()


def same(a: Slots, b: Slots) -> bool:
    return np.array_equal(a.keys, b.keys) and np.array_equal(a.values, b.values, equal_nan=True)


STABLE = """
import sys
import numpy as np
from app.features.encoder import LEAST_ROWS, Encoder
from tests.factories import raw_context, raw_item, raw_user, small_schema
schema, ids = small_schema(), [str(n) for n in range(20)]
user = Encoder(schema, "user").encode_many([raw_user(n) | raw_context(n) for n in range(20)], ids)
item = Encoder(schema, "item").encode_many([raw_item(n) for n in range(20)], ids)
sys.stdout.buffer.write(b"".join(np.ascontiguousarray(a).tobytes() for a in (*user, *item)))
"""


def test_the_same_in_every_process() -> None:
    """The other process hashes strings with another seed, and has imported nothing else."""
    ids = [str(n) for n in range(20)]
    user = Encoder(SCHEMA, "user").encode_many([raw_user(n) | raw_context(n) for n in range(20)], ids)
    item = Encoder(SCHEMA, "item").encode_many([raw_item(n) for n in range(20)], ids)
    here = b"".join(np.ascontiguousarray(part).tobytes() for part in (*user, *item))
    environment = {**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    command = [sys.executable, "-W", "ignore", "-c", STABLE]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=True, capture_output=True)
    assert run.stdout == here
    assert len(here) == 20 * (USER.width + ITEM.width) * 12


def test_keys_are_the_published_hash() -> None:
    """xxh3_64 of UTF-8 bytes, so that any language can write them; these numbers must never change."""
    assert slot_key("") == 0x2D06800538D394C2, "xxh3_64 of nothing, from the reference implementation"
    assert one("Drama", type="categorical", space="genre")[0] == [slot_key("genre\x1fDrama")]
    assert slot_key("genre\x1fDrama") == 3428881231493753841
    assert one("1", type="numeric") == ([slot_key("f\x1d")], [1.0])
    assert one(None, type="categorical", space="genre") == ([slot_key("f\x1e")], [1.0])


@given(json_raws, scalars)
@example({"age": "1_000"}, "1")
@example({"age": 10**400, "gender": "\ud800"}, "\udfff")
@example({"liked_genres": "[" * 100_000}, None)
@example({"liked_genres": {"a": 1e308, "b": 1e308}}, None)
@example({"liked_genres": {"a": 5e-324}}, None)
@example({"liked_genres": {"a": math.inf}, "genres": [[]], "tags": [{}]}, None)
@example({"genres": '["a", 1' + "0" * 5000 + "]"}, None)
@example({"age": "9" * 5000}, None)
@example({"age": "\u0663"}, None)
@settings(max_examples=150)
def test_any_json_value_encodes_or_raises_the_one_error(raw: dict[str, Any], entity_id: Any) -> None:
    for encoder in (USER, ITEM):
        refused: list[str] = []
        slots = encoder.encode(raw, entity_id, on_invalid=refused.append)
        assert slots.keys.shape == slots.values.shape == (encoder.width,)
        assert (slots.keys.dtype.name, slots.values.dtype.name) == ("int64", "float32")
        assert not np.isinf(slots.values).any()
        assert set(refused) <= {field.name for field in encoder.fields}
        if refused:
            with pytest.raises(EncodingError) as error:
                encoder.encode(raw, entity_id)
            assert error.value.field == refused[0]
        else:
            assert same(slots, encoder.encode(raw, entity_id))


@given(good_users, st.randoms())
def test_the_order_of_fields_is_irrelevant(raw: dict[str, Any], dice: Any) -> None:
    shuffled = list(raw.items())
    dice.shuffle(shuffled)
    assert same(USER.encode(raw, "1"), USER.encode(dict(shuffled) | {"unknown": object()}, "1"))


@given(good_users, good_items)
def test_text_from_redis_encodes_as_the_json_of_a_request(user: dict[str, Any], item: dict[str, Any]) -> None:
    assert same(USER.encode(user, "1"), USER.encode(redis_text(user), "1"))
    assert same(ITEM.encode(item, "1"), ITEM.encode(redis_text(item), "1"))


@given(good_items, good_items)
def test_a_patch_is_the_encoding_of_the_merged_values(stored: dict[str, Any], override: dict[str, Any]) -> None:
    before = ITEM.encode(stored, "7")
    copied = Slots(before.keys.copy(), before.values.copy())
    assert same(ITEM.patch(before, override), ITEM.encode(stored | override, "7"))
    assert same(before, copied), "the stored slots are shared and must not change"


def test_a_patch_reaches_every_field_of_one_raw_name_and_never_the_id() -> None:
    stored = raw_user(1) | raw_context(1)
    patched = USER.patch(USER.encode(stored, "1"), {"age": 33, "user_id": "2", "gender": None})
    assert same(patched, USER.encode(stored | {"age": 33, "gender": None}, "1"))
    with pytest.raises(EncodingError):
        USER.patch(patched, {"age": "old"})


@settings(max_examples=40)
@given(st.lists(good_items, max_size=4), st.sampled_from([1, LEAST_ROWS // 2]))
def test_many_and_columns_are_row_by_row(rows: list[dict[str, Any]], times: int) -> None:
    rows = times * rows
    ids = [str(number % 3) for number in range(len(rows))]
    many = ITEM.encode_many(rows, ids)
    names = {name for row in rows for name in row}
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names} | {"item_id": list(ids)}
    table = ITEM.encode_columns(columns, len(rows))
    assert many.keys.shape == table.keys.shape == (len(rows), ITEM.width)
    assert same(many, table)
    for number, row in enumerate(rows):
        assert same(Slots(many.keys[number], many.values[number]), ITEM.encode(row, ids[number]))


@settings(max_examples=40)
@given(st.lists(st.tuples(good_items, good_items), max_size=6))
def test_patches_of_many_are_those_of_each(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    many = ITEM.encode_many([stored for stored, _ in pairs], ["7"] * len(pairs))
    patches = {row: override for row, (_, override) in enumerate(pairs) if row % 3}
    ITEM.patch_many(many, patches)
    for row, (stored, _) in enumerate(pairs):
        assert same(Slots(many.keys[row], many.values[row]), ITEM.encode(stored | patches.get(row, {}), "7"))


def test_a_patch_of_many_with_a_value_that_fits_no_slot_is_refused_by_its_field() -> None:
    many = ITEM.encode_many([{}, {}], ["1", "2"])
    with pytest.raises(EncodingError, match=r"^year: "):
        ITEM.patch_many(many, {0: {"rating": 1}, 1: {"year": "old", "item_id": "3"}})


@settings(max_examples=15)
@given(st.lists(json_values, min_size=1, max_size=3))
def test_of_many_each_value_that_fits_no_slot_is_counted(values: list[Any]) -> None:
    rows = [{"genres": value, "popularity": value} for value in values] * LEAST_ROWS
    one_by_one: list[str] = []
    for row in rows:
        ITEM.encode(row, "1", one_by_one.append)
    many: list[str] = []
    ITEM.encode_many(rows, ["1"] * len(rows), many.append)
    assert sorted(many) == sorted(one_by_one)


@given(st.lists(json_values, max_size=12))
def test_columns_of_anything_are_row_by_row_too(column: list[Any]) -> None:
    rows = [{"genres": value, "popularity": value} for value in column]
    refused: list[str] = []
    columns = ITEM.encode_columns({"genres": column, "popularity": column}, len(column), on_invalid=refused.append)
    assert same(columns, ITEM.encode_many(rows, [None] * len(rows), on_invalid=lambda _: None))


def test_columns_tell_values_apart_that_python_calls_equal() -> None:
    encoder = Encoder(fields({"name": "f", "entity": "item", "type": "categorical"}), "item")
    column = [1, True, 1.0, "1", 0, False, -0.0, "true", "1.0", "-0.0", "1.00", "01.0"]
    keys = encoder.encode_columns({"f": column}, len(column)).keys[:, 0].tolist()
    assert keys == [encoder.encode({"f": value}).keys[0] for value in column]
    assert keys[0] == keys[2] == keys[3]
    assert keys[1] == keys[7] != keys[0]
    assert keys[4] == keys[6] != keys[5]
    assert (keys[8], keys[9], keys[10]) == (keys[0], keys[4], keys[0]), "decimals and floats with a null are written so"
    assert keys[11] not in keys[:11], "any other text is itself"


@given(weights)
@example({"0.0": 1.0})
def test_mean_weights_sum_to_one_and_sums_are_kept(value: dict[str, float]) -> None:
    names = [canonical_text(name, "f") for name in value]
    assume(len(set(names)) == len(names))
    spec = {"type": "multi_categorical", "weighted": True, "max_length": 6}
    keys, mean = one(value, **spec)
    assert sum(mean) == pytest.approx(1.0, abs=1e-6)
    assert all(0 <= weight <= 1 for weight in mean)
    if any(value.values()):
        total = sum(value.values())
        expected = {
            slot_key("f\x1f" + name): weight / total for name, weight in zip(names, value.values(), strict=True)
        }
        assert dict(zip(keys[: len(value)], mean, strict=False)) == pytest.approx(expected, abs=1e-6)
    if value:
        _, summed = one(value, **spec, pooling="sum")
        assert summed[: len(value)] == pytest.approx(list(value.values()))
        assert summed[len(value) :] == [0.0] * (6 - len(value))


def test_padding_is_empty_and_missing_has_a_key_of_its_own() -> None:
    spec = {"type": "multi_categorical", "max_length": 4}
    assert one(["a", "b"], **spec) == ([slot_key("f\x1fa"), slot_key("f\x1fb"), EMPTY_KEY, EMPTY_KEY], [0.5, 0.5, 0, 0])
    missing = ([slot_key("f\x1e"), EMPTY_KEY, EMPTY_KEY, EMPTY_KEY], [1.0, 0.0, 0.0, 0.0])
    nothings: list[Any] = [None, "", [], "[]", [None], ["", None], {}, "{}"]
    for nothing in nothings:
        assert one(nothing, **spec, weighted=True) == missing
    assert one({"a": 0.0}, **spec, weighted=True) == missing, "weights of nothing but zero average to nothing"


def test_the_first_or_the_heaviest_are_kept() -> None:
    spec = {"type": "multi_categorical", "max_length": 2, "pooling": "sum"}
    assert one(["a", "b", "c"], **spec)[0] == [slot_key("f\x1fa"), slot_key("f\x1fb")]
    keys, values = one({"a": 1, "b": -3, "c": 2}, **spec, weighted=True)
    assert (keys, values) == ([slot_key("f\x1fb"), slot_key("f\x1fc")], [-3.0, 2.0])


def test_separators_apply_to_text_that_is_not_json() -> None:
    spec = {"type": "multi_categorical", "separator": "|", "max_length": 3}
    assert one("a|b", **spec) == one(["a", "b"], **spec) == one('["a", "b"]', **spec)
    assert one("a||b|", **spec) == one(["a", "b"], **spec)
    assert one("a|b", type="multi_categorical", max_length=3) == one(["a|b"], **spec)


def test_a_shared_space_shares_keys_and_fields_do_not() -> None:
    user, item = USER.encode({"liked_genres": ["Drama"]}), ITEM.encode({"genres": ["Drama"]})
    assert set(user.keys.tolist()) & set(item.keys.tolist()) == {slot_key("genre\x1fDrama"), EMPTY_KEY}
    assert one("x", type="categorical")[0] != one("x", type="categorical", space="other")[0]


def test_defaults_stand_in_for_what_is_absent_null_or_empty() -> None:
    given_default = USER.encode({"gender": "unknown"}, "1")
    for nothing in ({}, {"gender": None}, {"gender": ""}):
        assert same(USER.encode(nothing, "1"), given_default)
    assert one(None, type="numeric", default=7) == one(7, type="numeric")
    assert math.isnan(one(None, type="numeric")[1][0])
    assert math.isnan(one("nan", type="numeric")[1][0]), "a NaN is how tables write missing"
    assert one(math.nan, type="numeric", default=7) == one(7, type="numeric")
    genres = {"type": "multi_categorical", "max_length": 2}
    for empty in ([], "[]", [None], [""]):
        assert one(empty, **genres, default=["a"]) == one(["a"], **genres)


def test_what_the_store_holds_wrongly_counts_as_missing_and_is_told() -> None:
    raw = {"genres": "[not json", "year": "soon", "popularity": 3}
    refused: list[str] = []
    slots = ITEM.encode(raw, "1", on_invalid=refused.append)
    assert refused == ["genres", "year"]
    assert same(slots, ITEM.encode({"popularity": 3}, "1"))


NOT_NUMBERS: list[Any] = ["abc", "1_0", "0x10", "inf", "1e999", 1e39, -1e39, 2**200, math.inf, [], [1], {}, "1,5"]
NOT_CATEGORIES: list[Any] = [
    math.nan,
    math.inf,
    2**128,
    -(2**128),
    2.0**60,
    "1.5E300",
    b"\xff",
    [],
    ["a"],
    {},
    "\ud800",
]
NOT_LISTS: list[Any] = [{"a": 1}, "[1", "{", [["a"]], ["\udc00"], [math.nan]]
NOT_WEIGHTS: list[Any] = [{"a": w} for w in ("1", True, -1, math.nan, 1e39, 2**200)] + ['{"a": 1e999}']


@pytest.mark.parametrize(
    ("spec", "value"),
    [({"type": "numeric"}, value) for value in NOT_NUMBERS]
    + [({"type": "categorical"}, value) for value in NOT_CATEGORIES]
    + [({"type": "multi_categorical"}, value) for value in NOT_LISTS]
    + [({"type": "multi_categorical", "weighted": True}, value) for value in NOT_WEIGHTS],
    ids=lambda part: repr(part)[:40].encode("ascii", "replace").decode(),
)
def test_values_no_slot_can_hold(spec: dict[str, Any], value: object) -> None:
    with pytest.raises(EncodingError) as refused:
        one(value, **spec)
    assert refused.value.field == "f"
    assert refused.value.status == 422
    assert len(str(refused.value)) < 200


@given(st.integers(-(2**53), 2**53))
def test_one_spelling_per_number(number: int) -> None:
    assert canonical_text(number, "f") == canonical_text(float(number), "f") == str(number)


def test_the_id_comes_from_the_request_alone() -> None:
    assert same(ITEM.encode({"item_id": "9"}, "7"), ITEM.encode({}, "7"))
    assert not same(ITEM.encode({}, "9"), ITEM.encode({}, "7"))
    assert (USER.id_source, ITEM.id_source) == ("user_id", "item_id")
    assert same(ITEM.encode({"item_id": "9"}, None), ITEM.encode({}, None))


def test_context_is_on_the_request_side() -> None:
    assert [field.name for field in USER.fields][-2:] == ["hour", "session_length"]
    assert USER.width + ITEM.width == sum(field.width for field in SCHEMA.fields)


def test_a_field_counts_as_missing_without_its_default() -> None:
    raw = raw_item(1)
    slots = ITEM.encode(raw, "1")
    copies, names = ITEM.without_each(slots)
    assert names == ["item_id", "genres", "tags", "year", "popularity", "rating"]
    without = Slots(copies.keys[names.index("year")], copies.values[names.index("year")])
    slot = sum(field.width for field in ITEM.fields[: [field.name for field in ITEM.fields].index("year")])
    assert math.isnan(without.values[slot])
    assert np.array_equal(np.delete(without.values, slot), np.delete(slots.values, slot))


def test_only_fields_with_a_value_are_made_missing_and_all_that_read_one_name_together() -> None:
    assert ITEM.without_each(ITEM.encode({}, "1"))[1] == ["item_id", "year"], "a default is a value"
    copies, names = USER.without_each(USER.encode({"age": 30, "liked_genres": {"Drama": 1.0}}, "1"))
    assert names == ["user_id", "gender", "age", "liked_genres"]
    missing = Encoder(SCHEMA, "user").encode({"liked_genres": {"Drama": 1.0}}, "1")
    assert same(Slots(copies.keys[2], copies.values[2]), missing), "age and age_group"
