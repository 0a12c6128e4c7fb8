"""Any CSV or Parquet file with a column per feature and a column of labels."""

from __future__ import annotations

from pathlib import Path

from app.features.schema import FeatureSchema
from app.training.datasets.dataset import Dataset, from_frame
from app.training.datasets.files import read_table


def read_any_table(path: Path, schema: FeatureSchema, label: str, timestamp: str | None) -> Dataset:
    """
    Args:
        label: column of 0 or 1.
        timestamp: numeric column to split by time with, or None.

    Raises:
        DataError: see `from_frame`.
    """
    targets = (timestamp,) if timestamp else ()
    return from_frame(
        read_table(path), schema, name="table", source=str(path), label=label, timestamp=timestamp, targets=targets
    )
