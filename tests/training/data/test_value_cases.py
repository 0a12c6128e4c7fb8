"""Reported files whose values are written in another way train, load and are asked for as the plain ones are."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from app.api.schemas import parse_rank
from app.errors import DataError, EncodingError
from app.features.encoder import Encoder
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_text
from app.features.schema import FeatureSchema, load_schema, parse_schema
from app.features.slots import Slots
from tests.shared_cases import case
from tests.value_doors import assert_same, loaded, requested, row, trained

SCHEMA = parse_schema("""\
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: age, entity: user, type: numeric}
  - {name: tastes, entity: user, type: multi_categorical, weighted: true, max_length: 4}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: price, entity: item, type: numeric}
  - {name: category, entity: item, type: categorical}
""")


def base(tmp_path: Path, **columns: pl.Expr) -> Path:
    """Write the yardstick with some columns replaced, by the words of a data frame and as CSV."""
    frame = pl.read_csv(case("base/clicks.csv"), infer_schema=False).with_columns(**columns)
    frame.write_csv(tmp_path / "plain.csv")
    return tmp_path / "plain.csv"


def base_schema() -> FeatureSchema:
    return load_schema(case("base/features.yaml"))


def assert_trained_alike(one: Path, other: Path, schema: FeatureSchema) -> None:
    expected, found = trained(other, schema), trained(one, schema)
    for side in ("user", "item"):
        assert_same(found[side], expected[side])


WITHOUT_LETTER = {name: pl.col(name).str.slice(1) for name in ("user_id", "item_id")}


@pytest.mark.parametrize("name", ["clicks_decimal", "clicks_decimal_label"])
def test_01_decimals(name: str, tmp_path: Path) -> None:
    assert_trained_alike(case(f"01/{name}.parquet"), base(tmp_path, **WITHOUT_LETTER), base_schema())


def test_01_decimals_of_items(tmp_path: Path) -> None:
    items = loaded(case("01/items_decimal.parquet"), base_schema(), "item")
    rows = trained(case("01/clicks_decimal.parquet"), base_schema())["item"]
    ids = pl.read_csv(base(tmp_path, **WITHOUT_LETTER), infer_schema=False)["item_id"].to_list()
    for index, item_id in enumerate(ids):
        assert_same(row(rows, index), items[item_id])


def test_02_columns_that_no_feature_reads() -> None:
    plain = loaded(case("base/users.jsonl"), base_schema(), "user")
    for name in ("users_event_timestamp", "users_other_types"):
        for user_id, slots in loaded(case(f"02/{name}.parquet"), base_schema(), "user").items():
            assert_same(slots, plain[user_id])


def test_02_iso_text_without_a_schema() -> None:
    first = next(iter(RecordFile(case("02/users_other_types.parquet")))).values
    assert stored_text(first["born"], "born") == "1990-05-01"
    assert stored_text(first["session"], "session") == "PT300S"
    first = next(iter(RecordFile(case("02/users_event_timestamp.parquet")))).values
    assert stored_text(first["event_timestamp"], "") == "2026-11-01T12:00:00+00:00"
    assert stored_text(first["created"], "") == "2026-11-01T12:00:00"


def test_09_unsigned_ids_are_one_in_files_and_requests() -> None:
    schema = base_schema()
    text, parquet = (trained(case(f"09/clicks_u64.{kind}"), schema) for kind in ("csv", "parquet"))
    for side in ("user", "item"):
        assert_same(text[side], parquet[side])
    items = loaded(case("09/items_u64.parquet"), schema, "item")
    request = parse_rank(case("09/request.json").read_bytes(), 10)
    assert request.user_id == "10563559511108250325"
    assert request.item_ids == ["12549877395308531466", "2350495814480860978"]
    for index, item_id in enumerate(pl.read_csv(case("09/clicks_u64.csv"), infer_schema=False)["item_id"].to_list()):
        assert_same(row(text["item"], index), items[item_id])


def test_10_maps_train_as_they_load() -> None:
    users = loaded(case("10/users_map.parquet"), SCHEMA, "user")
    rows = trained(case("10/clicks_map.parquet"), SCHEMA)["user"]
    for index, user_id in enumerate(pl.read_parquet(case("10/clicks_map.parquet"))["user_id"].to_list()):
        assert_same(row(rows, index), users[user_id])


def test_11_text_as_bytes(tmp_path: Path) -> None:
    assert_trained_alike(case("11/clicks_binary.parquet"), base(tmp_path), base_schema())
    plain = loaded(case("base/items.jsonl"), base_schema(), "item")
    for item_id, slots in loaded(case("11/items_binary.parquet"), base_schema(), "item").items():
        assert_same(slots, plain[item_id])


def test_13_words_for_missing_numbers(tmp_path: Path) -> None:
    schema = base_schema()
    path = case("13/missing_words.csv")
    ages = trained(path, schema)["user"]
    texts = pl.read_csv(path, infer_schema=False)["age"].to_list()
    encoder = Encoder(schema, "user")
    for index, text in enumerate(texts):
        stored = stored_text(text, "age")
        served = encoder.encode({"age": stored} if stored else {})
        assert_same(Slots(ages.keys[index, 1:2], ages.values[index, 1:2]), Slots(served.keys[1:2], served.values[1:2]))
        assert np.isnan(ages.values[index, 1]) == (not text or not text.isdecimal())


def test_13_words_of_ones_own_are_declared(tmp_path: Path) -> None:
    path = case("13/missing_words.csv")
    words = ["NULL", "N/A", "NA", "nan", "\\N", "None", "null"]
    schema = base_schema().model_copy(update={"missing": tuple(words)})
    plain = tmp_path / "plain.csv"
    frame = pl.read_csv(path, infer_schema=False)
    frame.with_columns(pl.col("age", "category").replace(words, [None] * len(words))).write_csv(plain)
    assert_trained_alike(path, plain, schema)
    assert_same(requested(schema, "item", {"category": "NULL"}), requested(schema, "item", {}))
    assert not np.array_equal(
        requested(base_schema(), "item", {"category": "NULL"}).keys, requested(base_schema(), "item", {}).keys
    )


def test_15_ids_that_went_through_a_double() -> None:
    schema = base_schema()
    rows = trained(case("15/clicks_double_ids.csv"), schema)
    users, items = loaded(case("15/users.csv"), schema, "user"), loaded(case("15/items.csv"), schema, "item")
    frame = pl.read_csv(case("15/clicks_double_ids.csv"), infer_schema=False)
    for index, (user, item) in enumerate(zip(frame["user_id"].to_list(), frame["item_id"].to_list(), strict=True)):
        assert rows["user"].keys[index, 0] == users[str(int(float(user)))].keys[0]
        assert_same(row(rows["item"], index), items[str(int(float(item)))])
    request = parse_rank(case("15/request.json").read_bytes(), 10)
    assert Encoder(schema, "user").encode({}, request.user_id).keys[0] in rows["user"].keys[:, 0]


def test_16_booleans_are_one_category() -> None:
    schema = load_schema(case("16/features.yaml"))
    frame = pl.read_csv(case("16/clicks_bool.csv"), infer_schema=False)
    rows = trained(case("16/clicks_bool.csv"), schema)["user"]
    slot = schema.layout("user").slots["is_mobile"].start
    encoder = Encoder(schema, "user")
    contexts = [parse_rank(case(f"16/request_{name}.json").read_bytes(), 10).context for name in ("true", "text")]
    keys = {encoder.encode(context).keys[slot] for context in contexts}
    assert keys == {rows.keys[index, slot] for index, value in enumerate(frame["is_mobile"]) if value == "True"}


class TestSiblings:
    """Columns that tests write themselves, in each type beside the text that says the same."""

    FIELDS = """\
