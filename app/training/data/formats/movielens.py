"""MovieLens, in any of its published sizes: who rated which film when, and what was known of both just before.

A label is 1 where the rating is at least 4. GroupLens allows no redistribution, so the files are read from a folder, or
MovieLens-100K from the installed `recbole` wheel (found, not imported: it is installed without its dependencies).

Ratings are held as numbers, 40 bytes each and as much again for the films' history; features are made for some hundred
thousand at a time, those of whole users, so that 25 million ratings take 4 GB and not 40.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from app.errors import DataError
from app.features.fields import Side
from app.features.schema import FeatureSchema
from app.training.data.dataset import ID_COLUMN, Dataset
from app.training.data.encode_shards import Report
from app.training.data.formats.history import END_OF_TIME, Index
from app.training.data.formats.movielens_features import LIKED, Films, ItemStates, Ratings, UserStates
from app.training.data.formats.movielens_layouts import COLUMNS, Layout, find_layout
from app.training.data.mapped_dataset import CACHE, MappedDataset, load
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows
from app.training.data.readers.chunk import Chunk
from app.training.data.readers.table_chunks import stacked
from app.training.data.source import Source
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

INSTALL = "pip install --no-deps recbole==1.2.1"
LABEL, TIMESTAMP = "label", "timestamp"
GROUP_RATINGS = 250_000
"""Ratings whose features are made at a time, or those of one user where that is more."""
TRAITS = {"age", "gender", "occupation", "zip_prefix"}
"""What only some layouts say of users."""
BAD = "no rating of 0.5 to 5, no time, or an unknown user or film"


def read_movielens(
    path: Path | None,
    schema: FeatureSchema,
    *,
    own_schema: bool = True,
    max_bad: float = MAX_BAD_SHARE,
    cache: Path = CACHE,
    report: Report | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Dataset:
    """
    Args:
        path: folder with the files; None for the installed wheel's.
        own_schema: the schema is the format's; fields that this layout has nothing for are left out of it.

    Raises:
        DataError: no files, or they cannot be read.
    """
    reader = group.run_all_or_raise(lambda: _Reader(find_layout(path or _installed())))
    if own_schema and reader.layout.users is None:
        schema = FeatureSchema(fields=tuple(f for f in schema.fields if f.raw_name not in TRAITS))
    source = Source(
        "movielens",
        reader.layout.ratings,
        schema,
        reader.chunks,
        LABEL,
        TIMESTAMP,
        targets=("rating",),
        also=tuple(reader.layout.others),
        states=reader.states,
    )
    data = load(source, cache=cache, max_bad=max_bad, report=report, group=group)
    data = replace(data, source="MovieLens-100K" if path is None else str(path))
    if isinstance(data, MappedDataset):
        return data
    return replace(data, users=reader.states("user"), items=reader.states("item"))


def _installed() -> Path:
    found = importlib.util.find_spec("recbole")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "dataset_example" / "ml-100k"
        if folder.is_dir():
            return folder
    raise DataError(f"MovieLens-100K is not installed: run `{INSTALL}`, or name a folder that has it with --data")


class _Reader:
    """Reads the files when first asked for rows: an encoded form may be there already."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._known: tuple[Ratings, pl.DataFrame, Films] | None = None

    def chunks(self, bad: BadRows) -> Iterator[Chunk]:
        """Raises DataError."""
        ratings, users, films = self._known = self._read(bad)
        items = ItemStates(films, ratings)
        done = 0
        for some in _groups(ratings):
            done += len(some)
            yield Chunk(_features(UserStates(films, users, some), items, some), some.rows_N, done / len(ratings))

    def states(self, side: Side) -> pl.DataFrame:
        """The last state of every user or film."""
        ratings, users, films = self._known or self._read(BadRows("", 1.0))
        if side == "item":
            return ItemStates(films, ratings).at(np.arange(len(films.items)), _ends(len(films.items)))
        silent = np.setdiff1d(np.arange(len(users)), ratings.users_N)
        parts = [UserStates(films, users, ratings.take(np.empty(0, np.int64))).at(silent, _ends(len(silent)))]
        places = [silent]
        for some in _groups(ratings):
            places.append(np.unique(some.users_N))
            parts.append(UserStates(films, users, some).at(places[-1], _ends(len(places[-1]))))
        return stacked([part for part in parts if len(part)])[np.argsort(np.concatenate(places))]

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
            bad.add(BAD, chunk.rows_N[(~good).to_numpy()])
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


def _groups(ratings: Ratings) -> Iterator[Ratings]:
    """The ratings of some users at a time, each group by time."""
    if len(ratings) <= GROUP_RATINGS:
        yield ratings
        return
    order_N = np.argsort(ratings.users_N, kind="stable")
    counts_U = np.bincount(ratings.users_N)
    group_U = (np.cumsum(counts_U) - 1) // GROUP_RATINGS
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


def _ends(count: int) -> Index:
    return np.full(count, END_OF_TIME)


def _positions(ids: pl.Series, known: pl.Series) -> Index:
    return ids.replace_strict(known.cast(pl.UInt32), np.arange(len(known)), return_dtype=pl.Int64).to_numpy()
