"""Compute MovieLens users and films at a moment: their fixed traits, and what earlier ratings tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.data.dataset import ID_COLUMN
from app.training.data.formats.history import EventRanges, History, Index

LIKED = 4.0
"""Ratings from this one on count as clicks."""
LAST_FILMS = 5
SHRINKAGE = 3.0
"""Shrinks what few ratings of a genre tell: with this many, the taste is taken at half its value."""
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""They are in the order of the flags in u.item."""


@dataclass(frozen=True)
class Ratings:
    """Holds N ratings; users and films are positions in their tables."""

    users_N: Index
    items_N: Index
    times_N: Index
    stars_N: npt.NDArray[np.float64]
    rows_N: Index
    """Numbers the ratings as in the file, from 1."""

    def __len__(self) -> int:
        return len(self.rows_N)

    def take(self, index: npt.NDArray[np.int64]) -> Ratings:
        """Return the ratings at these positions, in this order."""
        return Ratings(
            self.users_N[index], self.items_N[index], self.times_N[index], self.stars_N[index], self.rows_N[index]
        )

    @cached_property
    def liked_N(self) -> npt.NDArray[np.bool_]:
        return self.stars_N >= LIKED

    @cached_property
    def stars_N2(self) -> npt.NDArray[np.float64]:
        """Return the stars, and 1 for a like."""
        return np.stack([self.stars_N, self.liked_N.astype(np.float64)], 1)


class Films:
    """Holds the fixed traits of all films as arrays."""

    def __init__(self, items: pl.DataFrame) -> None:
        """Turn the traits into arrays.

        Args:
            items: columns id, title, release_year and genres (lists).
        """
        self.items = items
        genres = set(items["genres"].explode(empty_as_null=False, keep_nulls=False).unique().drop_nulls().to_list())
        self.genres = [*(genre for genre in GENRES if genre in genres), *sorted(genres - set(GENRES))]
        lists = [set(names or ()) for names in items["genres"].to_list()]
        self.genres_IG = np.array([[genre in names for genre in self.genres] for names in lists], float)
        self.genres_IG = self.genres_IG.reshape(len(items), len(self.genres))
        years_I = items["release_year"].cast(pl.Float64).to_numpy()
        known_I = np.isfinite(years_I)
        self.years_I2 = np.stack([np.where(known_I, years_I, 0.0), known_I.astype(np.float64)], 1)


class UserStates:
    """Computes users as they were at a time, from their own earlier ratings."""

    def __init__(self, films: Films, users: pl.DataFrame, ratings: Ratings) -> None:
        """Sort the ratings by user and time.

        Args:
            users: all users, with an `id` column.
            ratings: all ratings of the users whose states are wanted; those of others may be missing.
        """
        self._films, self._users, self._ratings = films, users, ratings
        self._history = History(ratings.users_N, ratings.times_N)
        liked_N = ratings.liked_N
        self._film_L = ratings.items_N[liked_N]
        self._likes = History(ratings.users_N[liked_N], ratings.times_N[liked_N])
        genres_NG = films.genres_IG[ratings.items_N]
        self._rated_genres_N2G = np.concatenate([genres_NG, genres_NG * ratings.stars_N[:, None]], 1)

    def at(self, users_M: Index, times_M: Index) -> pl.DataFrame:
        """Return users as they were strictly before each time: M rows with an `id` column."""
        films = self._films
        likes = self._likes.before(users_M, times_M)
        years_M2 = self._likes.sums(films.years_I2[self._film_L], likes)
        ranges = self._history.before(users_M, times_M)
        stars_M2 = self._history.sums(self._ratings.stars_N2, ranges)
        return self._users[users_M].with_columns(
            liked_genres=self._weighted(self._likes.sums(films.genres_IG[self._film_L], likes)),
            genre_taste=self._weighted(self._taste(ranges, stars_M2[:, 0])),
            liked_films=self._last_films(likes),
            user_rating_count=pl.Series(ranges.counts_M),
            user_average=_ratio(stars_M2[:, 0], ranges.counts_M),
            user_like_share=_ratio(stars_M2[:, 1], ranges.counts_M),
            liked_year=_ratio(years_M2[:, 0], years_M2[:, 1]),
        )

    def _taste(self, ranges: EventRanges, stars_M: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the stars above their own average that users give each genre [M, G], shrunk to 0 while rare."""
        count_MG, stars_MG = np.split(self._history.sums(self._rated_genres_N2G, ranges), 2, axis=1)
        average_M = stars_M / np.maximum(ranges.counts_M, 1)
        return np.round((stars_MG - count_MG * average_M[:, None]) / (count_MG + SHRINKAGE), 2)

    def _last_films(self, likes: EventRanges) -> pl.Series:
        last_MC = self._likes.last(LAST_FILMS, likes)
        exists_MC = last_MC >= 0
        ids = self._films.items[ID_COLUMN].cast(pl.String)[self._film_L[last_MC[exists_MC]]]
        return _lists(np.nonzero(exists_MC)[0], ids, len(last_MC))

    def _weighted(self, counts_MG: npt.NDArray[np.float64]) -> pl.Series:
        """Return the genres with their weights as lists, null where all weights are 0."""
        rows, genres = np.nonzero(counts_MG)
        items = pl.Series("item", self._films.genres, dtype=pl.String)[genres]
        weights = pl.Series("weight", counts_MG[rows, genres], dtype=pl.Float64)
        pairs = pl.DataFrame([items, weights]).to_struct()
        return _lists(rows, pairs, len(counts_MG), empty_is_null=True)


class ItemStates:
    """Computes films as they were at a time, from all their earlier ratings."""

    def __init__(self, films: Films, ratings: Ratings) -> None:
        """Sort the ratings by film and time, and sum them up."""
        self._items = films.items
        self._history = History(ratings.items_N, ratings.times_N)
        self._running_N2 = self._history.running(ratings.stars_N2)

    def at(self, items_M: Index, times_M: Index) -> pl.DataFrame:
        """Return films as they were strictly before each time: M rows with an `id` column and a `title`."""
        ranges = self._history.before(items_M, times_M)
        stars_M2 = ranges.differences(self._running_N2)
        return self._items[items_M].with_columns(
            item_rating_count=pl.Series(ranges.counts_M),
            item_average=_ratio(stars_M2[:, 0], ranges.counts_M),
            item_like_share=_ratio(stars_M2[:, 1], ranges.counts_M),
        )


def _ratio(total_M: npt.NDArray[np.float64], count_M: npt.NDArray[np.float64] | Index) -> pl.Series:
    """Return total / count, null where nothing was counted.

    It is rounded, so that the text in the store is the number that was trained on.
    """
    ratio_M = np.divide(total_M, count_M, out=np.full(len(total_M), np.nan), where=count_M > 0)
    return pl.Series(np.round(ratio_M, 4)).fill_nan(None)


def _lists(rows: npt.NDArray[np.int64], values: pl.Series, count: int, *, empty_is_null: bool = False) -> pl.Series:
    """Gather values into one list for each of `count` rows, in their order; `rows` ascend."""
    pairs = pl.DataFrame({"row": rows, "value": values})
    lists = pairs.group_by("row", maintain_order=True).agg("value")
    whole = pl.DataFrame({"row": np.arange(count)}).join(lists, on="row", how="left", maintain_order="left")["value"]
    return whole if empty_is_null else whole.fill_null(pl.lit([], whole.dtype))
