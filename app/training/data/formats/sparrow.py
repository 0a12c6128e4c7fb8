"""Read SparrowRecSys's sample files: one CSV (plain or .gz) with a label and features of the whole history.

`label` is 1 where the rating is at least 3.5. `rating`, `label` and `timestamp` are never features.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.table_reader import table_files
from app.training.data.source import Source

LABEL, TIMESTAMP, RATING = "label", "timestamp", "rating"
HINT = "is it a SparrowRecSys sample file?"
LISTS = {
    "movieGenres": [f"movieGenre{n}" for n in range(1, 4)],
    "userGenres": [f"userGenre{n}" for n in range(1, 6)],
    "userRatedMovies": [f"userRatedMovie{n}" for n in range(1, 6)],
}
"""Numbered columns that hold one list become a multi-valued field of this name."""


def sparrow_source(path: Path, schema: FeatureSchema, limits: EncodingLimits = DEFAULT_LIMITS) -> Source:
    """Describe a sample file. Raises ConfigError if the schema reads a target, DataError if there is no such file."""
    return Source(
        "sparrow",
        path,
        schema,
        table_files(path, limits),
        LABEL,
        TIMESTAMP,
        targets=(RATING,),
        derive=_add_lists,
        hint=HINT,
        limits=limits,
    )


def _add_lists(frame: pl.DataFrame) -> pl.DataFrame:
    missing = [column for columns in LISTS.values() for column in columns if column not in frame.columns]
    if missing:
        raise DataError(f"no column {', '.join(missing)}: {HINT}")
    return frame.with_columns(
        pl.concat_list(pl.col(columns).cast(pl.String)).list.drop_nulls().alias(name) for name, columns in LISTS.items()
    )
