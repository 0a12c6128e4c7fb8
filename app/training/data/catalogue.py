"""Open a dataset by the name that `--dataset` gives its format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from app.errors import ConfigError
from app.events.records import SERVED
from app.features.schema import FeatureSchema, load_schema
from app.features.tables.cell_quoting import ESCAPES
from app.training.data.dataset import Dataset
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.formats.avazu import avazu_source
from app.training.data.formats.criteo import criteo_source
from app.training.data.formats.movielens import movielens_source
from app.training.data.formats.sparrow import sparrow_source
from app.training.data.formats.sparse_text import LIBFFM, LIBSVM, derived_schema, sparse_source
from app.training.data.formats.table import table_source
from app.training.data.labels import LabelReading
from app.training.data.load_dataset import CACHE, load_dataset
from app.training.data.readers.bad_rows import MAX_BAD_SHARE
from app.training.data.served_rows import open_served
from app.training.data.shard_encoding import ReportProgress
from app.training.data.source import Source
from app.training.data.weight_columns import UNWEIGHTED, WeightColumns
from app.training.distributed import SINGLE_PROCESS, ProcessGroup

LABEL = "label"
DATASETS = ("movielens", "sparrow", "criteo", "avazu", "libsvm", "libffm", "table", SERVED)
SOURCES = {"sparrow": sparrow_source, "criteo": criteo_source, "avazu": avazu_source}
SPARSE = {"libsvm": LIBSVM, "libffm": LIBFFM}


def open_dataset(
    name: str,
    path: Path | None,
    *,
    features: Path | None = None,
    label: str | None = None,
    timestamp: str | None = None,
    escape: str | None = None,
    positive: str | None = None,
    weighting: WeightColumns = UNWEIGHTED,
    max_bad: float = MAX_BAD_SHARE,
    cache: Path = CACHE,
    report: ReportProgress | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    limits: EncodingLimits = DEFAULT_LIMITS,
    schema_owner: str | None = None,
) -> Dataset:
    """Read a dataset: a large file into its encoded form, unless that is there already.

    Args:
        path: file, folder of files or pattern that names several; a folder of its own for `movielens`, which can do
            without.
        features: a `features.yaml` in place of the format's own; `table` has none and needs it.
        label: label column of a table, "label" by default.
        timestamp: time column of a table.
        escape: what escapes quotes in the cells of a table, a backslash or a double quote.
        positive: the label that is a click, or a threshold such as `>=4`; None reads 0 and 1.
        weighting: columns of a table that say how much a row counts, and the share of negatives of any format.
        max_bad: share of bad rows above which the file is refused.
        cache: folder of the encoded forms of large files.
        report: receives the number of rows encoded so far and the share of the file read.
        group: the processes that open it, all of them.
        limits: how much is held in memory at a time.
        schema_owner: what the schema in `features` is of, say `version 7`; None if the user named the file.

    Raises:
        ConfigError: the arguments do not fit together, or the schema is wrong.
        DataError: the data is.
    """
    if name == SERVED:
        _check_options(name, label, timestamp, escape, positive, weighting)
        if path is None:
            raise ConfigError("--dataset served needs --data DIR, where `ctr join` wrote the rows")
        return open_served(
            path,
            features,
            cache,
            report=report,
            group=group,
            limits=limits,
            weighting=weighting,
            schema_owner=schema_owner,
        )
    source = group.run_all_or_raise(
        lambda: open_source(name, path, features, label, timestamp, limits, escape, positive, weighting)
    )
    return load_dataset(source, cache=cache, max_bad=max_bad, report=report, group=group)


def open_source(
    name: str,
    path: Path | None,
    features: Path | None = None,
    label: str | None = None,
    timestamp: str | None = None,
    limits: EncodingLimits = DEFAULT_LIMITS,
    escape: str | None = None,
    positive: str | None = None,
    weighting: WeightColumns = UNWEIGHTED,
) -> Source:
    """Return a dataset's source, not yet read; see `open_dataset`. Raises ConfigError and DataError as it does."""
    if name not in DATASETS:
        raise ConfigError(f"--dataset {name}: unknown; choose one of {', '.join(DATASETS)}")
    _check_options(name, label, timestamp, escape, positive, weighting)
    labels = LabelReading(positive)
    if name == "movielens":
        source = movielens_source(path, _schema(name, features, path, limits), features is None, limits)
        return replace(source, weighting=weighting)
    if path is None and not (name == "table" and features is None):
        raise ConfigError(f"--dataset {name} needs --data PATH")
    schema = _schema(name, features, path, limits)
    assert path is not None
    if name == "table":
        label = weighting.clicks or label or LABEL
        return table_source(path, schema, label, timestamp, limits, escape, labels, weighting)
    if name in SPARSE:
        source = sparse_source(path, schema, SPARSE[name], derived=features is None, labels=labels, limits=limits)
    else:
        source = SOURCES[name](path, schema, limits)
    return replace(source, weighting=weighting)


def _check_options(
    name: str,
    label: str | None,
    timestamp: str | None,
    escape: str | None,
    positive: str | None,
    weighting: WeightColumns,
) -> None:
    """Raise ConfigError for an option that is not for this format."""
    if name != "table" and (label or timestamp):
        raise ConfigError(f"--label and --timestamp are for --dataset table; {name} brings its own")
    if weighting.is_counted and (label or positive):
        raise ConfigError("--label and --positive: rows that count --impressions and --clicks have no label")
    if weighting.names and name != "table":
        raise ConfigError(
            f"{weighting.names[0]}: columns that say how much a row counts are for --dataset table; {name} has none"
        )
    if escape is not None and (name != "table" or escape not in ESCAPES):
        raise ConfigError(f"--escape {escape}: is for --dataset table, and one of {' '.join(ESCAPES)}")
    if positive is not None and name != "table" and name not in SPARSE:
        raise ConfigError(
            f"--positive {positive}: is for --dataset table, libsvm and libffm; {name} has labels 0 and 1"
        )


def _schema(name: str, features: Path | None, path: Path | None, limits: EncodingLimits) -> FeatureSchema:
    if features is not None:
        return load_schema(features)
    if name == "table":
        raise ConfigError(
            "--dataset table needs --features features.yaml, which says what the columns are; "
            "`ctr schema infer FILE` proposes one"
        )
    if name in SPARSE and path is not None:
        return derived_schema(path, SPARSE[name], limits)
    return load_schema(Path(__file__).parent / "formats" / f"{name}.yaml")
