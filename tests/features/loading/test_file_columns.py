"""The columns of a file against the fields of a schema: what is refused, what is named, what may be there."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import DataError
from app.features.encoder import Encoder
from app.features.loading.file_columns import FileColumns
from tests.factories import small_schema

FIELDS = ("gender", "age", "liked_genres")


def columns(*rows: dict[str, Any] | tuple[str, ...], side: str = "user", **options: Any) -> FileColumns:
    judged = FileColumns(f"{side}s", "id", Encoder(small_schema(), "user" if side == "user" else "item"), **options)
    for row in rows:
        judged.add(dict.fromkeys(row))
    return judged


MISSPELT = {
    "a letter too many": ("agee", "age"),
    "another case": ("Age", "age"),
    "another hyphen": ("liked-genres", "liked_genres"),
    "an ending": ("liked_genre", "liked_genres"),
    "letters exchanged": ("gedner", "gender"),
    "a space before it": (" gender", "gender"),
}


@pytest.mark.parametrize("name", MISSPELT)
def test_a_misspelt_column_is_refused_with_the_field_that_it_is_named_like(name: str) -> None:
    wrong, right = MISSPELT[name]
    judged = columns(("id", *(wrong if field == right else field for field in FIELDS)))
    with pytest.raises(DataError, match=rf"{wrong} \(do you mean {right}\?\), and {right} would be erased") as refused:
        judged.check("users.csv")
    assert str(refused.value).startswith("users.csv: no field of the users reads")
    assert f"--ignore {wrong}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_column_named_otherwise_is_refused_while_a_field_goes_without() -> None:
    judged = columns(("id", "gender", "years", "liked_genres"))
    with pytest.raises(DataError, match="reads years, and age would be erased"):
        judged.check("users.csv")
    columns(("id", "gender", "years", "liked_genres"), ignored=["years"]).check("users.csv")


def test_columns_for_other_programs_are_named_where_every_field_has_its_own() -> None:
    judged = columns(("id", "user_id", *FIELDS, "event_timestamp", "age2"))
    judged.check("users.parquet")
    assert (judged.unread, judged.lacking) == (["event_timestamp", "age2"], [])


def test_what_a_request_sends_may_be_stored_and_is_not_missed() -> None:
    judged = columns(("id", *FIELDS, "hour"))
    judged.check("users.csv")
    assert (judged.unread, judged.lacking) == ([], [])


def test_fields_without_a_column_are_named_and_one_without_any_is_refused() -> None:
    judged = columns(("id", "age"))
    judged.check("users.csv")
    assert judged.lacking == ["gender", "liked_genres"]
    with pytest.raises(DataError, match=r"holds no column that a field of the users reads \(gender, age, liked_gen"):
        columns(("id",)).check("users.csv")


def test_rows_of_json_lines_are_judged_one_by_one() -> None:
    whole = ("id", *FIELDS)
    columns(whole, ("id",), ("id", "age")).check("users.jsonl")
    with pytest.raises(DataError, match=r"reads agee \(do you mean age\?\); nothing"):
        columns(whole, ("id", "gender", "agee")).check("users.jsonl")


def test_merging_erases_nothing_and_refuses_a_misspelt_column_all_the_same() -> None:
    columns(("id", "age"), merge=True).check("users.csv")
    with pytest.raises(DataError, match=r"reads agee \(do you mean age\?\); nothing was written"):
        columns(("id", "agee", "gender"), merge=True).check("users.csv")


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("user_id", "age"), "use `--id user_id`"),
        (("age", "UserID"), "use `--id UserID`"),
        (("customer_id", "age"), "use `--id customer_id`"),
        (("age", "gender"), "name the column of the ids with `--id`"),
    ],
)
def test_a_file_without_the_column_of_the_ids_is_told_which_looks_like_it(names: tuple[str, ...], hint: str) -> None:
    judged = columns(names)
    with pytest.raises(DataError, match="id: there is no such column, only") as refused:
        judged.check_ids("users.csv")
    assert hint in str(refused.value)


def test_without_a_schema_only_the_ids_are_asked_for() -> None:
    judged = FileColumns("users", "id", None)
    judged.add({"id": "1", "agee": 3})
    judged.check_ids("users.csv")
    judged.check("users.csv")
    assert (judged.unread, judged.lacking) == ([], [])
