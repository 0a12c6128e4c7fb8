"""Read Avazu's mobile advertising data: a CSV with a header, plain or gzipped; `hour` is YYMMDDHH.

The hour becomes the time to split by, and two fields of the request: `hour_of_day` and `weekday` (1 is Monday).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from app.errors import DataError
from app.features.schema import FeatureSchema
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.table_reader import table_files
from app.training.data.source import Source

LABEL, HOUR, TIME = "click", "hour", "timestamp"
HINT = "is it Avazu's train file?"


def avazu_source(path: Path, schema: FeatureSchema, limits: EncodingLimits = DEFAULT_LIMITS) -> Source:
    """Describe an Avazu file. Raises ConfigError if the schema reads a target, DataError if there is no such file."""
    return Source(
        "avazu",
        path,
        schema,
        table_files(path, limits),
        LABEL,
        TIME,
        targets=("id",),
        derive=_add_clock,
        hint=HINT,
        limits=limits,
    )


def _add_clock(frame: pl.DataFrame) -> pl.DataFrame:
    if HOUR not in frame.columns:
        raise DataError(f"no column {HOUR}: {HINT}")
    # Tables that were read and written again have the hour as a number; polars wants minutes with an hour.
    clock = (pl.col(HOUR).cast(pl.String) + "00").str.strptime(pl.Datetime, "%y%m%d%H%M", strict=False)
    return frame.with_columns(
        clock.dt.epoch("s").alias(TIME),
        clock.dt.hour().cast(pl.Int64).alias("hour_of_day"),
        clock.dt.weekday().cast(pl.Int64).alias("weekday"),
    )
