from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, DataError
from app.features import catalogue as module
from app.features.catalogue import Catalogue, Entries

FILMS = [
    {"id": 1, "title": "Alien", "genres": {"Horror": 1.0, "Sci-Fi": 1.0}, "year": 1979.0},
    {"id": "2", "title": "Aliens", "genres": ["Action", "Sci-Fi"], "year": 1986},
    {"id": "3", "title": "Amélie", "genres": '["Comedy"]', "year": 2001},
    {"id": "4", "genres": "Comedy|Drama", "year": None},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(film) + "\n" for film in FILMS))
    (tmp_path / "users.csv").write_text("user_id,age,name\n7,31,Ada\n8,64,\n")
    return tmp_path


def test_titles_and_features_are_found(folder: Path) -> None:
    items = Catalogue(folder).entries("items")
    assert [entry.id for entry in items.search("ALIEN").entries] == ["1", "2"]
    assert items.search("amé").entries[0].features == {"genres": "Comedy", "year": "2001"}
    assert [entry.id for entry in items.search("4").entries] == ["4"], "an id is found though it has no title"
    assert items.search("", limit=2).total == 4
    assert [entry.id for entry in items.search("", ("genres", "Sci-Fi")).entries] == ["1", "2"]
    assert [entry.id for entry in items.search("aliens", ("genres", "Sci-Fi")).entries] == ["2"]
    assert items.search("", ("genres", "Western")).total == items.search("", ("colour", "red")).total == 0
    assert items.facets["genres"][:2] == ["Sci-Fi", "Comedy"], "the most frequent first"
    assert [entry.title for entry in items.by_ids(["3", "nobody", "1"])] == ["Amélie", "Alien"]


def test_users_have_names_and_features(folder: Path) -> None:
    users = Catalogue(folder).entries("users")
    assert [(entry.id, entry.title, entry.features) for entry in users.search("ada").entries] == [
        ("7", "Ada", {"age": "31"})
    ]
    assert len(Catalogue(folder / "items.jsonl").entries("users")) == 0, "a file is of items alone"


def test_more_than_is_held_is_left_out_and_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    items = Catalogue(folder).entries("items")
    assert (len(items), items.complete) == (3, False)
    assert Catalogue(folder).entries("users").complete


def test_a_file_of_nearly_the_name_is_passed_over(folder: Path) -> None:
    (folder / "items.backup.csv").write_text("id,title\n9,Old\n")
    (folder / "users.csv.bak").write_text("id\n9\n")
    assert [entry.id for entry in Catalogue(folder).entries("items").search("old").entries] == []
    assert len(Catalogue(folder).entries("users")) == 2


def test_odd_cells_are_shown_and_harm_nobody(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    rows = [{"id": 1, "title": "a" * 5000, "deep": "[" * 100_000, "tags": "Drama|", "long": "x" * 300_000}]
    rows += [{"id": 2, "title": math.nan, "deep": "[1]", "tags": ["Drama"], "long": "y" * 300_000}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows).replace("NaN", "null"))
    items = Catalogue(file).entries("items")
    assert [(entry.id, len(entry.title)) for entry in items.search().entries] == [("1", 200), ("2", 0)]
    assert "tags" not in items.facets, "both have the one value that is none of blanks"
    assert all(len(value) <= 200 for values in items.facets.values() for value in values)
    assert max(len(text) for entry in items.search().entries for text in entry.features.values()) == 200


def test_facets_are_in_the_order_of_the_columns_and_not_too_many() -> None:
    columns = [f"c{number}" for number in range(30)]
    rows = [(str(n), "", {}, {name: [str(n % 2)] for name in columns}) for n in range(4)]
    assert list(Entries(iter(rows)).facets) == columns[:20]


def test_columns_of_many_values_are_none_to_choose_by() -> None:
    rows = [(str(n), f"film {n}", {}, {"colour": [str(n % 3)], "code": [str(n)], "same": ["x"]}) for n in range(200)]
    assert list(Entries(iter(rows)).facets) == ["colour"]


def test_bad_rows_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "title": "a"}\nnot json\n{"title": "no id"}\n{"id": 1, "title": "again"}\n{"id": 2}\n')
    assert [entry.title for entry in Catalogue(file).entries("items").search().entries] == ["a", ""]


def test_ids_are_spelled_as_the_store_spells_them(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,title\n7.0,a\nTRUE,b\n")
    (tmp_path / "items.jsonl").write_text('{"id": [1], "title": "none"}\n{"id": 7.0, "title": "a"}\n')
    for file in ("items.csv", "items.jsonl"):
        (entry,) = Catalogue(tmp_path / file).entries("items").by_ids(["7"])
        assert entry.title == "a"


@pytest.mark.parametrize("named", ["none", "users.csv", "films.csv"])
def test_a_catalogue_without_items_is_refused_with_what_to_write(named: str, tmp_path: Path) -> None:
    (tmp_path / named).write_text("id\n1\n")
    with pytest.raises(ConfigError, match=r"items\.csv"):
        Catalogue(tmp_path)
    with pytest.raises(ConfigError, match="CTR_CATALOGUE"):
        Catalogue(tmp_path / "nowhere")


def test_a_file_without_ids_says_so(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("film,title\n1,Alien\n")
    with pytest.raises(DataError, match="no row can be read and has an id"):
        Catalogue(file).entries("items")


@given(
    titles=st.lists(st.text(max_size=6), max_size=20),
    text=st.text(max_size=3),
    limit=st.integers(min_value=1, max_value=9),
)
def test_a_search_is_what_going_through_all_would_find(titles: list[str], text: str, limit: int) -> None:
    entries = Entries((f"#{n}", title, {}, {}) for n, title in enumerate(titles))
    wanted = text.strip().casefold()
    expected = [n for n, title in enumerate(titles) if wanted in title.casefold()]
    exact = text.strip()
    if exact.startswith("#") and exact[1:].isdecimal() and exact in {f"#{n}" for n in range(len(titles))}:
        number = int(exact[1:])
        expected = [number, *(n for n in expected if n != number)]
    found = entries.search(text, limit=limit)
    assert found.total == len(expected)
    assert [entry.id for entry in found.entries] == [f"#{n}" for n in expected[:limit]]
