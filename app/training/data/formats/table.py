"""Read any CSV, TSV, Parquet or JSON lines file with a column per feature and a column of labels."""

from __future__ import annotations

from pathlib import Path

from app.features.schema import FeatureSchema
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.labels import ZERO_OR_ONE, LabelReading
from app.training.data.readers.table_reader import table_files
from app.training.data.source import Source


def table_source(
    path: Path,
    schema: FeatureSchema,
    label: str,
    timestamp: str | None,
    limits: EncodingLimits = DEFAULT_LIMITS,
    escape: str | None = None,
    labels: LabelReading = ZERO_OR_ONE,
) -> Source:
    """Describe a table.

    Args:
        label: column of labels.
        timestamp: column to split by time with, of numbers, dates or ISO 8601 text, or None.
        escape: what escapes quotes in its cells, a backslash or a double quote; None refuses a file that would tell.
        labels: which of its values are clicks.

    Raises:
        ConfigError: the kind of file is not known, or the schema reads the label or the time.
        DataError: there is no such file.
    """
    return Source(
        "table",
        path,
        schema,
        table_files(path, limits, escape),
        label,
        timestamp,
        labels=labels,
        limits=limits,
        escape=escape,
    )
