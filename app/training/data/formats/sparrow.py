"""SparrowRecSys's sample files: one CSV (plain or .gz) with a label and whole-history features computed beforehand.

`label` is 1 where the rating is at least 3.5. `rating`, `label` and `timestamp` are never features.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.data.readers.table_chunks import table_chunks
from app.training.data.source import Source

LABEL, TIMESTAMP, RATING = "label", "timestamp", "rating"
HINT = "is it a SparrowRecSys sample file?"
LISTS = {
    "movieGenres": [f"movieGenre{n}" for n in range(1, 4)],
    "userGenres": [f"userGenre{n}" for n in range(1, 6)],
    "userRatedMovies": [f"userRatedMovie{n}" for n in range(1, 6)],
}
"""Numbered columns that say one thing, by the multi-valued field they become."""


def sparrow_source(path: Path, schema: FeatureSchema) -> Source:
    """Raises DataError, ConfigError."""
    return Source(
        "sparrow", path, schema, table_chunks(path), LABEL, TIMESTAMP, targets=(RATING,), derive=_lists, hint=HINT
    )


def _lists(frame: pl.DataFrame) -> pl.DataFrame:
    missing = [column for columns in LISTS.values() for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"no column {', '.join(missing)}: {HINT}")
    return frame.with_columns(
        pl.concat_list(pl.col(columns).cast(pl.String)).list.drop_nulls().alias(name) for name, columns in LISTS.items()
    )
