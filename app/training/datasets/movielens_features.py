"""What is known of MovieLens users and films at a moment: their fixed traits, and what earlier ratings say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.datasets.dataset import ID_COLUMN
from app.training.datasets.history import History, Index, Window

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


class StateFeatures:
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
        genres_NG = genres_IG[self.items_N]
        self._rated_genres_N2G = np.concatenate([genres_NG, genres_NG * stars_N[:, None]], 1)
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
            genre_taste=_weighted(self._taste(window, stars_M2[:, 0])),
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

    def _taste(self, window: Window, stars_M: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """How many stars above their own average each user gives each genre [M, G], shrunk to 0 while rare."""
        count_MG, stars_MG = np.split(self._by_user.sums(self._rated_genres_N2G, window), 2, axis=1)
        average_M = stars_M / np.maximum(window.counts_M, 1)
        return np.round((stars_MG - count_MG * average_M[:, None]) / (count_MG + SHRINKAGE), 2)

    def _films(self, likes: Window) -> pl.Series:
        last_MC = self._likes.last(LAST_FILMS, likes)
        film_MC = np.full(last_MC.shape, -1, np.int64)
        film_MC[last_MC >= 0] = self._film_L[last_MC[last_MC >= 0]]
        names = [*self.items[ID_COLUMN].to_list(), None]  # -1, "no film", reads the last one
        ids = pl.Series([names[film] for film in film_MC.ravel().tolist()], dtype=pl.String)
        return ids.reshape((len(film_MC), LAST_FILMS)).arr.to_list().list.drop_nulls()


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
