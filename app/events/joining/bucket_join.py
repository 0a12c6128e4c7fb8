"""`join_bucket` finds out what became of the answers of one span of time: which of their items were clicked.

An answer counts what happened until a window after it, whenever the join runs: were rows written as soon as they are
clicked, those that take long would be missing among the newest, and the model would take them for less liked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from app.events.impression_id import ALPHABET, LENGTH
from app.events.joining.log_reader import LogReader
from app.events.records import FEEDBACK, IMPRESSIONS

SHOWN = "shown"
"""Type of feedback that says that an item was on the screen."""
NOT_SHOWN = -1
"""Label of an item that was not on the screen, though the answer has it."""
SKEW = timedelta(minutes=5)
"""A sender's clock may be so far behind: what it says happened before the answer happened with it."""


@dataclass
class JoinCounts:
    """What a join found."""

    answers: int = 0
    impressions: int = 0
    """Items of the answers that were shown, as far as is known."""
    positives: int = 0
    """Of these, with the feedback that is the label."""
    duplicates: int = 0
    """Feedback that was there before: with the same id, or without one for the same item and of the same type."""
    late: int = 0
    """Feedback that came after the window."""
    orphans: int = 0
    """Feedback on answers that the log does not have."""
    not_recorded: int = 0
    """Feedback on items that are not among those recorded of their answer."""
    without_slots: int = 0
    """Answers left out because the log lacks the slots of some item."""
    other_types: int = 0
    """Feedback that is neither the label nor says that an item was shown."""

    def __add__(self, other: JoinCounts) -> JoinCounts:
        return JoinCounts(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


@dataclass
class JoinedBucket:
    """The answers of one span of time."""

    answers: pl.DataFrame
    """The columns of the log, and `labels`: for each of `items` 1, 0, or NOT_SHOWN. By time and id."""
    items: pl.DataFrame
    """The slots that they refer to, by reference."""
    counts: JoinCounts


def join_bucket(log: LogReader, start: datetime, stop: datetime, window: timedelta, label: str) -> JoinedBucket:
    """Join the answers given in [start, stop) with the feedback on them.

    Args:
        window: how long after an answer feedback counts.
        label: type of the feedback that makes an item's label 1.
    """
    counts = JoinCounts()
    answers = log.collect(log.records(IMPRESSIONS, start, stop)).unique("impression_id", keep="first")
    items = log.items_of(answers, start, stop)
    shown = answers.select("impression_id", "items").explode("items").drop_nulls("items")
    lacking = shown.join(items, left_on="items", right_on="reference", how="anti")["impression_id"].unique()
    counts.without_slots = len(lacking)
    answers = answers.filter(~pl.col("impression_id").is_in(lacking.implode())).sort("at", "impression_id")
    received = log.collect(log.records(FEEDBACK, start - SKEW, stop + window))
    feedback, counts.duplicates = _distinct(received, start, stop)
    found = _found(answers, items, feedback, window)
    labels, counts.positives, counts.impressions = _labels(answers, found, label)
    counts.answers = len(answers)
    _count_lost(counts, log, feedback.filter(pl.col("at") >= start, pl.col("at") < stop), start, stop, window)
    counts.not_recorded = int(found["position"].null_count())
    counts.other_types = len(found.filter(~pl.col("type").is_in([label, SHOWN])))
    return JoinedBucket(answers.with_columns(labels), items, counts)


def _distinct(feedback: pl.DataFrame, start: datetime, stop: datetime) -> tuple[pl.DataFrame, int]:
    """Return each record once, the first that came, and how many others there are with a time in [start, stop)."""
    name = pl.coalesce(
        "feedback_id", pl.format("{}\x1f{}\x1f{}", pl.col("request_id"), pl.col("item_id"), pl.col("type"))
    )
    feedback = (
        feedback.unique()
        .with_columns(name.alias("name"))
        .sort("received_at", "at", "name", "request_id", "item_id", "type")
    )
    again = feedback.filter(~pl.col("name").is_first_distinct(), pl.col("at") >= start, pl.col("at") < stop)
    return feedback.unique("name", keep="first", maintain_order=True), len(again)


def _found(answers: pl.DataFrame, items: pl.DataFrame, feedback: pl.DataFrame, window: timedelta) -> pl.DataFrame:
    """Return the feedback on these answers: `row` of the answer, `position` of the item in it, `type`.

    The position is null where the answer has no such item.
    """
    answers = answers.with_row_index("row")
    names = pl.concat(
        answers.select(pl.col(name).alias("request_id"), "row", pl.col("at").alias("answered_at"))
        for name in ("impression_id", "caller_id")
    ).drop_nulls("request_id")
    on_answers = feedback.join(names, on="request_id").filter(
        pl.col("at") >= pl.col("answered_at") - SKEW, pl.col("at") <= pl.col("answered_at") + window
    )
    # A caller may have named several requests alike: what was shown last before it is what was clicked.
    ahead = (pl.col("answered_at") - pl.col("at")).clip(timedelta(0), None)
    on_answers = on_answers.sort(ahead, "answered_at", "row", descending=[False, True, False])
    on_answers = on_answers.unique("name", keep="first", maintain_order=True)
    places = (
        answers.join(on_answers.select("row").unique(), on="row", how="semi")
        .select("row", "items", pl.int_ranges(pl.col("items").list.len()).alias("position"))
        .explode("items", "position")
        .join(items.select(pl.col("reference").alias("items"), "item_id"), on="items")
        .select("row", "item_id", "position")
    )
    return on_answers.join(places, on=["row", "item_id"], how="left").select("row", "position", "type")


def _labels(answers: pl.DataFrame, found: pl.DataFrame, label: str) -> tuple[pl.Series, int, int]:
    """Return the labels of each answer's items, how many are 1, and how many items were shown."""
    lengths = answers["items"].list.len().to_numpy().astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    labels = np.zeros(offsets[-1], np.int8)
    found = found.drop_nulls("position")
    shown = found.filter(pl.col("type") == SHOWN)
    reported = np.zeros(len(answers), np.bool_)
    reported[shown["row"].to_numpy()] = True
    labels[np.repeat(reported, lengths)] = NOT_SHOWN
    labels[_places(shown, offsets)] = 0
    labels[_places(found.filter(pl.col("type") == label), offsets)] = 1
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(labels))
    return pl.Series("labels", lists), int((labels == 1).sum()), int((labels != NOT_SHOWN).sum())


