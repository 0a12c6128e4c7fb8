"""MovieLens-100K: 100,000 ratings of 943 people, with their traits, and of 1,682 films.

A label is 1 where the rating is at least 4. GroupLens allows no redistribution, so the files are read from the
installed `recbole` wheel (found, not imported: it is installed without its dependencies) or from a folder with either
its files or the original u.data, u.user and u.item.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.datasets.dataset import ID_COLUMN, Dataset, skip
from app.training.datasets.files import read_text, unreadable
from app.training.datasets.history import END_OF_TIME, History, Index, Window

LIKED = 4.0
"""A rating from here on is a click."""
LAST_FILMS = 5
INSTALL = "pip install --no-deps recbole==1.2.1"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""In the order of u.item's flags."""


def read_movielens(path: Path | None, schema: FeatureSchema) -> Dataset:
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
    skipped = skip(good.fill_null(False), "no rating of 1 to 5, no time, or an unknown user or film", str(folder))
    ratings = ratings.filter(good.fill_null(False)).sort("timestamp", maintain_order=True)
    if ratings.is_empty():
        raise DataError(f"{folder}: no ratings")
    features = _Features(ratings, users, items)
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


class _Features:
    """What is known of users and films at a time, from their fixed traits and earlier ratings."""

    def __init__(self, ratings: pl.DataFrame, users: pl.DataFrame, items: pl.DataFrame) -> None:
        self.users, self.items = users, items
        self.users_N = _positions(ratings["user_id"], users[ID_COLUMN])
        self.items_N = _positions(ratings["item_id"], items[ID_COLUMN])
        times_N = ratings["timestamp"].to_numpy()
        stars_N = ratings["rating"].to_numpy()
        liked_N = stars_N >= LIKED
        self._by_user, self._by_item = History(self.users_N, times_N), History(self.items_N, times_N)
        self._stars_N2 = np.stack([stars_N, liked_N.astype(np.float64)], 1)

        self._film_L = self.items_N[liked_N]
        self._likes = History(self.users_N[liked_N], times_N[liked_N])
        genres_IG = np.array([[genre in genres for genre in GENRES] for genres in items["genres"].to_list()], float)
        self._genres_LG = genres_IG[self._film_L]
        years_I = items["release_year"].cast(pl.Float64).to_numpy()
        known_I = np.isfinite(years_I)
        self._years_L2 = np.stack([np.where(known_I, years_I, 0.0), known_I.astype(np.float64)], 1)[self._film_L]

    def user_states(self, users_M: Index, times_M: Index) -> pl.DataFrame:
        """Users as they were strictly before each time, M rows with an `id` column."""
        likes = self._likes.before(users_M, times_M)
        years_M2 = self._likes.sums(self._years_L2, likes)
        window = self._by_user.before(users_M, times_M)
        stars_M2 = self._by_user.sums(self._stars_N2, window)
        return self.users[users_M].with_columns(
            liked_genres=_weighted(self._likes.sums(self._genres_LG, likes)),
            liked_films=self._films(likes),
            user_rating_count=pl.Series(window.counts_M),
            user_average=_ratio(stars_M2[:, 0], window.counts_M),
            user_like_share=_ratio(stars_M2[:, 1], window.counts_M),
            liked_year=_ratio(years_M2[:, 0], years_M2[:, 1]),
        )

    def item_states(self, items_M: Index, times_M: Index) -> pl.DataFrame:
        """Films as they were strictly before each time, M rows with an `id` column and a `title`."""
        window = self._by_item.before(items_M, times_M)
        stars_M2 = self._by_item.sums(self._stars_N2, window)
        return self.items[items_M].with_columns(
            item_rating_count=pl.Series(window.counts_M),
            item_average=_ratio(stars_M2[:, 0], window.counts_M),
            item_like_share=_ratio(stars_M2[:, 1], window.counts_M),
        )

    def _films(self, likes: Window) -> pl.Series:
        last_MC = self._likes.last(LAST_FILMS, likes)
        ids = self.items[ID_COLUMN].gather(self._film_L[np.maximum(last_MC, 0).ravel()])
        ids = pl.select(pl.when(pl.Series(last_MC.ravel() >= 0)).then(ids)).to_series()
        return ids.reshape((len(last_MC), LAST_FILMS)).arr.to_list().list.drop_nulls()


def _ratio(total_M: npt.NDArray[np.float64], count_M: npt.NDArray[np.float64] | Index) -> pl.Series:
    """Null where nothing was counted; rounded so that the text in the store is the number that was trained on."""
    ratio_M = np.divide(total_M, count_M, out=np.full(len(total_M), np.nan), where=count_M > 0)
    return pl.Series(np.round(ratio_M, 4)).fill_nan(None)


def _weighted(counts_MG: npt.NDArray[np.float64]) -> pl.Series:
    """Genre counts as the JSON text that a weighted list has in the store."""
    names = [f'"{genre}": ' for genre in GENRES]
    texts: list[str | None] = []
    for counts in counts_MG.tolist():
        pairs = [f"{name}{count}" for name, count in zip(names, counts, strict=True) if count]
        texts.append("{" + ", ".join(pairs) + "}" if pairs else None)
    return pl.Series(texts, dtype=pl.String)


def _positions(ids: pl.Series, known: pl.Series) -> Index:
    return ids.replace_strict(known, np.arange(len(known)), return_dtype=pl.Int64).to_numpy()


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
