"""`OfflineTable`: what a table says of users or items at any time, in slots, as the service would have encoded it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import ConfigError, DataError
from app.features.encoder import Encoder
from app.features.fields import SIDES, AnyField, Side
from app.features.schema import FeatureSchema
from app.features.slots import Keys, Slots, Values
from app.features.tables.plain_series import plain_frame
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.table_reader import table_files
from app.training.data.readers.time_values import TimeForm, seconds_of, time_form
from app.training.data.table_encoder import TableEncoder

Ids = npt.NDArray[np.int64]
Times = npt.NDArray[np.int64]
"""Microseconds since 1970."""
Positions = npt.NDArray[np.int64]
NOWHERE = -1
NO_TIME = np.iinfo(np.int64).min
"""The time of a row without one, which holds at no time."""
SAMPLE_ROWS = 10_000


@dataclass(frozen=True)
class ComparedSide:
    """The fields of one side that a table has a column for, and where their slots are."""

    side: Side
    id_name: str
    id_slot: int
    fields: tuple[AnyField, ...]
    slots: tuple[slice, ...]
    """Of each field, among the slots of the side."""
    absent: Slots
    """[S] of an entity of which nothing is known."""
    stored_N: npt.NDArray[np.bool_]
    """[S] whether a slot is that of a feature which is stored, compared or not: not the id's, nor of the request."""

    @classmethod
    def of(cls, schema: FeatureSchema, side: Side, columns: list[str]) -> ComparedSide | None:
        """Return what can be compared of a side; None if the table lacks its id, or all else."""
        layout = schema.layout(side)
        id_field = layout.id_field
        if id_field is None or id_field.raw_name not in columns:
            return None
        stored = [(field, slots) for field, slots in layout if not field.is_id and field.is_stored]
        compared = [(field, slots) for field, slots in stored if field.raw_name in columns]
        if not compared:
            return None
        stored_N = np.zeros(layout.width, np.bool_)
        for _, slots in stored:
            stored_N[slots] = True
        return cls(
            side,
            id_field.raw_name,
            int(layout.slots[id_field.name].start),
            tuple(field for field, _ in compared),
            tuple(slots for _, slots in compared),
            Encoder(schema, side).encode({}),
            stored_N,
        )


class OfflineTable:
    """The rows of a table that tell of one side, by entity and time. Their slots may be larger than memory."""

    def __init__(self, compared: ComparedSide, slots: Slots, time_N: Times, is_timed: bool) -> None:
        """
        Args:
            slots: [N, S] in the order of the file.
            time_N: from when on each row holds.
            is_timed: whether it has times; otherwise the last row of an entity holds for all times.
        """
        self.compared = compared
        self.slots = slots
        self.is_timed = is_timed
        id_N = np.array(slots.keys[:, compared.id_slot])
        rows = np.flatnonzero((id_N != compared.absent.keys[compared.id_slot]) & (time_N != NO_TIME))
        self.row_P = rows[np.lexsort((time_N[rows], id_N[rows]))]
        """The rows by entity, time and number: the order in which positions count."""
        self.time_P = time_N[self.row_P]
        self._ids, first, self._code_P = np.unique(id_N[self.row_P], return_index=True, return_inverse=True)
        self.first_P = first[self._code_P]
        """The position of the first row of each position's entity."""
        self._times = np.unique(self.time_P)
        self._place_P = self._code_P * (len(self._times) + 1) + np.searchsorted(self._times, self.time_P) + 1

    @property
    def repeated(self) -> int:
        """How many rows there are of an entity beyond its first."""
        return len(self.row_P) - len(self._ids)

    def as_of(self, ids: Ids, at: Times) -> Positions:
        """Return where the row is that held for each entity at a time; NOWHERE where there is none."""
        if not len(self._ids):
            return np.full(len(ids), NOWHERE)
        code = np.searchsorted(self._ids, ids).clip(max=len(self._ids) - 1)
        known = self._ids[code] == ids
        place = code * (len(self._times) + 1) + np.searchsorted(self._times, at, side="right")
        position = np.searchsorted(self._place_P, place, side="right") - 1
        found = known & (position >= 0)
        found &= self._code_P[position] == code
        return np.where(found, position, NOWHERE)

    def id_at(self, positions: Positions) -> Ids:
        """Return the ids' keys of rows at positions."""
        return self._ids[self._code_P[positions]]

    def slots_at(self, positions: Positions, slots: slice = slice(None)) -> Slots:
        """Return the slots [P, S] at positions, or those of one field."""
        rows = self.row_P[positions]
        return Slots(self.slots.keys[rows, slots], self.slots.values[rows, slots])


