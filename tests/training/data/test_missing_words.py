"""A column of numbers stays one, and a schema declares the words that stand for missing categories."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.features.schema import parse_schema
from app.training.data.missing_words import doubtful_words, missing_words, without_missing_words
from app.training.data.schema_proposal import propose_schema
from tests.shared_cases import case


def test_words_among_numbers_are_null() -> None:
    numbers = pl.Series(["1", "NULL", " na ", "2.5", "\\N", None])
    assert without_missing_words(numbers).to_list() == ["1", None, None, "2.5", None, None]
    for text in (["a", "NULL"], ["NULL", "NA"], ["1", "2"]):
        assert without_missing_words(pl.Series(text)).to_list() == text


def test_words_that_are_no_categories() -> None:
    assert missing_words(pl.Series(["NULL", "a", "\\N", "NA", "None", None])) == ["NULL", "\\N"]
    assert missing_words(pl.Series([1, 2])) == []


def test_a_proposal_declares_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    ages = ["NULL" if n % 9 == 3 else str(n * 7 % 61) for n in range(300)]
    cities = ["NULL" if n % 5 == 0 else "ab"[n % 3 % 2] for n in range(300)]
    rows = "".join(f"{n % 2},{age},{city}\n" for n, (age, city) in enumerate(zip(ages, cities, strict=True)))
    path.write_text("clicked,age,city\n" + rows)
    schema = parse_schema(propose_schema(path, label="clicked").text)
    fields = {field.name: field for field in schema.fields}
    assert fields["age"].type == "numeric"
    assert (fields["city"].type, fields["city"].missing) == ("categorical", ("NULL",))


def test_words_that_may_be_categories_are_named_with_how_to_declare_them(tmp_path: Path) -> None:
    """They are not declared: `NA` is Namibia, and `none` may be an answer."""
    path = tmp_path / "rows.csv"
    countries = [("NA", "DE", "N/A", "-", "NULL", "FR")[n // 2 % 6] for n in range(300)]
    path.write_text("clicked,country\n" + "".join(f"{n % 2},{country}\n" for n, country in enumerate(countries)))
    text = propose_schema(path, label="clicked").text
    hint = "'-', 'N/A', 'NA' count as categories: where they say that nothing is known, write missing: "
    assert hint + '["NULL", "-", "N/A", "NA"]' in text
    (field,) = parse_schema(text).fields
    assert field.missing == ("NULL",)
    assert doubtful_words(pl.Series([1, 2])) == []
    path.write_text("clicked,price\n" + "".join(f"{n % 2},{n * 7 % 61 + 0.5 if n % 9 else 'NA'}\n" for n in range(300)))
    assert "count as categories" not in propose_schema(path, label="clicked").text


def test_words_among_codes_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    hours = ["\\N" if n % 50 == 7 else "n/a" if n % 50 == 9 else str(n * 7 % 5) for n in range(300)]
    path.write_text("clicked\thour\n" + "".join(f"{n % 2}\t{hour}\n" for n, hour in enumerate(hours)))
    (field,) = parse_schema(propose_schema(path, label="clicked").text).fields
    assert (field.type, field.missing) == ("categorical", ("\\N", "n/a"))


def test_reported_files_are_proposed_with_their_types() -> None:
    for name, kinds in {
        "13/missing_words.csv": {"age": "numeric", "category": "categorical"},
        "10/clicks_map.parquet": {"tastes": "multi_categorical"},
        "11/clicks_binary.parquet": {"user_id": "categorical", "category": "categorical"},
        "01/clicks_decimal.parquet": {"user_id": "categorical", "price": "numeric"},
    }.items():
        proposal = propose_schema(case(name), label="clicked")
        types = {field.name: field.type for field in parse_schema(proposal.text).fields}
        assert {field: types.get(field) for field in kinds} == kinds, name
