"""Describe a labelled file as its format does, and read its usable rows chunk by chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from app.errors import ConfigError, DataError
from app.features.fields import SIDES, Side
from app.features.schema import FeatureSchema
from app.features.tables.plain_series import plain_frame
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.labels import MINUS, ZERO, ZERO_OR_ONE, LabelReading
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_chunk import ChunkReader, TableChunk
from app.training.data.readers.table_files import TableFiles
from app.training.data.readers.time_values import COUNTER, TimeForm
from app.training.data.usable_rows import UsableRows, read_labels, read_times
from app.training.data.weight_columns import UNWEIGHTED, WeightColumns

PLACEHOLDER = "\x1f"
"""This column of nulls keeps the number of rows of a side without fields."""
JOIN_FIRST = "training reads one table: join the users' and the items' columns to the events first (see docs/data.md)"


@dataclass(frozen=True)
class Source:
    """Describes a file of labelled rows, not yet read."""

    name: str
    """Names the format."""
    path: Path
    """Names the file, or the folder or pattern that stands for several."""
    schema: FeatureSchema
    chunks: ChunkReader
    label: str
    timestamp: str | None = None
    """Names a column of seconds since 1970 (or milli-, micro- or nanoseconds), of dates, of ISO 8601 text, or of
    numbers that grow with time."""
    time_form: Callable[[], TimeForm] = lambda: COUNTER
    """Tells what the numbers of that column mean."""
    targets: tuple[str, ...] = ()
    """Names the columns beside the label that tell the answer and so may not be features."""
    labels: LabelReading = ZERO_OR_ONE
    """Says which values of the label column are clicks."""
    weighting: WeightColumns = UNWEIGHTED
    """Says which columns tell how much a row counts."""
    derive: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    """Adds the columns that the schema reads and the file does not have. Raises DataError if it cannot."""
    other_files: tuple[Path, ...] = ()
    """Names the files beside `path` that the rows are made of."""
    states: Callable[[Side], pl.DataFrame] | None = None
    """Returns the last state of every user or item, where the format knows it better than by its newest row."""
    hint: str = ""
    """Says what the format looks like; it ends the message about a file that does not fit."""
    title: str = ""
    """Names the data in reports; empty stands for the path."""
    limits: EncodingLimits = DEFAULT_LIMITS
    escape: str | None = None
    """Says what escapes quotes in the cells, where that was said."""

    def __post_init__(self) -> None:
        """Check the schema. Raises ConfigError if it reads a target."""
        names = {name for side in SIDES for name in self.raw_names(side)}
        answers = {self.label, *self.targets, *self.weighting.answers, *([self.timestamp] if self.timestamp else [])}
        leaks = sorted(answers & names)
        if leaks:
            raise ConfigError(f"{leaks} tell the answer and cannot be features; remove them from the schema")

    def raw_names(self, side: Side) -> list[str]:
        """Return the columns that the schema reads for one side."""
        return list(dict.fromkeys(f.raw_name for f in self.schema.side(side)))

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that `chunks` reads."""
        return self.chunks.files if isinstance(self.chunks, TableFiles) else (self.path,)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what a user should know of how the files are read."""
        return self.chunks.notes() if isinstance(self.chunks, TableFiles) else ()

    def usable_rows(self, bad: BadRows) -> Iterator[UsableRows]:
        """Yield the usable rows of the whole source, chunk by chunk.

        Raises:
            DataError: a column is missing, or there are no rows, or too many bad ones.
        """
        columns: set[str] = set()
        yield from self.usable_rows_of_shard(bad, columns)
        self.check_whole(bad, columns)

    def usable_rows_of_shard(self, bad: BadRows, columns: set[str]) -> Iterator[UsableRows]:
        """Yield the usable rows, chunk by chunk, without judging them as a whole.

        Args:
            columns: receives the names of the columns that are met.

        Raises:
            DataError: a column is missing, or there are so many bad rows that the whole cannot be good.
        """
        for chunk in self.chunks(bad):
            if chunk.frame.columns:
                try:
                    frame = self.derive(chunk.frame)
                except DataError as error:
                    raise DataError(f"{self.path}: {error}") from error
                columns.update(frame.columns)
                if chunk.open_ended:
                    absent = [name for name in self._required_columns() if name not in frame.columns]
                    frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
                self._check_columns(set(frame.columns), frame.columns, chunk.file)
                if len(frame):
                    yield self._select_usable(chunk._replace(frame=frame), bad)
                del frame
            bad.check(chunk.fraction)
            del chunk  # or its rows stay while the next ones are read

    def check_whole(self, bad: BadRows, columns: set[str]) -> None:
        """Judge what was read of all rows together, and the columns that were met in any of them.

        Raises:
            DataError: a column is missing, or there are no rows, or too many bad ones.
        """
        if not bad.rows:
            raise DataError(f"{self.path}: has no rows{self._hint()}")
        self._check_columns(columns, columns)
        bad.check()
        if bad.seen >= {MINUS, ZERO}:
            raise DataError(
                f"{self.path}: {self.label} holds -1 and 0, which are not one class: "
                "--positive 1 makes 1 a click and the others none"
            )

    def without_rows(self) -> Source:
        """Return the same source as a shard that has no rows."""
        return replace(self, chunks=lambda _: iter(()))

    def count_rows_before(self) -> int:
        """Count the rows of the shards before this one. It takes as long as reading them."""
        return self.chunks.count_rows_before() if isinstance(self.chunks, TableFiles) else 0

    def _required_columns(self) -> list[str]:
        times = [self.timestamp] if self.timestamp else []
        return list(
            dict.fromkeys([self.label, *times, *self.weighting.names, *self.raw_names("user"), *self.raw_names("item")])
        )

    def _check_columns(self, present: set[str], shown: Iterable[str], file: Path | None = None) -> None:
        missing = [name for name in self._required_columns() if name not in present]
        if missing:
            found = list(shown)
            names = ", ".join(found[:40])
            if len(found) == 1 and not re.fullmatch(r"\w+", found[0]):
                names += " alone, not divided by commas, tabs, semicolons or vertical bars"
            join = f"; {JOIN_FIRST}" if self._is_events_alone(missing) else ""
            raise DataError(f"{file or self.path}: no column {', '.join(missing)}; it has {names}{join}{self._hint()}")

    def _is_events_alone(self, missing: list[str]) -> bool:
        """Tell whether the ids are there and most of what is known of those whom they name is not."""
        ids = {field.raw_name for field in self.schema.fields if field.type == "categorical" and field.id}
        others = {field.raw_name for field in self.schema.fields} - ids
        return bool(ids) and ids.isdisjoint(missing) and others.issuperset(missing) and 2 * len(missing) > len(others)

    def _select_usable(self, chunk: TableChunk, bad: BadRows) -> UsableRows:
        frame = chunk.frame
        labels = None
        if not self.weighting.is_counted:
            labels = read_labels(frame[self.label], self.labels, chunk.rows_N, bad)
        good = pl.repeat(True, len(frame), eager=True) if labels is None else labels.is_not_null()
        times: pl.Series | None = None
        if self.timestamp:
            times = read_times(frame[self.timestamp], self.time_form(), good, chunk.rows_N, bad)
            good = good & times.is_not_null()
        rows = self.weighting.select(frame, labels, good, chunk.rows_N, bad)
        index_N = rows.index_N
        if labels is None or len(index_N) < len(frame):
            frame = frame[index_N]
        user, item = (
            plain_frame(
                frame.select(self.raw_names(side) or pl.repeat(None, len(frame), dtype=pl.Boolean).alias(PLACEHOLDER))
            )
            for side in SIDES
        )
        return UsableRows(
            user,
            item,
            rows.labels_N,
            None if times is None else times.to_numpy()[index_N].astype(np.int64),
            chunk.rows_N[index_N],
            chunk.fraction,
            rows.weights_NC,
        )

    def _hint(self) -> str:
        return f"; {self.hint}" if self.hint else ""
