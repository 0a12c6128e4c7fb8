"""MovieLens-100K: 100,000 ratings of 943 people, with their traits, and of 1,682 films.

A label is 1 where the rating is at least 4. GroupLens allows no redistribution, so the files are read from the
installed `recbole` wheel (found, not imported: it is installed without its dependencies) or from a folder with either
its files or the original u.data, u.user and u.item.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.datasets.bad_rows import MAX_BAD_SHARE
from app.training.datasets.dataset import ID_COLUMN, Dataset, skip
from app.training.datasets.files import read_text, unreadable
from app.training.datasets.history import END_OF_TIME
from app.training.datasets.movielens_features import GENRES, LIKED, StateFeatures

INSTALL = "pip install --no-deps recbole==1.2.1"


def read_movielens(path: Path | None, schema: FeatureSchema, max_bad: float = MAX_BAD_SHARE) -> Dataset:
    """
    Args:
        path: folder with the files; None for the installed wheel's.

    Raises:
        DataError: no files, or they cannot be read.
    """
    folder = path or _installed()
    try:
        ratings, users, items = _recbole(folder) if (folder / "ml-100k.inter").is_file() else _original(folder)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(folder, error) from error
    good = pl.select(
        ratings["rating"].is_between(1, 5)
        & ratings["timestamp"].is_not_null()
        & ratings["user_id"].is_in(users[ID_COLUMN].implode())
        & ratings["item_id"].is_in(items[ID_COLUMN].implode())
    ).to_series()
    skipped = skip(
        good.fill_null(False), "no rating of 1 to 5, no time, or an unknown user or film", str(folder), max_bad
    )
    ratings = ratings.filter(good.fill_null(False)).sort("timestamp", maintain_order=True)
    if ratings.is_empty():
        raise DataError(f"{folder}: no ratings")
    features = StateFeatures(ratings, users, items)
    times = ratings["timestamp"].to_numpy()
    end_U, end_I = (np.full(len(frame), END_OF_TIME) for frame in (users, items))
    users_N, items_N = features.users_N, features.items_N
    clock = pl.from_epoch(ratings["timestamp"])
    user_rows = features.user_states(users_N, times).with_columns(
        hour=clock.dt.hour().cast(pl.Int64), weekday=clock.dt.weekday().cast(pl.Int64)
    )
    return Dataset(
        name="movielens",
        schema=schema,
        user=user_rows.rename({ID_COLUMN: "user_id"}),
        item=features.item_states(items_N, times).rename({ID_COLUMN: "item_id"}).drop("title"),
        labels_N=(ratings["rating"] >= LIKED).to_numpy().astype(np.float32),
        timestamps_N=times,
        source="MovieLens-100K" if path is None else str(path),
        skipped=skipped,
        users=features.user_states(np.arange(len(users)), end_U),
        items=features.item_states(np.arange(len(items)), end_I),
    )


def _installed() -> Path:
    found = importlib.util.find_spec("recbole")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "dataset_example" / "ml-100k"
        if folder.is_dir():
            return folder
    raise DataError(f"MovieLens-100K is not installed: run `{INSTALL}`, or name a folder that has it with --data")


def _recbole(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    def read(name: str) -> pl.DataFrame:
        frame = read_text(folder / name, "\t", quote=None)
        return frame.rename({column: column.partition(":")[0] for column in frame.columns})

    users, items = read("ml-100k.user"), read("ml-100k.item")
    return _ratings(read("ml-100k.inter")), _users(users), _items(items, pl.col("class").str.split(" "))


def _original(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    missing = [name for name in ("u.data", "u.user", "u.item") if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: has neither ml-100k.inter nor {', '.join(missing)}")

    def read(name: str, separator: str, columns: list[str]) -> pl.DataFrame:
        frame = read_text(folder / name, separator, header=False, quote=None, encoding="iso-8859-1")
        if frame.width != len(columns):
            raise DataError(f"{folder / name}: has {frame.width} columns, expected {len(columns)}")
        return frame.rename(dict(zip(frame.columns, columns, strict=True)))

    ratings = read("u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])
    users = read("u.user", "|", ["user_id", "age", "gender", "occupation", "zip_code"])
    items = read("u.item", "|", ["item_id", "movie_title", "date", "video", "url", *GENRES])
    items = items.with_columns(
        release_year=pl.col("movie_title").str.extract(r"\((\d{4})\)\s*$"),
        movie_title=pl.col("movie_title").str.replace(r"\s*\(\d{4}\)\s*$", ""),
    )
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    return _ratings(ratings), _users(users), _items(items, pl.concat_list(flags).list.drop_nulls())


def _ratings(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        "user_id",
        "item_id",
        pl.col("rating").cast(pl.Float64, strict=False),
        pl.col("timestamp").cast(pl.Float64, strict=False).cast(pl.Int64),
    )


def _users(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        pl.col("user_id").alias(ID_COLUMN),
        pl.col("age").cast(pl.Int64, strict=False),
        "gender",
        "occupation",
        pl.col("zip_code").str.slice(0, 2).alias("zip_prefix"),
    ).unique(ID_COLUMN, keep="first", maintain_order=True)


def _items(frame: pl.DataFrame, genres: pl.Expr) -> pl.DataFrame:
    return frame.select(
        pl.col("item_id").alias(ID_COLUMN),
        pl.col("movie_title").alias("title"),
        pl.col("release_year").cast(pl.Int64, strict=False),
        genres.alias("genres"),
    ).unique(ID_COLUMN, keep="first", maintain_order=True)
