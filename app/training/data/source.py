"""A labelled file as a format describes it, and its usable rows chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError, DataError
from app.features.fields import SIDES, Side
from app.features.schema import FeatureSchema
from app.training.data.readers.bad_rows import BadRows, no_rows
from app.training.data.readers.chunk import Chunk, Chunks
from app.training.data.sharding import FileChunks
from app.training.distributed import ProcessGroup

NOTHING = "\x1f"
"""A column of nulls that stands for a side without fields, whose rows would have no place otherwise."""
LABELS = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}


@dataclass(frozen=True)
class Source:
    """A file of labelled rows, not yet read."""

    name: str
    """Of the format."""
    path: Path
    """Of the file, or the folder or pattern that names several."""
    schema: FeatureSchema
    chunks: Chunks
    label: str
    timestamp: str | None = None
    """Column of numbers that grow with time."""
    targets: tuple[str, ...] = ()
    """Columns that tell the answer and so may not be features, beside the label."""
    labels: Mapping[str, float] = field(default_factory=lambda: LABELS)
    derive: Callable[[pl.DataFrame], pl.DataFrame] = lambda frame: frame
    """Adds the columns that the schema reads and the file does not have. Raises DataError."""
    also: tuple[Path, ...] = ()
    """Other files that the rows are made of."""
    states: Callable[[Side], pl.DataFrame] | None = None
    """The last state of every user or item, where the format knows it better than by its newest row."""
    hint: str = ""
    """Added to what is said of a file that does not fit: what the format should look like."""

    def __post_init__(self) -> None:
        """Raises ConfigError where the schema reads a target."""
        names = {name for side in SIDES for name in self.raw_names(side)}
        leaks = sorted({self.label, *self.targets, *([self.timestamp] if self.timestamp else [])} & names)
        if leaks:
            raise ConfigError(f"{leaks} tell the answer and cannot be features; remove them from the schema")

    def raw_names(self, side: Side) -> list[str]:
        return list(dict.fromkeys(f.raw_name for f in self.schema.side(side)))

    def parts(self, bad: BadRows) -> Iterator[Part]:
        """The usable rows, chunk by chunk.

        Raises:
            DataError: a column is missing, or there are no rows, or too many bad ones.
        """
        seen: set[str] = set()
        yield from self.some_parts(bad, seen)
        self.conclude(bad, seen)

    def conclude(self, bad: BadRows, seen: set[str]) -> None:
        """Judge what was found, and which columns were seen, in all of the rows. Raises DataError."""
        if not bad.rows:
            raise DataError(f"{self.path}: has no rows{self._hint()}")
        self._check_columns(seen, seen)
        bad.check()

    def some_parts(self, bad: BadRows, seen: set[str]) -> Iterator[Part]:
        """The usable rows, chunk by chunk, of a share: as a whole they are not judged.

        Args:
            seen: gathers the names of columns.

        Raises:
            DataError: a column is missing, or there are so many bad rows that the whole cannot be good.
        """
        for chunk in self.chunks(bad):
            if chunk.frame.columns:
                try:
                    frame = self.derive(chunk.frame)
                except DataError as error:
                    raise DataError(f"{self.path}: {error}") from error
                seen.update(frame.columns)
                if chunk.open_ended:
                    absent = [name for name in self._wanted() if name not in frame.columns]
                    frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)
                self._check_columns(set(frame.columns), frame.columns)
                if len(frame):
                    yield self._part(chunk._replace(frame=frame), bad)
                del frame
            bad.check(chunk.fraction)
            del chunk  # or its rows stay while the next ones are read

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that `chunks` reads."""
        return self.chunks.files if isinstance(self.chunks, FileChunks) else (self.path,)

    def share(self, group: ProcessGroup) -> tuple[Source, Callable[[], int]]:
        """What this process reads of it, and how to count the rows before. A format whose rows can only be made
        together is read by the first process. All processes have to ask. Raises DataError."""
        if not isinstance(self.chunks, FileChunks):
            return (self if group.is_first else replace(self, chunks=lambda _: iter(()))), no_rows
        chunks = self.chunks.share(group)
        return replace(self, chunks=chunks), chunks.rows_before

    def _wanted(self) -> list[str]:
        times = [self.timestamp] if self.timestamp else []
        return list(dict.fromkeys([self.label, *times, *self.raw_names("user"), *self.raw_names("item")]))

    def _check_columns(self, present: set[str], has: Iterable[str]) -> None:
        missing = [name for name in self._wanted() if name not in present]
        if missing:
            shown = ", ".join(list(has)[:40])
            raise DataError(f"{self.path}: no column {', '.join(missing)}; it has {shown}{self._hint()}")

    def _part(self, chunk: Chunk, bad: BadRows) -> Part:
        frame = chunk.frame
        text = frame[self.label].cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
        labels = text.replace_strict(self.labels, default=None, return_dtype=pl.Float32)
        good = labels.is_not_null()
        bad.add(f"{self.label} is not 0 or 1", chunk.rows_N[(~good).to_numpy()])
        times_N: npt.NDArray[np.int64] | None = None
        if self.timestamp:
            times = frame[self.timestamp].cast(pl.Float64, strict=False)
            timed = times.is_finite().fill_null(False)
            bad.add(f"{self.timestamp} is not a number", chunk.rows_N[(good & ~timed).to_numpy()])
            good = good & timed
            times_N = times.filter(good).to_numpy().astype(np.int64)
        if not good.all():
            frame, labels = frame.filter(good), labels.filter(good)
        user, item = (
            frame.select(self.raw_names(side) or pl.repeat(None, len(frame), dtype=pl.Boolean).alias(NOTHING))
            for side in SIDES
        )
        return Part(
            user,
            item,
            labels.to_numpy().astype(np.float32),
            times_N,
            chunk.rows_N[good.to_numpy()],
            chunk.fraction,
        )

    def _hint(self) -> str:
        return f"; {self.hint}" if self.hint else ""


class Part(NamedTuple):
    """Some usable rows: raw features of both sides, labels, times, and their numbers in the file."""

    user: pl.DataFrame
    item: pl.DataFrame
    labels_N: npt.NDArray[np.float32]
    times_N: npt.NDArray[np.int64] | None
    rows_N: npt.NDArray[np.int64]
    fraction: float

    def side(self, side: Side) -> pl.DataFrame:
        return self.user if side == "user" else self.item
