"""`features.yaml`: a schema that fits is kept exactly; one that does not is refused by field and line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import ConfigError, SchemaError
from app.features.encoder import Encoder
from app.features.schema import load_schema, parse_schema, schema_from_json
from tests.factories import SCHEMA_YAML, small_schema

GOOD = """\
fields:
  - name: user_id
    entity: user
    type: categorical
    id: true
  - name: age
    entity: user
    type: numeric
    buckets: 4
"""


def test_a_schema_says_what_was_written() -> None:
    schema = parse_schema(GOOD)
    user_id, age = schema.fields
    assert (user_id.name, user_id.entity, user_id.type, user_id.side) == ("user_id", "user", "categorical", "user")
    assert (age.name, age.raw_name, age.width, age.default) == ("age", "age", 1, None)
    assert schema.version == 1


def test_sides_keep_the_declared_order_and_context_is_the_users() -> None:
    schema = small_schema()
    assert [field.name for field in schema.side("user")] == [
        "user_id", "gender", "age", "age_group", "liked_genres", "hour", "session_length",
    ]  # fmt: skip
    assert [field.name for field in schema.side("item")] == [
        "item_id", "genres", "tags", "year", "popularity", "rating",
    ]  # fmt: skip
    assert schema.side("user")[3].raw_name == "age"


def test_the_manifests_json_is_the_same_schema() -> None:
    schema = small_schema()
    manifest_json = msgspec.json.decode(msgspec.json.encode(schema.model_dump(mode="json")))
    assert schema_from_json(manifest_json) == schema
    assert schema_from_json(manifest_json).hash == schema.hash


def test_the_hash_tells_schemas_apart_and_layout_does_not_matter() -> None:
    assert parse_schema(GOOD).hash == parse_schema("# a note\n" + GOOD.replace("id: true", "id: True")).hash
    changes = [
        ("buckets: 4", "buckets: 5"),
        ("age", "agee"),
        ("id: true", "id: false"),
        ("user\n", "item\n"),
    ]
    hashes = {parse_schema(GOOD.replace(old, new)).hash for old, new in changes} | {parse_schema(GOOD).hash}
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize(
    ("old", "new", "line", "named"),
    [
        ("buckets: 4", "buckets: many", 9, "field 'age', buckets"),
        ("buckets: 4", "buckets: 1001", 9, "field 'age', buckets"),
        ("buckets: 4", "buckets: 4.5", 9, "field 'age', buckets"),
        ("buckets: 4", "bucket: 4", 9, "field 'age', bucket"),
        ("buckets: 4", "transforms: [log2]", 9, "field 'age', transforms"),
        ("type: numeric", "type: number", 6, "field 'age'"),
        ("    type: numeric\n", "", 6, "field 'age'"),
        ("entity: user\n    type: c", "entity: film\n    type: c", 3, "field 'user_id', entity"),
        ("id: true", "id: 1", 5, "field 'user_id', id"),
        ("name: user_id", "name: 7", 2, "field 7, name"),
        ("name: user_id", "name: 'a b'", 2, "field 'a b', name"),
        ("name: age", "nom: age", 6, "field number 2"),
        ("fields:", "features:", 1, "fields"),
    ],
)
def test_errors_name_the_field_and_the_line(old: str, new: str, line: int, named: str) -> None:
    with pytest.raises(SchemaError) as refused:
        parse_schema(GOOD.replace(old, new), origin="features.yaml")
    first = str(refused.value).splitlines()[0]
    assert first.startswith(f"features.yaml:{line}: "), first
    assert named in first
    assert isinstance(refused.value, ConfigError)


def test_every_complaint_has_its_line() -> None:
    bad = GOOD.replace("id: true", "id: maybe").replace("buckets: 4", "buckets: -1")
    with pytest.raises(SchemaError) as refused:
        parse_schema(bad)
    assert [line.split(" ")[0] for line in str(refused.value).splitlines()] == ["features.yaml:5:", "features.yaml:9:"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "  - {name: age, entity: item, type: numeric}\n", "'age' is declared twice"),
        (GOOD + "  - {name: other, entity: user, type: categorical, id: true}\n", "both claim to be the user id"),
        (GOOD + "  - {name: c, entity: context, type: categorical, id: true}\n", "context has no id"),
        ("", "expected a mapping"),
        ("- a\n- b\n", "expected a mapping"),
        ("just text", "expected a mapping"),
        ("fields: []", "fields"),
        ("fields: {a: 1}", "fields"),
        ("fields: [1, null, [2]]", "field number 1"),
        ("fields: [", "not YAML"),
        ("fields: !!python/object/apply:os.system [echo]", "not YAML"),
        ("fields:\n  - &a [*a]", "features.yaml:2: *a: aliases are not read"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nfields: [*b, *b]", "features.yaml:2: *a: aliases are not read"),
        ("? [a, b]\n: 1\n", "features.yaml"),
        ("fields: " + "[" * 5000, "not YAML"),
        ("\x00", "not YAML"),
        (GOOD.replace("version: 1", "") + "version: 2\n", "version"),
        (GOOD + "extra: 1\n", "extra"),
    ],
)
def test_what_is_no_schema_is_one_clear_error(text: str, says: str) -> None:
    with pytest.raises(SchemaError, match=r"features\.yaml") as refused:
        parse_schema(text)
    assert says in str(refused.value)


@given(st.text(max_size=60))
@example("{a: !!set {b}}")
@example("&a {fields: *a}")
@example("<<: 1")
@example("=: 1")
@example("fields: [{name: {}, entity: []}]")
def test_any_text_is_a_schema_or_the_one_error(text: str) -> None:
    try:
        parse_schema(text)
    except SchemaError:
        return


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
@example({"fields": [None]})
@example({"fields": 3})
@example({"fields": 2**70})
@example({"fields": "\ud800"})
@example({"fields": "ab"})
def test_any_json_in_a_manifest_is_a_schema_or_the_one_error(raw: object) -> None:
    with pytest.raises(SchemaError):
        schema_from_json(raw)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(SCHEMA_YAML, encoding="utf-8")
    assert load_schema(tmp_path / "features.yaml") == small_schema()
    (tmp_path / "latin.yaml").write_bytes(b"fields: \xe9")
    for path in (tmp_path / "absent.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(SchemaError, match=r"cannot be read"):
            load_schema(path)


@pytest.mark.parametrize(
    ("spec", "default"),
    [
        ("numeric", "seven"), ("numeric", "'7'"), ("numeric", "[1]"), ("numeric", "1.0e+39"), ("numeric", "true"),
        ("categorical", "[a]"), ("categorical", "{a: 1}"),
        ("multi_categorical", "7"), ("multi_categorical", "[[a]]"), ("multi_categorical", "{a: b}"),
    ],
)  # fmt: skip
def test_a_default_must_fit_its_field(spec: str, default: str) -> None:
    """A default that cannot be encoded would fail every request that lacks the field."""
    with pytest.raises(SchemaError, match=r"features\.yaml:4: field 'x', default"):
        parse_schema(f"fields:\n  - name: x\n    entity: item\n    default: {default}\n    type: {spec}\n")


def test_a_default_that_fits_the_type_but_not_the_field() -> None:
    with pytest.raises(SchemaError, match="field 'x', default"):
        Encoder(parse_schema("fields: [{name: x, entity: item, type: multi_categorical, default: {a: 1}}]"), "item")


def test_a_manifest_of_before_keeps_its_hash_and_its_reading() -> None:
    manifest_json = msgspec.json.decode(msgspec.json.encode(small_schema().model_dump(mode="json")))
    del manifest_json["reading"], manifest_json["missing"]
    for field in manifest_json["fields"]:
        del field["missing"]
    schema = schema_from_json(manifest_json)
    assert schema.reading == 1
    assert schema.hash.startswith("b2722c7d2bfa3f62"), "as it was computed before there were readings"
    assert schema.hash != small_schema().hash


def test_an_old_version_tells_spellings_apart_and_a_new_one_does_not() -> None:
    fields = "fields: [{name: x, entity: item, type: categorical}]"
    keys = {
        reading: {
            int(Encoder(parse_schema(f"reading: {reading}\n{fields}"), "item").encode({"x": value}).keys[0])
            for value in ("True", "true", True)
        }
        for reading in (1, 2)
    }
    assert (len(keys[1]), len(keys[2])) == (2, 1)


def test_missing_words_count_in_every_field_or_in_one() -> None:
    schema = parse_schema("""\