def read_tables(
    path: Path,
    schema: FeatureSchema,
    at: str | None,
    bad: BadRows,
    *,
    escape: str | None = None,
    report: Callable[[int, float], None] = lambda rows, fraction: None,
    limits: EncodingLimits = DEFAULT_LIMITS,
) -> list[OfflineTable]:
    """Encode a table by a schema, for each side of which it has ids and features.

    Args:
        at: the column that says from when on a row holds.
        bad: records the rows that cannot be read, and those without a time.
        report: receives the number of rows encoded so far and the share of the table that has been read.

    Raises:
        ConfigError: the kind of file is not known, or there is no room for the slots.
        DataError: it cannot be read, or lacks the columns.
    """
    encoder = TableEncoder(schema, str(path), 1.0, logged=False)
    sides: list[ComparedSide] = []
    times: list[Times] = []
    form: TimeForm | None = None
    rows = 0
    with ExitStack() as files:
        scratch: list[_Scratch] = []
        for chunk in table_files(path, limits, escape)(bad):
            frame = chunk.frame
            if len(frame):
                if not scratch:
                    sides = _sides(path, schema, frame.columns, at)
                    scratch = [_Scratch(files, len(side.stored_N)) for side in sides]
                for side, file in zip(sides, scratch, strict=True):
                    names = [name for name in dict.fromkeys(_raw_names(schema, side)) if name in frame.columns]
                    slots = encoder.slots(side.side, plain_frame(frame.select(names)), chunk.rows_N)
                    file.append(slots)
                if at is not None:
                    column = frame[at] if at in frame.columns else pl.Series(at, [None] * len(frame))
                    form = form or time_form(column[:SAMPLE_ROWS])
                    seconds = seconds_of(column, form)
                    bad.add(f"no time in {at}", chunk.rows_N[seconds.is_null().to_numpy()])
                    times.append((seconds * 1e6).round().cast(pl.Int64).fill_null(NO_TIME).to_numpy())
                rows += len(frame)
            bad.check(chunk.fraction)
            report(rows, chunk.fraction)
            del chunk, frame  # or its rows stay while the next ones are read
        bad.check()
        if not rows:
            raise DataError(f"{path}: has no rows to compare with")
        time_N = np.concatenate(times) if times else np.zeros(rows, np.int64)
        return [
            OfflineTable(side, file.slots(rows), time_N, at is not None)
            for side, file in zip(sides, scratch, strict=True)
        ]


def raw_rows(
    path: Path, rows: npt.NDArray[np.int64], columns: list[str], escape: str | None = None
) -> Iterator[pl.DataFrame]:
    """Yield some columns of some rows, given by their places in the table in rising order, a part at a time."""
    start = 0
    for chunk in table_files(path, DEFAULT_LIMITS, escape)(BadRows(str(path), 1.0)):
        frame = chunk.frame
        inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + len(frame))] - start
        if len(inside):
            there = frame.select([name for name in columns if name in frame.columns])[inside]
            lacking = [pl.lit(None, pl.String).alias(name) for name in columns if name not in frame.columns]
            yield plain_frame(there.with_columns(lacking).select(columns))
        start += len(frame)


def _sides(path: Path, schema: FeatureSchema, columns: list[str], at: str | None) -> list[ComparedSide]:
    found = ", ".join(columns[:40])
    if at is not None and at not in columns:
        raise DataError(f"{path}: no column {at}; it has {found}")
    sides = [side for name in SIDES if (side := ComparedSide.of(schema, name, columns)) is not None]
    if not sides:
        ids = [layout.id_field.raw_name for name in SIDES if (layout := schema.layout(name)).id_field is not None]
        raise DataError(
            f"{path}: has nothing to compare with; it takes a column {' or '.join(ids) or 'of ids'}, as the schema of "
            f"the log names it, and a column of the features of those. It has {found}"
        )
    return sides


def _raw_names(schema: FeatureSchema, side: ComparedSide) -> list[str]:
    return [field.raw_name for field in schema.side(side.side) if not field.is_position]


class _Scratch:
    """Slots in files without a name, of which nothing is left when the process ends."""

    def __init__(self, files: ExitStack, width: int) -> None:
        self._width = width
        self._keys, self._values = (files.enter_context(_temporary()) for _ in range(2))

    def append(self, slots: Slots) -> None:
        try:
            self._keys.write(np.ascontiguousarray(slots.keys).data)
            self._values.write(np.ascontiguousarray(slots.values).data)
        except OSError as error:
            raise _no_room(error) from error

    def slots(self, rows: int) -> Slots:
        try:
            self._keys.flush()
            self._values.flush()
        except OSError as error:
            raise _no_room(error) from error
        keys: Keys = np.memmap(self._keys, np.int64, "r", shape=(rows, self._width))
        values: Values = np.memmap(self._values, np.float32, "r", shape=(rows, self._width))
        return Slots(keys, values)


def _temporary() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile(buffering=1 << 20)
    except OSError as error:
        raise _no_room(error) from error


def _no_room(error: OSError) -> ConfigError:
    return ConfigError(
        f"{tempfile.gettempdir()}: no room for the encoded table: {error.strerror}; name another by TMPDIR"
    )
