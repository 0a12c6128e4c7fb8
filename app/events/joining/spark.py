"""`join_spans`: the join as a function for Spark's `mapInArrow`, which gives the rows that `ctr join` gives.

A row of its input is a span of time; each task joins its spans as `ctr join` does, from the log itself. So nothing is
shuffled, and tasks need the log: a folder that all machines see, or a bucket. It knows nothing of Spark.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa

from app.events.delivery.log_place import log_place
from app.events.delivery.open_log import FILES_BEFORE, open_log
from app.events.joining.bucket_join import JoinedBucket, join_bucket
from app.events.joining.log_reader import LogReader

SPAN = "id"
"""The column of `spark.range` that says when a span starts, in seconds since 1970."""
ROWS = (
    "impression_id string, caller_id string, at timestamp, user_id string, model string, version bigint, label string, "
    "schema_hash string, policy string, policy_parameter double, degraded array<string>, candidates int, "
    "user_keys array<bigint>, user_values array<float>, position int, item_id string, score float, propensity float, "
    "outcome tinyint, item_keys array<bigint>, item_values array<float>"
)
"""The columns of the rows, as Spark declares them: those of the log, for an item a row, and its `outcome`: 1, 0, or -1
where it was not on the screen."""
_types = {
    "string": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "bigint": pa.int64(),
    "int": pa.int32(),
    "tinyint": pa.int8(),
    "double": pa.float64(),
    "float": pa.float32(),
}
_types |= {f"array<{name}>": pa.list_(kind) for name, kind in _types.items()}
ARROW = pa.schema([(name, _types[kind]) for name, kind in (column.split() for column in ROWS.split(", "))])
"""The same as Arrow has it; Spark takes no large lists, which polars makes."""
NAMES = ARROW.names
BATCH_ROWS = 10_000


def join_spans(
    batches: Iterable[pa.RecordBatch], events: str, every_s: int = 3600, window_s: int = 1800, label: str = "click"
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some spans.

    Args:
        batches: the spans, by their starts in `SPAN`.
        events: the log, as `ctr join --events` has it.
        every_s: length of a span.
        window_s: how long after an answer feedback counts.
        label: type of the feedback that makes an item's outcome 1.

    Raises ConfigError and DataError if the log cannot be read.
    """
    starts = sorted(at for batch in batches for at in batch.column(SPAN).to_pylist())
    if not starts:
        return
    every, window = timedelta(seconds=every_s), timedelta(seconds=window_s)
    first, last = (datetime.fromtimestamp(at, UTC) for at in (starts[0], starts[-1]))
    with (
        tempfile.TemporaryDirectory() as copies,
        open_log(
            log_place(events), since=first - FILES_BEFORE - window, until=last + every + window, copies=Path(copies)
        ) as folder,
    ):
        log = LogReader(folder)
        for at in starts:
            start = datetime.fromtimestamp(at, UTC)
            rows = joined_rows(join_bucket(log, start, start + every, window, label))
            yield from rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(ARROW).to_batches(BATCH_ROWS)


def joined_rows(bucket: JoinedBucket) -> pl.DataFrame:
    """Return the rows of a span, an item each, by time, id and position."""
    none = pl.lit(None, pl.Float32).repeat_by(pl.col("items").list.len())
    answers = bucket.answers.with_columns(
        pl.int_ranges(pl.col("items").list.len(), dtype=pl.Int32).alias("position"),
        pl.when(pl.col("propensities").is_null()).then(none).otherwise("propensities").alias("propensities"),
    )
    rows = answers.explode("items", "position", "scores", "propensities", "labels").drop_nulls("items")
    items = bucket.items.select("reference", "item_id", pl.col("keys", "values").name.prefix("item_"))
    rows = rows.join(items, left_on="items", right_on="reference", maintain_order="left")
    return rows.rename({"scores": "score", "propensities": "propensity", "labels": "outcome"}).select(NAMES)
