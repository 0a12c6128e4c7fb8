"""SparrowRecSys's sample files: one CSV (plain or .gz) with a label and whole-history features computed beforehand.

`label` is 1 where the rating is at least 3.5. `rating`, `label` and `timestamp` are never features.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.datasets.dataset import Dataset, from_frame
from app.training.datasets.files import read_table

LABEL, TIMESTAMP, RATING = "label", "timestamp", "rating"
LISTS = {
    "movieGenres": [f"movieGenre{n}" for n in range(1, 4)],
    "userGenres": [f"userGenre{n}" for n in range(1, 6)],
    "userRatedMovies": [f"userRatedMovie{n}" for n in range(1, 6)],
}
"""Numbered columns that say one thing, by the multi-valued field they become."""


def read_sparrow(path: Path, schema: FeatureSchema) -> Dataset:
    """Raises DataError."""
    frame = read_table(path)
    missing = [column for columns in LISTS.values() for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}: is it a SparrowRecSys sample file?")
    frame = frame.with_columns(
        pl.concat_list(pl.col(columns).cast(pl.String)).list.drop_nulls().alias(name) for name, columns in LISTS.items()
    )
    return from_frame(
        frame, schema, name="sparrow", source=str(path), label=LABEL, timestamp=TIMESTAMP, targets=(RATING, TIMESTAMP)
    )
