"""`find_skew` compares what an event log says was served with what a table says should have been, field by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from app.errors import DataError
from app.events.joining.log_reader import LogReader
from app.events.logged_schema import read_logged_schema
from app.features.fields import AnyField, Side
from app.features.schema import FeatureSchema
from app.training.data.readers.bad_rows import BadRows, SkippedRows
from app.training.skew.causes import SkewCause, likely_causes
from app.training.skew.field_differences import FieldDifferences, SideDifferences
from app.training.skew.offline_table import raw_rows, read_tables
from app.training.skew.rewriting import plain_value
from app.training.skew.served_slots import bounds, schema_rows, served_slots

TOLERANCE = 0.01
"""Share of the rows that may differ: features change while they are on their way to the store."""


@dataclass(frozen=True)
class FieldSkew:
    """What was found of one field."""

    field: str
    side: Side
    rows: int
    different: int
    causes: tuple[SkewCause, ...] = ()
    """The most frequent first; of fields that differ beyond the tolerance."""
    example: str = ""
    """Id of an answer, or of an item, that differs."""
    offline: str = ""
    """What the table says there."""

    @property
    def share(self) -> float:
        """Of the rows, those that differ."""
        return self.different / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class SideSkew:
    """What was found of one side."""

    side: Side
    rows: int
    """Answers, or items in answers, that were compared."""
    missing_online: int
    """Others that were served without any feature, though the table has some."""
    without_row: int
    """Others of which the table says nothing for their time."""
    repeated: int
    """Rows of the table that are not the last of their entity, where it has no times."""

    @property
    def share_missing(self) -> float:
        """Of the rows of which the table says something, those that were served without any feature."""
        known = self.rows + self.missing_online
        return self.missing_online / known if known else 0.0


@dataclass(frozen=True)
class Skew:
    """What a comparison found."""

    tolerance: float
    schema_hash: str
    sides: tuple[SideSkew, ...]
    fields: tuple[FieldSkew, ...]
    not_compared: dict[str, str]
    """Why a field was not compared."""
    other_schemas: int
    """Answers by other schemas, which were not compared."""
    bad: SkippedRows = field(default_factory=SkippedRows)
    """Rows of the table that could not be read."""

    @property
    def skewed(self) -> tuple[FieldSkew, ...]:
        """The fields that differ in more rows than are tolerated."""
        return tuple(found for found in self.fields if found.share > self.tolerance)

    @property
    def is_skewed(self) -> bool:
        """Whether more rows differ than are tolerated, in a field or since all features of a side were missing."""
        return bool(self.skewed) or any(side.share_missing > self.tolerance for side in self.sides)


def find_skew(
    events: Path,
    data: Path,
    *,
    at: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tolerance: float = TOLERANCE,
    escape: str | None = None,
    max_bad: float = 0.0,
    report: Callable[[str], None] = lambda what: None,
) -> Skew:
    """Compare a log with a table.

    Args:
        events: folder of the log.
        data: file, folder or pattern: rows with the id of a user or an item, or both, and features of theirs.
        at: the column that says from when on a row holds; without it each entity's last row holds for all times.
        since, until: bounds of the answers' times; by default all of them.
        tolerance: share of the rows that may differ in a field.
        escape: what escapes quotes in cells, as for training.
        max_bad: share of rows that may be unreadable; they are left out.
        report: told what is being done.

    Raises:
        ConfigError: the kind of file is not known, or there is no room for its slots.
        DataError: the log or the table cannot be read, or they have nothing to compare.
    """
    log = LogReader(events)
    start, stop = bounds(log, since, until)
    schemas = schema_rows(log, start, stop)
    if not len(schemas):
        raise DataError(f"{events}: no answers are recorded in that time")
    schema_hash = str(schemas["schema_hash"][0])
    schema = read_logged_schema(events, schema_hash).to_schema()
    bad = BadRows(str(data), max_bad)
    tables = read_tables(
        data,
        schema,
        at,
        bad,
        escape=escape,
        report=lambda rows, fraction: report(f"{rows:,} rows of {data.name} encoded, {fraction:.0%}"),
    )
    found = {table.compared.side: SideDifferences(table) for table in tables}
    for part in served_slots(log, tables, schema_hash, start, stop):
        found[part.table.compared.side].add(part)
        report(f"{sum(side.rows for side in found.values()):,} rows compared")
    if not any(side.rows or side.missing_online for side in found.values()):
        rows = max(side.without_row for side in found.values())
        raise DataError(
            f"{data}: nothing to compare, as it knows none of the users or items of {rows:,} rows that were served, at "
            "that time; ids have to be written as requests send them, and --at to name when a row holds from"
        )
    report("looking for causes")
    differing = [(side, one) for side in found.values() for one in side.fields]
    raw = _raw_values(data, [pair for pair in differing if _is_skewed(*pair, tolerance)], escape)
    return Skew(
        tolerance=tolerance,
        schema_hash=schema_hash,
        sides=tuple(
            SideSkew(
                name,
                side.rows,
                side.missing_online,
                side.without_row,
                0 if side.table.is_timed else side.table.repeated,
            )
            for name, side in found.items()
        ),
        fields=tuple(_field_skew(side, one, schema, raw.get(one.field.name)) for side, one in differing),
        not_compared=_not_compared(schema, [one.field for _, one in differing], list(found)),
        other_schemas=int(schemas["answers"][1:].sum()),
        bad=bad.skipped,
    )


def _is_skewed(side: SideDifferences, one: FieldDifferences, tolerance: float) -> bool:
    return one.different > tolerance * side.rows


def _field_skew(
    side: SideDifferences, one: FieldDifferences, schema: FeatureSchema, raw: pl.Series | None
) -> FieldSkew:
    found = FieldSkew(one.field.name, side.table.compared.side, side.rows, one.different)
    if raw is None or one.examples is None:
        return found
    causes = likely_causes(one, one.examples, schema, side.table, raw)
    value = plain_value(raw[0])
    return FieldSkew(
        found.field,
        found.side,
        found.rows,
        found.different,
        tuple(causes),
        str(one.examples.name_K[0]),
        "" if value is None else str(value),
    )


def _raw_values(
    data: Path, skewed: Sequence[tuple[SideDifferences, FieldDifferences]], escape: str | None
) -> dict[str, pl.Series]:
    """Return what the table says in the examples of each field, which takes another look into it."""
    rows = {
        one.field.name: side.table.row_P[one.examples.position_K] for side, one in skewed if one.examples is not None
    }
    if not rows:
        return {}
    wanted = np.unique(np.concatenate(list(rows.values())))
    columns = list(dict.fromkeys(one.field.raw_name for _, one in skewed))
    frame = pl.concat(raw_rows(data, wanted, columns, escape), how="vertical_relaxed")
    return {
        one.field.name: frame[one.field.raw_name].gather(np.searchsorted(wanted, rows[one.field.name]))
        for _, one in skewed
        if one.field.name in rows
    }


def _not_compared(schema: FeatureSchema, compared: Sequence[AnyField], sides: Sequence[Side]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for one in schema.fields:
        if one.is_id or one in compared:
            continue
        if one.entity == "context":
            reasons[one.name] = "comes with each request"
        elif one.is_position:
            reasons[one.name] = "is held at its serve_as"
        elif one.side not in sides:
            reasons[one.name] = f"the table has no {one.side} ids"
        else:
            reasons[one.name] = f"the table has no column {one.raw_name}"
    return reasons