fields:
  - {name: c, entity: item, type: categorical, source: x}
  - {name: n, entity: item, type: numeric, source: x}
  - {name: m, entity: item, type: multi_categorical, source: x, max_length: 3}
  - {name: w, entity: item, type: multi_categorical, source: x, max_length: 3, weighted: true}
"""

    @staticmethod
    def schema(*names: str) -> FeatureSchema:
        whole = parse_schema(TestSiblings.FIELDS)
        return FeatureSchema(fields=tuple(field for field in whole.fields if field.name in names))

    @pytest.mark.parametrize(
        ("dtype", "values", "texts", "fields"),
        [
            (pl.Float32, [9.9, 0.1, 7.0, None], ["9.9", "0.1", "7", ""], "cn"),
            (pl.Int8, [1, -2, None], ["1", "-2", ""], "cnm"),
            (pl.UInt64, [2**64 - 1, 0, None], ["18446744073709551615", "0", ""], "cn"),
            (pl.Int128, [10**30, -5, None], [str(10**30), "-5", ""], "cn"),
            (pl.Decimal(12, 2), [Decimal("9.90"), Decimal("10.00"), None], ["9.9", "10.00", ""], "cn"),
            (pl.Decimal(38, 2), [Decimal(2**60), None], [str(2**60) + ".00", ""], "cn"),
            (pl.Boolean, [True, False, None], ["True", "FALSE", ""], "cnm"),
            (pl.Categorical, ["a", "True", None], ["a", "true", ""], "cm"),
            (pl.Enum(["a", "b"]), ["a", "b", None], ["a", "b", ""], "cm"),
            (pl.Binary, [b"a", "é".encode(), None], ["a", "é", ""], "cm"),
            (pl.List(pl.Decimal(5, 2)), [[Decimal("1.00"), Decimal("2.50")], [], None], ["[1, 2.5]", "[]", ""], "mw"),
            (pl.List(pl.Binary), [[b"a", None], None], ['["a"]', ""], "mw"),
            (pl.List(pl.Boolean), [[True, False], None], ["[true, false]", ""], "mw"),
            (pl.List(pl.Float32), [[9.9, 1.0], None], ["[9.9, 1]", ""], "mw"),
            (pl.List(pl.UInt64), [[2**64 - 1], None], ["[18446744073709551615]", ""], "mw"),
            (pl.Array(pl.Int64, 2), [[1, 2], None], ["[1, 2]", ""], "mw"),
            (
                pl.Struct({"a": pl.Float64, "b": pl.Int8}),
                [{"a": 0.5, "b": None}, {"a": None, "b": 2}, None],
                ['{"a": 0.5}', '{"b": 2}', ""],
                "w",
            ),
            (
                pl.List(pl.Struct({"key": pl.Int64, "value": pl.Decimal(4, 2)})),
                [[{"key": 1, "value": Decimal("0.50")}, {"key": 2, "value": None}], [], None],
                ['{"1": 0.5}', "{}", ""],
                "w",
            ),
        ],
        ids=str,
    )
    def test_a_column_is_encoded_as_its_text(
        self, dtype: pl.DataType, values: list[object], texts: list[str], fields: str, tmp_path: Path
    ) -> None:
        schema = self.schema(*fields)
        rows = {"id": [str(n) for n in range(len(values))], "clicked": ["1"] * len(values)}
        parquet, delimited = tmp_path / "x.parquet", tmp_path / "x.csv"
        pl.DataFrame({**rows, "x": pl.Series(values, dtype=dtype)}).write_parquet(parquet)
        pl.DataFrame({**rows, "x": texts}).write_csv(delimited)
        expected = trained(delimited, schema, timestamp=None)["item"]
        assert_same(trained(parquet, schema, timestamp=None)["item"], expected)
        for path in (parquet, delimited):
            for index, slots in loaded(path, schema, "item").items():
                assert_same(slots, row(expected, int(index)))

    @pytest.mark.parametrize(
        ("dtype", "value", "field"),
        [
            (pl.Float64, 2.0**60, "c"),
            (pl.Binary, b"\xff", "c"),
            (pl.List(pl.List(pl.Int8)), [[1]], "m"),
            (pl.List(pl.Struct({"key": pl.String, "value": pl.String})), [{"key": "a", "value": "b"}], "w"),
            (pl.Date, 1, "n"),
        ],
    )
    def test_what_no_field_can_read_is_refused_by_every_door(
        self, dtype: pl.DataType, value: object, field: str, tmp_path: Path
    ) -> None:
        rows = {"id": ["0", "1", "2"], "clicked": ["1", "0", "1"]}
        path = tmp_path / "x.parquet"
        pl.DataFrame({**rows, "x": pl.Series([value] * 3).cast(dtype)}).write_parquet(path)
        with pytest.raises(DataError, match="cannot be read as"):
            trained(path, self.schema(field), timestamp=None)
        with pytest.raises(EncodingError):
            loaded(path, self.schema(field), "item")


def test_values_of_requests(tmp_path: Path) -> None:
    schema = parse_schema("fields: [{name: x, entity: item, type: categorical}]")
    path = tmp_path / "x.csv"
    texts = ["7", "True", "9.90", "18446744073709551615", "007"]
    path.write_text("clicked,x\n" + "".join(f"1,{text}\n" for text in texts))
    rows = trained(path, schema, timestamp=None)["item"]
    values: list[list[object]] = [[7, 7.0, "7.00"], [True, "true"], ["9.90"], [2**64 - 1, str(2**64 - 1)], ["007"]]
    for index, same in enumerate(values):
        for value in same:
            assert_same(row(rows, index), requested(schema, "item", {"x": value}))
    assert msgspec.json.encode(2**64 - 1) == b"18446744073709551615"


def test_ids_that_lost_digits_are_refused_with_the_reason(tmp_path: Path) -> None:
    schema = parse_schema("fields: [{name: id, entity: item, type: categorical, id: true}]")
    path = tmp_path / "x.csv"
    path.write_text("clicked,id\n" + "1,1.2345678901234567E18\n0,7\n" * 5)
    with pytest.raises(DataError, match=r"id cannot be read as categorical in 5 of 10 rows.*has lost its last digits"):
        trained(path, schema, timestamp=None)
