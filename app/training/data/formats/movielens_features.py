"""What is known of MovieLens users and films at a moment: their fixed traits, and what earlier ratings say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.data.dataset import ID_COLUMN
from app.training.data.formats.history import History, Index, Window

LIKED = 4.0
"""A rating from here on is a click."""
LAST_FILMS = 5
SHRINKAGE = 3.0
"""Ratings of a genre that are needed before half of what they say is believed."""
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""In the order of u.item's flags."""


@dataclass(frozen=True)
class Ratings:
    """N ratings, by places among the users and films."""

    users_N: Index
    items_N: Index
    times_N: Index
    stars_N: npt.NDArray[np.float64]
    rows_N: Index
    """Their numbers in the file, from 1."""

    def __len__(self) -> int:
        return len(self.rows_N)

    def take(self, index: npt.NDArray[np.int64]) -> Ratings:
        return Ratings(
            self.users_N[index], self.items_N[index], self.times_N[index], self.stars_N[index], self.rows_N[index]
        )

    @cached_property
    def liked_N(self) -> npt.NDArray[np.bool_]:
        return self.stars_N >= LIKED

    @cached_property
    def stars_N2(self) -> npt.NDArray[np.float64]:
        """Stars, and 1 for a like."""
        return np.stack([self.stars_N, self.liked_N.astype(np.float64)], 1)


class Films:
    """The fixed traits of all films as arrays."""

    def __init__(self, items: pl.DataFrame) -> None:
        """
        Args:
            items: columns id, title, release_year and genres (lists).
        """
        self.items = items
        found = set(items["genres"].explode(empty_as_null=False, keep_nulls=False).unique().drop_nulls().to_list())
        self.genres = [*(genre for genre in GENRES if genre in found), *sorted(found - set(GENRES))]
        lists = [set(names or ()) for names in items["genres"].to_list()]
        self.genres_IG = np.array([[genre in names for genre in self.genres] for names in lists], float)
        self.genres_IG = self.genres_IG.reshape(len(items), len(self.genres))
        years_I = items["release_year"].cast(pl.Float64).to_numpy()
        known_I = np.isfinite(years_I)
        self.years_I2 = np.stack([np.where(known_I, years_I, 0.0), known_I.astype(np.float64)], 1)


class UserStates:
    """Users as they were at a time, from their own earlier ratings."""

    def __init__(self, films: Films, users: pl.DataFrame, ratings: Ratings) -> None:
        """
        Args:
            users: all users, with an `id` column.
            ratings: all ratings of the users who will be asked for; others need not be there.
        """
        self._films, self._users, self._ratings = films, users, ratings
        self._history = History(ratings.users_N, ratings.times_N)
        liked_N = ratings.liked_N
        self._film_L = ratings.items_N[liked_N]
        self._likes = History(ratings.users_N[liked_N], ratings.times_N[liked_N])
        genres_NG = films.genres_IG[ratings.items_N]
        self._rated_genres_N2G = np.concatenate([genres_NG, genres_NG * ratings.stars_N[:, None]], 1)

    def at(self, users_M: Index, times_M: Index) -> pl.DataFrame:
        """Users as they were strictly before each time, M rows with an `id` column."""
        films = self._films
        likes = self._likes.before(users_M, times_M)
        years_M2 = self._likes.sums(films.years_I2[self._film_L], likes)
        window = self._history.before(users_M, times_M)
        stars_M2 = self._history.sums(self._ratings.stars_N2, window)
        return self._users[users_M].with_columns(
            liked_genres=self._weighted(self._likes.sums(films.genres_IG[self._film_L], likes)),
            genre_taste=self._weighted(self._taste(window, stars_M2[:, 0])),
            liked_films=self._last_films(likes),
            user_rating_count=pl.Series(window.counts_M),
            user_average=_ratio(stars_M2[:, 0], window.counts_M),
            user_like_share=_ratio(stars_M2[:, 1], window.counts_M),
            liked_year=_ratio(years_M2[:, 0], years_M2[:, 1]),
        )

    def _taste(self, window: Window, stars_M: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How many stars above their own average each user gives each genre [M, G], shrunk to 0 while rare."""
        count_MG, stars_MG = np.split(self._history.sums(self._rated_genres_N2G, window), 2, axis=1)
        average_M = stars_M / np.maximum(window.counts_M, 1)
        return np.round((stars_MG - count_MG * average_M[:, None]) / (count_MG + SHRINKAGE), 2)

    def _last_films(self, likes: Window) -> pl.Series:
        last_MC = self._likes.last(LAST_FILMS, likes)
        there_MC = last_MC >= 0
        ids = self._films.items[ID_COLUMN].cast(pl.String)[self._film_L[last_MC[there_MC]]]
        return _lists(np.nonzero(there_MC)[0], ids, len(last_MC))

    def _weighted(self, counts_MG: npt.NDArray[np.float64]) -> pl.Series:
        """Genres with what they weigh, null where none weighs anything."""
        rows, genres = np.nonzero(counts_MG)
        items = pl.Series("item", self._films.genres, dtype=pl.String)[genres]
        weights = pl.Series("weight", counts_MG[rows, genres], dtype=pl.Float64)
        pairs = pl.DataFrame([items, weights]).to_struct()
        return _lists(rows, pairs, len(counts_MG), empty=None)


class ItemStates:
    """Films as they were at a time, from all their earlier ratings."""

    def __init__(self, films: Films, ratings: Ratings) -> None:
        self._items = films.items
        self._history = History(ratings.items_N, ratings.times_N)
        self._running_N2 = self._history.running(ratings.stars_N2)

    def at(self, items_M: Index, times_M: Index) -> pl.DataFrame:
        """Films as they were strictly before each time, M rows with an `id` column and a `title`."""
        window = self._history.before(items_M, times_M)
        stars_M2 = window.differences(self._running_N2)
        return self._items[items_M].with_columns(
            item_rating_count=pl.Series(window.counts_M),
            item_average=_ratio(stars_M2[:, 0], window.counts_M),
            item_like_share=_ratio(stars_M2[:, 1], window.counts_M),
        )


def _ratio(total_M: npt.NDArray[np.float64], count_M: npt.NDArray[np.float64] | Index) -> pl.Series:
    """Null where nothing was counted; rounded so that the text in the store is the number that was trained on."""
    ratio_M = np.divide(total_M, count_M, out=np.full(len(total_M), np.nan), where=count_M > 0)
    return pl.Series(np.round(ratio_M, 4)).fill_nan(None)


def _lists(rows: npt.NDArray[np.int64], values: pl.Series, count: int, empty: list[str] | None = []) -> pl.Series:  # noqa: B006
    """Values gathered into one list a row, in their order; `rows` ascend."""
    pairs = pl.DataFrame({"row": rows, "value": values})
    lists = pairs.group_by("row", maintain_order=True).agg("value")
    whole = pl.DataFrame({"row": np.arange(count)}).join(lists, on="row", how="left", maintain_order="left")["value"]
    return whole if empty is None else whole.fill_null(pl.lit(empty, whole.dtype))
