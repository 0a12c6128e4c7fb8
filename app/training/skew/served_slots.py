"""`served_slots`: what an event log says was served, beside the row of a table that should have been, a part at a time.

A row is an answer for the user's features, and an item in an answer for the item's. The items of many answers have the
same slots and the same row, so these come once, with how many they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from app.events.joining.log_reader import LogReader
from app.events.records import IMPRESSIONS
from app.features.slots import Slots
from app.training.skew.offline_table import OfflineTable, Positions, Times

SPAN = timedelta(hours=1)
ANSWERS_AT_ONCE = 20_000


@dataclass(frozen=True)
class ServedPart:
    """M rows of one side that were served, or M groups of rows that are the same."""

    table: OfflineTable
    position_M: Positions
    """Of the row of the table that held then; NOWHERE where there is none."""
    at_M: Times
    """When it was served, the first time."""
    weight_M: npt.NDArray[np.int64]
    """How many rows these are."""
    slots: Slots
    """[M, S]."""
    names: Sequence[str]
    """[M] ids of answers, or of items."""


def served_slots(
    log: LogReader, tables: Sequence[OfflineTable], schema_hash: str, start: datetime, stop: datetime
) -> Iterator[ServedPart]:
    """Yield what was served in [start, stop) by a schema, for each side of which there is a table."""
    for begin, end in log.spans(IMPRESSIONS, start, stop, SPAN):
        of_schema = log.records(IMPRESSIONS, begin, end).filter(pl.col("schema_hash") == schema_hash)
        answers = log.collect(of_schema).unique("impression_id", maintain_order=True)
        for table in tables:
            if table.compared.side == "user":
                for part in answers.iter_slices(ANSWERS_AT_ONCE) if len(answers) else ():
                    yield _users(part, table)
            elif len(answers):
                yield from _items(log, answers, table, begin, end)


def schema_rows(log: LogReader, start: datetime, stop: datetime) -> pl.DataFrame:
    """Return the schemas of the answers in [start, stop), `schema_hash` and how many `answers`, the newest first."""
    answers = log.records(IMPRESSIONS, start, stop).group_by("schema_hash")
    counts = log.collect(answers.agg(pl.len().alias("answers"), pl.col("at").max()))
    return counts.sort("at", "schema_hash", descending=True).drop("at")


def bounds(log: LogReader, since: datetime | None, until: datetime | None) -> tuple[datetime, datetime]:
    """Return the times to look at: all of the log where none are given."""
    now = datetime.now(UTC)
    return since or log.first or now, until or now


def _users(answers: pl.DataFrame, table: OfflineTable) -> ServedPart:
    slots, at_M = _slots(answers, "user_keys", "user_values"), answers["at"].dt.epoch("us").to_numpy()
    position_M = table.as_of(slots.keys[:, table.compared.id_slot], at_M)
    return ServedPart(table, position_M, at_M, np.ones(len(at_M), np.int64), slots, answers["impression_id"].to_list())


def _items(
    log: LogReader, answers: pl.DataFrame, table: OfflineTable, start: datetime, stop: datetime
) -> Iterator[ServedPart]:
    items = log.items_of(answers, start, stop)
    if not len(items):
        return
    reference_C, slots = items["reference"].to_numpy(), _slots(items, "keys", "values")
    id_C = slots.keys[:, table.compared.id_slot]
    for part in answers.iter_slices(ANSWERS_AT_ONCE):
        shown = part.select("at", "items").explode("items").drop_nulls("items")
        reference_K, at_K = shown["items"].to_numpy(), shown["at"].dt.epoch("us").to_numpy()
        row_K = np.searchsorted(reference_C, reference_K).clip(max=len(reference_C) - 1)
        there = reference_C[row_K] == reference_K
        row_K, at_K = row_K[there], at_K[there]
        position_K = table.as_of(id_C[row_K], at_K)
        same = pl.DataFrame({"row": row_K, "position": position_K, "at": at_K}).group_by("row", "position")
        groups = same.agg(pl.len().cast(pl.Int64).alias("weight"), pl.col("at").min()).sort("row", "position")
        row_M = groups["row"].to_numpy()
        yield ServedPart(
            table,
            groups["position"].to_numpy(),
            groups["at"].to_numpy(),
            groups["weight"].to_numpy(),
            Slots(slots.keys[row_M], slots.values[row_M]),
            items["item_id"].gather(row_M).to_list(),
        )


def _slots(frame: pl.DataFrame, keys: str, values: str) -> Slots:
    width = len(frame[keys][0])
    return Slots(*(frame[name].list.to_array(width).to_numpy() for name in (keys, values)))