missing: ["NULL", -1]
fields:
  - {name: a, entity: item, type: categorical}
  - {name: b, entity: item, type: categorical, missing: [unknown], default: z}
  - {name: c, entity: item, type: numeric, missing: [999, "?"]}
""")
    encoder = Encoder(schema, "item")
    nothing = encoder.encode({})
    for raw in (
        {"a": "NULL"},
        {"a": -1, "b": "-1.0"},
        {"b": "unknown"},
        {"c": "999.0"},
        {"c": 999},
        {"c": " ? "},
        {"c": -1},
    ):
        np.testing.assert_array_equal(encoder.encode(raw).keys, nothing.keys)
        np.testing.assert_array_equal(encoder.encode(raw).values, nothing.values)
        columns = {name: [value, value] for name, value in raw.items()}
        np.testing.assert_array_equal(encoder.encode_columns(columns, 2).keys[1], nothing.keys)
    assert encoder.encode({"a": "unknown"}).keys[0] != nothing.keys[0]
    assert schema.hash != parse_schema("fields: [{name: a, entity: item, type: categorical}]").hash


def test_null_is_quoted() -> None:
    with pytest.raises(SchemaError, match=r"quote it .*YAML reads it as nothing"):
        parse_schema("missing: [NULL]\nfields: [{name: a, entity: item, type: categorical}]")
