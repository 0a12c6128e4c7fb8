"""Propose a `features.yaml` from a table: by names first, then by what the values do; every line says why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from app.errors import ConfigError, DataError
from app.features.fields import Entity
from app.features.schema import parse_schema
from app.training.data.column_profile import ColumnProfile
from app.training.data.column_roles import (
    ITEM_WORDS,
    USER_WORDS,
    find_id_column,
    find_label_column,
    is_time,
    labels_of,
    reason_to_leave_out,
)
from app.training.data.field_proposal import FieldProposal, propose_field, share_spaces
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.mixed_columns import stack_frames
from app.training.data.readers.table_reader import table_files

ROWS = 100_000


@dataclass(frozen=True)
class SchemaProposal:
    """Holds a proposed schema, and how to train with it."""

    text: str
    """Holds YAML with comments, which parses as a schema."""
    label: str
    timestamp: str | None
    left_out: dict[str, str]
    """Maps the name of each column that is no feature to the reason."""


def propose_schema(
    path: Path, *, label: str | None = None, user_id: str | None = None, item_id: str | None = None, rows: int = ROWS
) -> SchemaProposal:
    """Propose a schema from the first `rows` rows of a table with named columns.

    Raises:
        ConfigError: a named column is not there, none looks like a label, or none can be a feature.
        DataError: the file cannot be read.
    """
    profiles = {series.name: ColumnProfile(series) for series in _first_rows(path, rows)}
    for name in (label, user_id, item_id):
        if name and name not in profiles:
            raise ConfigError(f"{path}: no column {name}; it has {', '.join(list(profiles)[:40])}")
    label = label or find_label_column(path, profiles)
    labels = labels_of(profiles[label])
    left_out: dict[str, str] = {label: "the label"}
    timestamp = next((name for name, profile in profiles.items() if name not in left_out and is_time(profile)), None)
    if timestamp:
        left_out[timestamp] = "the time; `ctr train --timestamp` splits by it"
    for name, profile in profiles.items():
        reason = "" if name in left_out else reason_to_leave_out(profile, labels, is_id=name in (user_id, item_id))
        if reason:
            left_out[name] = reason
    usable = {name: profile for name, profile in profiles.items() if name not in left_out}
    user_id = user_id or find_id_column(usable, USER_WORDS)
    others = {name: profile for name, profile in usable.items() if name != user_id}
    item_id = item_id or find_id_column(others, ITEM_WORDS)
    ids: dict[Entity, str] = {}
    if user_id:
        ids["user"] = user_id
    if item_id:
        ids["item"] = item_id
    proposals = [propose_field(profile, usable, ids) for profile in usable.values()]
    if not proposals:
        raise ConfigError(f"{path}: no column can be a feature: {'; '.join(f'{n}: {r}' for n, r in left_out.items())}")
    share_spaces(proposals, ids)
    text = _yaml_document(path, proposals, label, timestamp, left_out, len(labels))
    parse_schema(text, origin=f"the proposal for {path.name}")
    return SchemaProposal(text, label, timestamp, left_out)


def _first_rows(path: Path, rows: int) -> Iterable[pl.Series]:
    """Yield the columns of the first rows, with null for empty text and for NaN."""
    frames: list[pl.DataFrame] = []
    for chunk in table_files(path)(BadRows(str(path), 1.0)):
        frames.append(chunk.frame)
        if sum(len(frame) for frame in frames) >= rows:
            break
    table = stack_frames(frames)[:rows]
    if table.is_empty():
        raise DataError(f"{path}: has no rows")
    for series in table:
        if series.dtype == pl.String:
            yield series.replace("", None)
        else:
            yield series.fill_nan(None) if series.dtype.is_float() else series


def _yaml_document(
    path: Path,
    proposals: list[FieldProposal],
    label: str,
    timestamp: str | None,
    left_out: dict[str, str],
    rows: int,
) -> str:
    time_option = " --timestamp " + timestamp if timestamp else ""
    lines = [
        f"# Proposed from the first {rows:,} rows of {path.name}. A guess: read it, mend it, keep it with your code.",
        f"# ctr train --dataset table --data {path.name} --features features.yaml --label {label}{time_option}",
        *(f"# Left out: {name}: {reason}" for name, reason in left_out.items()),
        "version: 1",
        "fields:",
    ]
    for entity in ("user", "context", "item"):
        lines += [proposal.yaml() for proposal in proposals if proposal.entity == entity]
    # A comment ends with its line, whatever a column is called.
    return "\n".join(line.replace("\r", " ") for line in lines) + "\n"
