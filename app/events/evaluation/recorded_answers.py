"""`joined_answers` and `logged_answers` read answers with their labels: what `ctr join` wrote, or the log itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from app.errors import DataError
from app.events.joining.bucket_join import join_bucket
from app.events.joining.join import APPEND_LAG, STATE, parts, read_answers
from app.events.joining.log_reader import LogReader
from app.events.records import IMPRESSIONS

SPAN = timedelta(hours=1)


class Period(NamedTuple):
    """From when and until when answers count; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None


class LabelledAnswers(NamedTuple):
    """Some answers, with the columns of the log and `labels`, and the slots of their items."""

    answers: pl.DataFrame
    items: pl.DataFrame


def joined_answers(joined: Path, period: Period) -> Iterator[LabelledAnswers]:
    """Read the rows that `ctr join` wrote, a span of time at a time. Raises DataError if there are none."""
    if not (joined / STATE).is_file():
        raise DataError(f"{joined}: `ctr join --events DIR --out {joined}` has written nothing there yet")
    for answers_file, items_file in parts(joined):
        answers = _within(read_answers(answers_file), period)
        if len(answers):
            yield LabelledAnswers(answers, read_answers(items_file))


def logged_answers(events: Path, period: Period, *, window: timedelta, label: str) -> Iterator[LabelledAnswers]:
    """Join the answers of a log with what became of them, a span of time at a time, without writing anything.

    Args:
        window: how long after an answer feedback counts; answers of which it is not over are left out.
        label: type of the feedback that is a click.

    Raises DataError if there is no log, or a file of it cannot be read.
    """
    log = LogReader(events)
    over = datetime.now(UTC) - APPEND_LAG - window
    first, stop = period.since or log.first or over, min(period.until or over, over)
    for start, end in log.spans(IMPRESSIONS, first, stop, SPAN):
        bucket = join_bucket(log, start, end, window, label)
        if len(bucket.answers):
            yield LabelledAnswers(bucket.answers, bucket.items)


def _within(answers: pl.DataFrame, period: Period) -> pl.DataFrame:
    since, until = period
    if since is not None:
        answers = answers.filter(pl.col("at") >= since)
    return answers if until is None else answers.filter(pl.col("at") < until)