def _places(found: pl.DataFrame, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    places: npt.NDArray[np.int64] = offsets[found["row"].to_numpy()] + found["position"].to_numpy()
    return places


def _count_lost(
    counts: JoinCounts, log: LogReader, feedback: pl.DataFrame, start: datetime, stop: datetime, window: timedelta
) -> None:
    """Count the feedback of [start, stop) that came late, and that on answers that are not there."""
    if not len(feedback):
        return
    feedback = feedback.with_columns(_answered_at(feedback["request_id"]))
    late = (pl.col("at") - pl.col("answered_at") > window).fill_null(False)
    counts.late = int(feedback.select(late.sum()).item())
    answers = log.records(IMPRESSIONS, start - window, stop + SKEW)
    names = log.collect(answers.select("impression_id", "caller_id"))
    there = pl.concat([names["impression_id"], names["caller_id"].drop_nulls()]).unique()
    counts.orphans = len(feedback.filter(~late, ~pl.col("request_id").is_in(there.implode())))


def _answered_at(ids: pl.Series) -> pl.Series:
    """Return the times that ids of impressions say; null for ids of other forms."""
    ours = ids.str.contains(f"^[0-7][{ALPHABET}]{{{LENGTH - 1}}}$")
    texts = ids.to_frame("id").select(pl.when(ours).then(pl.col("id").str.slice(0, 10)).otherwise(pl.lit("0" * 10)))
    value_of = np.zeros(256, np.int64)
    value_of[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(32)
    digits = value_of[texts.to_series().to_numpy().astype("S10").view(np.uint8).reshape(len(ids), 10)]
    times_us = (digits << 5 * np.arange(9, -1, -1)).sum(1) * 1000
    times = pl.Series("answered_at", times_us).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    return times.to_frame().select(pl.when(ours).then(pl.col("answered_at")).alias("answered_at")).to_series()
