"""Columns may be called anything: their fields have legal names, and read them by `source`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SchemaError
from app.features.encoder import Encoder
from app.features.schema import parse_schema
from app.training.data.catalogue import open_dataset
from app.training.data.field_names import FIELD_NAME, field_names
from app.training.data.schema_proposal import propose_schema
from app.training.preprocessing.encode import encode
from tests.shared_cases import case


@given(st.lists(st.text(min_size=1, max_size=70), unique=True, max_size=8))
def test_names_are_legal_and_differ(columns: list[str]) -> None:
    names = field_names(columns)
    assert list(names) == columns
    assert all(FIELD_NAME.fullmatch(name) for name in names.values())
    assert len(set(names.values())) == len(columns)
    for column, name in names.items():
        assert name == column or name not in columns


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("101", "f101"),
        ("109_14", "f109_14"),
        ("_c0", "c0"),
        ("user_id:token", "user_id"),
        ("genre:token_seq", "genre"),
        ("商品ID", "item_ID"),
        ("用户", "user"),
        ("标题", "column_1"),
        ("prénom", "prenom"),
        ("Price (EUR)", "Price_EUR"),
        ("Unnamed: 0", "Unnamed_0"),
        ("user.id", "user.id"),
        ("#id", "id"),
        ("$", "column_1"),
    ],
)
def test_forms_of_names(column: str, name: str) -> None:
    assert field_names([column]) == {column: name}


FILES = {
    "12/ali_ccp_like.csv": ({"101", "121", "205", "109_14", "D109_14", "301"}, "click", None),
    "12/chinese.csv": ({"用户ID", "商品ID", "价格"}, "点击", None),
    "12/recbole_like.tsv": (
        {"user_id:token", "item_id:token", "genre:token_seq"},
        "label:float",
        "timestamp:float",
    ),
    "12/spark_no_names.csv": ({"_c1", "_c2", "_c3"}, "_c0", None),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_proposed_for_reported_files_reads_all_their_columns(name: str, tmp_path: Path) -> None:
    columns, label, timestamp = FILES[name]
    proposal = propose_schema(case(name))
    assert (proposal.label, proposal.timestamp) == (label, timestamp)
    schema = parse_schema(proposal.text)
    assert {field.raw_name for field in schema.fields} == columns
    features = tmp_path / "features.yaml"
    features.write_text(proposal.text)
    data = open_dataset("table", case(name), features=features, label=label, timestamp=timestamp)
    assert len(data) == 400
    assert len(encode(data).item.keys) == 400


def test_ids_are_known_by_names_of_recbole_and_in_chinese() -> None:
    for name in ("12/chinese.csv", "12/recbole_like.tsv"):
        fields = parse_schema(propose_schema(case(name)).text).fields
        ids = {field.entity: field.raw_name for field in fields if getattr(field, "id", False)}
        assert ids in ({"user": "用户ID", "item": "商品ID"}, {"user": "user_id:token", "item": "item_id:token"})


ODD = [
    "101",
    "a b",
    'quo"te',
    "back\\slash",
    "new\nline",
    "a,b",
    "é",
    "😀",
    "a=b",
    "x:y",
    "[z]",
    "{k: v}",
    "- -",
    "yes",
    "~",
]


def test_any_name_is_read_from_every_format_and_encoded_alike(tmp_path: Path) -> None:
    rows = [{"click": n % 2, **{name: f"{name}{n * k % 7}" for k, name in enumerate(ODD, 1)}} for n in range(40)]
    frame = pl.DataFrame(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([frame.columns, *frame.rows()])
    (tmp_path / "a.csv").write_bytes(text.getvalue().encode())
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    features = tmp_path / "features.yaml"
    texts = []
    for suffix in ("csv", "parquet", "jsonl"):
        proposal = propose_schema(tmp_path / f"a.{suffix}")
        texts.append(proposal.text.replace(f"a.{suffix}", "a"))
        features.write_text(proposal.text)
        data = open_dataset("table", tmp_path / f"a.{suffix}", features=features, label="click")
        slots = encode(data)
        schema = parse_schema(proposal.text)
        for side in ("user", "item"):
            for row in (0, 39):
                encoder = Encoder(schema, side)
                alone = encoder.encode(rows[row], None)
                assert slots.side(side).keys[row].tolist() == alone.keys.tolist()
    assert texts[0] == texts[1] == texts[2]


def test_a_number_for_a_name_is_refused_with_what_to_do() -> None:
    text = "fields:\n  - {name: f101, source: 101, entity: user, type: categorical}\n"
    with pytest.raises(
        SchemaError, match=r"features.yaml:2: field 'f101', source: .*; write the column's name in quotes"
    ):
        parse_schema(text)
    with pytest.raises(SchemaError, match="name the field otherwise, and the column as it is called in `source`"):
        parse_schema('fields:\n  - {name: "101", entity: user, type: categorical}\n')
