"""The proposed schema has the right type and side for each column, says why, and trains on the file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from app.errors import ConfigError, DataError
from app.features.schema import parse_schema
from app.training.data.schema_proposal import propose_schema
from tests.command_line import Ctr

GENRES = ["drama", "comedy", "war", "crime"]


def impressions(rows: int = 400) -> pl.DataFrame:
    """Return impressions with every kind of column that the proposal distinguishes."""
    rng = random.Random(3)
    films = {film: (rng.sample(GENRES, 2), 1950 + film * 3, rng.lognormvariate(3, 2)) for film in range(1, 25)}
    table = []
    for n in range(rows):
        user, film = rng.randint(1, 40), rng.randint(1, 24)
        genres, year, price = films[film]
        clicked = int(rng.random() < 0.4)
        table.append(
            {
                "request": f"r{n:05}",
                "userId": user,
                "zip": f"0{user % 10}234",
                "userLikedGenres": json.dumps({genre: rng.randint(1, 5) for genre in rng.sample(GENRES, 2)}),
                "userLastMovie": rng.randint(1, 24),
                "hour": rng.randint(0, 23),
                "movieId": film,
                "genres": "|".join(genres),
                "releaseYear": year,
                "price": round(price, 2),
                "stars": 4 + rng.randint(0, 1) if clicked else rng.randint(1, 3),
                "source": "web",
                "at": 1_700_000_000 + n,
                "shoe size": rng.randint(36, 46),
                "click": clicked,
            }
        )
    return pl.DataFrame(table)


def fields_of(text: str) -> dict[str, Any]:
    return {field.name: field for field in parse_schema(text).fields}


def test_every_column_is_what_it_is_and_every_line_says_why(tmp_path: Path) -> None:
    path = tmp_path / "clicks.csv"
    impressions().write_csv(path)
    result = propose_schema(path)
    assert (result.label, result.timestamp) == ("click", "at")
    fields = fields_of(result.text)
    assert {name: (field.entity, field.type) for name, field in fields.items()} == {
        "userId": ("user", "categorical"),
        "zip": ("user", "categorical"),
        "userLikedGenres": ("user", "multi_categorical"),
        "userLastMovie": ("user", "categorical"),
        "hour": ("context", "categorical"),
        "movieId": ("item", "categorical"),
        "genres": ("item", "multi_categorical"),
        "releaseYear": ("item", "numeric"),
        "price": ("item", "numeric"),
        "shoe_size": ("context", "numeric"),
    }
    assert fields["shoe_size"].source == "shoe size"
    assert fields["userId"].id
    assert fields["movieId"].id
    assert fields["userLastMovie"].space_name == fields["movieId"].space_name
    assert (fields["genres"].separator, fields["genres"].max_length) == ("|", 2)
    assert fields["userLikedGenres"].weighted
    assert fields["userLikedGenres"].space_name == fields["genres"].space_name
    assert fields["price"].transforms == ("log1p", "standardise")
    assert fields["releaseYear"].transforms == ("standardise",)
    assert "same in 100% of the rows of one movieId" in result.text
    assert {name: reason.split()[0] for name, reason in result.left_out.items()} == {
        "click": "the", "at": "the", "request": "another", "stars": "tells", "source": "always",
    }  # fmt: skip
    lines = result.text.splitlines()
    declared = [number for number, line in enumerate(lines) if line.startswith("  - ")]
    assert all(lines[number - 1].startswith("  # ") for number in declared)


def write_jsonl(frame: pl.DataFrame, path: Path) -> None:
    rows = frame.to_dicts()
    for row in rows:
        row["userLikedGenres"], row["genres"] = json.loads(row["userLikedGenres"]), row["genres"].split("|")
    path.write_text("\n".join(json.dumps(row) for row in rows))


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    frame.with_columns(pl.col("genres").str.split("|"), pl.col("price").cast(pl.Float32)).write_parquet(path)


WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": lambda frame, path: frame.write_csv(path),
    "tsv": lambda frame, path: frame.write_csv(path, separator="\t"),
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_ctr: Ctr) -> Ctr:
    monkeypatch.chdir(tmp_path)
    return run_ctr


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_proposed_trains_on_the_file_it_came_from(ctr: Ctr, tmp_path: Path, kind: str) -> None:
    WRITERS[kind](impressions(), tmp_path / f"clicks.{kind}")
    status, out, err = ctr("schema", "infer", f"clicks.{kind}", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert {field["name"]: field["entity"] for field in result["schema"]["fields"]}["genres"] == "item"
    (tmp_path / "features.yaml").write_text(result["yaml"])
    status, out, err = ctr(
        "train", "--dataset", "table", "--data", f"clicks.{kind}", "--features", "features.yaml",
        "--label", result["label"], "--timestamp", result["timestamp"], "--model", "lr", "--epochs", "1", "--json",
    )  # fmt: skip
    assert status == 0, err
    assert "note:" not in err, "every value of every field fits"


def test_the_text_goes_to_standard_output_or_to_a_new_file(ctr: Ctr, tmp_path: Path) -> None:
    impressions().write_csv("clicks.csv")
    status, out, err = ctr("schema", "infer", "clicks.csv")
    assert status == 0
    assert fields_of(out)
    assert "ctr train --dataset table --data clicks.csv" in err
    assert ctr("schema", "infer", "clicks.csv", "--out", "features.yaml")[0] == 0
    assert (tmp_path / "features.yaml").read_text() == out
    status, _, err = ctr("schema", "infer", "clicks.csv", "--out", "features.yaml")
    assert status == 1
    assert "is there already" in err


def test_what_it_cannot_know_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,c\n" + "".join(f"{n % 2},{n // 2 % 2},x{n % 5}\n" for n in range(40)))
    with pytest.raises(
        ConfigError, match=r"several columns are 0 or 1 throughout \(a, b\): name the label with --label"
    ):
        propose_schema(path)
    fields = fields_of(propose_schema(path, label="b", user_id="c").text)
    assert fields["c"].id
    assert fields["a"].entity == "context"
    with pytest.raises(ConfigError, match="no column d"):
        propose_schema(path, label="d")
    path.write_text("a,b\n1,x\n2,y\n")
    with pytest.raises(ConfigError, match="no column is 0 or 1"):
        propose_schema(path)
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="no rows"):
        propose_schema(path)


def test_what_a_user_comes_with_is_the_requests_where_it_changes_and_theirs_where_it_stays(tmp_path: Path) -> None:
    rng = random.Random(5)
    phones = [rng.choice(["ios", "android"]) for _ in range(40)]
    shops = [rng.choice(["north", "south"]) for _ in range(24)]
    rows = [
        {
            "uid": (user := rng.randint(0, 39)),
            "sku": (item := rng.randint(0, 23)),
            "device": rng.choice(["ios", "android", "web"]),
            "device_make": phones[user],
            "app": rng.choice(["shop", "news"]),
            "store": shops[item],
            "user_mood": rng.choice(["good", "bad"]),
            "click": rng.randint(0, 1),
        }
        for _ in range(600)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "clicks.csv")
    fields = fields_of(propose_schema(tmp_path / "clicks.csv").text)
    assert {name: field.entity for name, field in fields.items()} == {
        "uid": "user", "sku": "item", "device": "context", "device_make": "user", "app": "context", "store": "item",
        "user_mood": "user",
    }  # fmt: skip
    pl.DataFrame(rows).drop("uid").with_columns(device_id=pl.col("device")).write_csv(tmp_path / "devices.csv")
    fields = fields_of(propose_schema(tmp_path / "devices.csv", user_id="device_id").text)
    assert fields["device_make"].entity == "user", "the device is who they are where its id is all there is"


@pytest.mark.parametrize(("column", "name"), [("userId", "user"), ("movieId", "item")])
def test_a_side_without_an_id_is_said_with_what_serving_it_needs(tmp_path: Path, column: str, name: str) -> None:
    prefix = {"user": "user_", "item": "movie_"}[name]
    rng = random.Random(1)
    frame = impressions().select("userId", "movieId", "hour", "click").drop(column)
    frame = frame.with_columns(pl.Series(f"{prefix}group", [rng.choice("abc") for _ in range(len(frame))]))
    frame.write_csv(tmp_path / "clicks.csv")
    proposal = propose_schema(tmp_path / "clicks.csv")
    said = f"No column is the {name}'s id: each request sends what is known of "
    assert [note for note in proposal.notes if note.startswith(said) and f"`{name}_features`; --{name}-id" in note]
    assert f"# {said}" in proposal.text


def test_a_column_with_a_labels_name_and_a_few_other_values_is_asked_about(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "user_id,Clicked,premium\n" + "".join(f"u{n % 9},{'?' if n == 7 else n % 2},{n // 3 % 2}\n" for n in range(60))
    )
    with pytest.raises(ConfigError, match="Clicked has a label's name, and 1 of its values are neither 0 nor 1"):
        propose_schema(path)
    assert "Left out: Clicked: the label" in propose_schema(path, label="Clicked").text


@pytest.mark.parametrize(
    ("name", "first", "last", "is_place"),
    [
        ("Position", 1, 20, True),
        ("display_pos", 0, 9, True),
        ("position_of_brand", 1, 20, False),
        ("position", 3, 20, False),
        ("position", 1, 900, False),
    ],
)
def test_a_column_of_places_comes_with_how_to_learn_from_them(
    tmp_path: Path, name: str, first: int, last: int, is_place: bool
) -> None:
    path, dice = tmp_path / "a.csv", random.Random(3)
    rows = (f"u{n % 7},i{n % 11},{dice.randrange(2)},{first + n % (last - first + 1)}\n" for n in range(2000))
    path.write_text(f"user_id,item_id,click,{name}\n" + "".join(rows))
    assert (f"entity: position, serve_as: {first}" in propose_schema(path).text) is is_place
