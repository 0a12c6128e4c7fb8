"""`score_table` scores the rows of a table as a service would answer them, a bounded number at a time.

Encoders and program are those of serving, in its split form, so a score is that of `POST /rank` with the row's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from app.errors import DataError
from app.features.fields import SIDES
from app.features.slots import Slots
from app.features.tables.plain_series import plain_frame
from app.registry.artifact.artifact import Artifact
from app.training.data.encoding_limits import DEFAULT_LIMITS, EncodingLimits
from app.training.data.readers.bad_rows import BadRows, SkippedRows
from app.training.data.readers.table_reader import table_files
from app.training.data.table_encoder import TableEncoder

SCORE = "score"
ROW = "row"
SCORED_AT_ONCE = 4096
"""Rows scored at a time: their states take some megabytes."""


@dataclass
class TableScores:
    """What was scored, so far or in all."""

    rows: int = 0
    mean: float = 0.0
    """Of the scores."""
    bad: SkippedRows = field(default_factory=SkippedRows)
    """Rows that could not be read."""
    unreadable: dict[str, SkippedRows] = field(default_factory=dict)
    """Rows with a value that fits no slot, by field; there the field counts as missing, as in serving."""
    absent: tuple[str, ...] = ()
    """Columns that the version reads and the table does not have; their fields count as missing."""


def score_table(
    path: Path,
    artifact: Artifact,
    totals: TableScores,
    *,
    keep: Sequence[str] = (),
    allow_missing: bool = False,
    escape: str | None = None,
    max_bad: float = 0.0,
    report: Callable[[int, float], None] = lambda rows, fraction: None,
    limits: EncodingLimits = DEFAULT_LIMITS,
) -> Iterator[pl.DataFrame]:
    """Yield the number of each row, the columns to keep and its score, in the order of the rows.

    Args:
        path: file, folder or pattern, with a column for each raw name of the version's schema.
        totals: filled in on the way.
        keep: columns of the table to yield beside the ids.
        allow_missing: score though columns are missing.
        escape: what escapes quotes in cells, as for training.
        max_bad: share of rows that may be unreadable; they are left out.
        report: receives the number of rows scored so far and the share of the table that has been read.

    Raises:
        ConfigError: the kind of file is not known.
        DataError: it cannot be read, or lacks a column.
    """
    bad, schema = BadRows(str(path), max_bad, fewest=1), artifact.schema
    encoder = TableEncoder(schema, str(path), 1.0, logged=False)
    ids = [layout.id_field.raw_name for side in SIDES if (layout := schema.layout(side)).id_field is not None]
    wanted = list(dict.fromkeys([*ids, *keep]))
    total = 0.0
    for chunk in table_files(path, limits, escape)(bad):
        frame = chunk.frame
        if len(frame):
            needed = [name for side in SIDES for name in _raw_names(artifact, side)]
            absent = [name for name in needed if name not in frame.columns]
            unknown = [name for name in keep if name not in frame.columns and not chunk.open_ended]
            if unknown or (absent and not allow_missing and not chunk.open_ended):
                raise _lacks(path, unknown or absent, frame.columns, bool(unknown))
            totals.absent = tuple(dict.fromkeys([*totals.absent, *(absent if not chunk.open_ended else [])]))
            lacking = [name for name in dict.fromkeys([*absent, *wanted]) if name not in frame.columns]
            frame = frame.with_columns(pl.lit(None, pl.String).alias(name) for name in lacking)
            user, item = (
                encoder.slots(side, plain_frame(frame.select(_raw_names(artifact, side))), chunk.rows_N)
                for side in SIDES
            )
            score_N = _scores(artifact, user, item)
            total += float(score_N.sum(dtype=np.float64))
            totals.rows += len(frame)
            totals.mean = total / totals.rows
            columns = [pl.Series(ROW, chunk.rows_N), *frame.select(wanted).get_columns(), pl.Series(SCORE, score_N)]
            yield pl.DataFrame(columns)
        bad.check(chunk.fraction)
        report(totals.rows, chunk.fraction)
        del chunk, frame  # or its rows stay while the next ones are read
    bad.check()
    if not totals.rows:
        raise DataError(f"{path}: has no rows to score")
    totals.bad, totals.unreadable = bad.skipped, encoder.unreadable


def _scores(artifact: Artifact, user: Slots, item: Slots) -> npt.NDArray[np.float32]:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(user.keys), SCORED_AT_ONCE):
            rows = slice(start, start + SCORED_AT_ONCE)
            users, items = (Slots(side.keys[rows], side.values[rows]) for side in (user, item))
            parts.append(artifact.score_rows(users, items).cpu().numpy())
    return np.concatenate(parts)


def _raw_names(artifact: Artifact, side: str) -> list[str]:
    fields = (field for field in artifact.schema.fields if field.side == side and not field.is_position)
    return list(dict.fromkeys(field.raw_name for field in fields))


def _lacks(path: Path, names: Sequence[str], columns: Sequence[str], kept: bool) -> DataError:
    found = ", ".join(columns[:40])
    advice = "name one of those" if kept else "add them, or let their fields be missing with --allow-missing"
    return DataError(f"{path}: no column {', '.join(names)}; it has {found}: {advice}")
