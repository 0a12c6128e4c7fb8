"""The formats by the name that `--dataset` gives them."""

from __future__ import annotations

from pathlib import Path

from app.errors import ConfigError
from app.features.schema import FeatureSchema, load_schema
from app.training.datasets.dataset import Dataset
from app.training.datasets.movielens import read_movielens
from app.training.datasets.sparrow import LABEL as SPARROW_LABEL
from app.training.datasets.sparrow import read_sparrow
from app.training.datasets.table import read_any_table

DATASETS = ("movielens", "sparrow", "table")


def open_dataset(
    name: str,
    path: Path | None,
    *,
    features: Path | None = None,
    label: str | None = None,
    timestamp: str | None = None,
) -> Dataset:
    """Read a dataset.

    Args:
        path: file or folder; only `movielens` can do without.
        features: a `features.yaml` in place of the format's own; `table` has none and needs it.
        label: label column of a table, "label" unless said.
        timestamp: time column of a table.

    Raises:
        ConfigError: the arguments do not fit together, or the schema is wrong.
        DataError: the data is.
    """
    schema = _schema(name, features)
    if name != "table" and (label or timestamp):
        raise ConfigError(f"--label and --timestamp are for --dataset table; {name} brings its own")
    if name == "movielens":
        return read_movielens(path, schema)
    if path is None:
        raise ConfigError(f"--dataset {name} needs --data PATH")
    if name == "sparrow":
        return read_sparrow(path, schema)
    return read_any_table(path, schema, label or SPARROW_LABEL, timestamp)


def _schema(name: str, features: Path | None) -> FeatureSchema:
    if name not in DATASETS:
        raise ConfigError(f"--dataset {name}: unknown; choose one of {', '.join(DATASETS)}")
    if features is not None:
        return load_schema(features)
    if name == "table":
        raise ConfigError("--dataset table needs --features features.yaml, which says what the columns are")
    return load_schema(Path(__file__).parent / f"{name}.yaml")
