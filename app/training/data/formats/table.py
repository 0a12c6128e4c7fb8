"""Read any CSV, TSV, Parquet or JSON lines file with a column per feature and a column of labels."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from app.features.schema import FeatureSchema
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.labels import ZERO_OR_ONE, LabelReading
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_reader import table_files
from app.training.data.readers.time_values import COUNTER, TimeForm, time_form
from app.training.data.source import Source
from app.training.data.weight_columns import UNWEIGHTED, WeightColumns

SAMPLE_ROWS, SAMPLE_BYTES = 1_000, 1 << 18
"""So many rows tell what the numbers of a column of times mean."""


def table_source(
    path: Path,
    schema: FeatureSchema,
    label: str,
    timestamp: str | None,
    limits: EncodingLimits = DEFAULT_LIMITS,
    escape: str | None = None,
    labels: LabelReading = ZERO_OR_ONE,
    weighting: WeightColumns = UNWEIGHTED,
) -> Source:
    """Describe a table.

    Args:
        label: column of labels.
        timestamp: column to split by time with, of seconds since 1970 or of milli-, micro- or nanoseconds, of dates, of
            ISO 8601 text or of numbers that grow with time, or None.
        escape: what escapes quotes in its cells, a backslash or a double quote; None refuses a file that would tell.
        labels: which of its values are clicks.
        weighting: columns that say how much a row counts.

    Raises:
        ConfigError: the kind of file is not known, or the schema reads the label or the time.
        DataError: there is no such file.
    """
    files = table_files(path, limits, escape)

    @cache
    def form() -> TimeForm:
        # By the first rows, whichever part of the files is read: all processes find the same.
        small = replace(limits, block_bytes=SAMPLE_BYTES, parquet_rows=SAMPLE_ROWS)
        for chunk in table_files(path, small, escape)(BadRows(str(path), 1.0)):
            if timestamp in chunk.frame.columns and len(chunk.frame):
                return time_form(chunk.frame[timestamp][:SAMPLE_ROWS])
        return COUNTER

    return Source(
        "table",
        path,
        schema,
        files,
        label,
        timestamp,
        form,
        labels=labels,
        weighting=weighting,
        limits=limits,
        escape=escape,
    )
