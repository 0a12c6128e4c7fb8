"""What of a file of rows does not match a schema, a version's vocabulary and the feature store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from app.errors import DataError, EncodingError
from app.features.encoder import Encoder
from app.features.fields import Side
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_id, stored_text
from app.inspection.field_values import FieldValues
from app.inspection.finding import Finding
from app.inspection.store_match import LIKENESS

ID_COLUMN = "id"
"""The column of ids in a file for `ctr load`, which need not be called as the schema's field."""
MAX_NAMED = 12
LEAST_PAIRS = 5
"""Values in the file and in the store below which it says nothing that none are equal."""


@dataclass
class FileSample:
    """The first rows of a file, as `ctr load` would store them."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, None] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    """Why rows cannot be read, each with its place."""

    def id_column(self, encoder: Encoder) -> str | None:
        """Return the column of a side's ids, None where there is none."""
        own = encoder.id_source
        if own in self.columns:
            return own
        return ID_COLUMN if ID_COLUMN in self.columns else None

    def ids(self, encoder: Encoder) -> list[str | None]:
        """Return each row's id of a side as the store writes it; None where it has none."""
        column = self.id_column(encoder)
        found: list[str | None] = []
        for row in self.rows:
            try:
                found.append(None if column is None else stored_id(row.get(column), column))
            except EncodingError:
                found.append(None)
        return found

    def empty_ids(self, encoder: Encoder) -> set[str]:
        """Return the ids of a side whose rows have no value in any of its fields: nothing can be stored of them.

        No ids where the file has no column of these fields: it may well be that they are stored, from another file.
        """
        names = {one.raw_name for one in encoder.fields if one.entity == encoder.side and not one.is_id}
        names &= self.columns.keys()
        if not names:
            return set()
        empty, given = set[str](), set[str]()
        for one, row in zip(self.ids(encoder), self.rows, strict=True):
            if one is not None:
                (given if any(_is_given(row.get(name)) for name in names) else empty).add(one)
        return empty - given

    def shares(self) -> dict[str, float]:
        """Return the share of the rows that have a value, by column."""
        count = max(len(self.rows), 1)
        return {name: sum(_is_given(row.get(name)) for row in self.rows) / count for name in self.columns}


def _is_given(value: object) -> bool:
    return value is not None and value != ""


def sample_file(path: Path, count: int, escape: str | None = None) -> FileSample:
    """Read the first `count` rows. Raises DataError or ConfigError if the file cannot be read, or has none."""
    sample = FileSample(path.name)
    for record in itertools.islice(RecordFile(path, escape=escape), count):
        if record.problem:
            sample.bad.append(f"{record.place}: {record.problem}")
            continue
        sample.columns.update(dict.fromkeys(record.values))
        sample.rows.append({name: _as_stored(value, name) for name, value in record.values.items()})
    if not sample.rows and not sample.bad:
        raise DataError(f"{path}: holds no rows")
    return sample


def _as_stored(value: Any, name: str) -> Any:
    try:
        return stored_text(value, name)
    except EncodingError:
        return value  # its field says so, if one reads it


def sides_of(sample: FileSample, encoders: Mapping[Side, Encoder]) -> list[Side]:
    """Return the sides that a file has features or ids of; both of a table of impressions."""
    found: list[Side] = []
    for side, encoder in encoders.items():
        own = {one.raw_name for one in encoder.fields if one.entity == side}
        if own & sample.columns.keys():
            found.append(side)
    return found


def match_columns(sample: FileSample, encoders: Mapping[Side, Encoder]) -> list[Finding]:
    """Say which columns are missing, and which rows cannot be read.

    A table of impressions has the columns of both sides and of the request; a file for `ctr load` those of one side.
    """
    findings = []
    if sample.bad:
        share = len(sample.bad) / (len(sample.bad) + len(sample.rows))
        message = (
            f"{len(sample.bad)} of the first {len(sample.bad) + len(sample.rows)} rows cannot be read: {sample.bad[0]}"
        )
        findings.append(Finding("file", sample.name, "", message, "docs/odd-files.md says how to convert it", share))
    sides = sides_of(sample, encoders)
    columns = ", ".join(list(sample.columns)[:MAX_NAMED])
    if not sides and sample.rows:
        advice = "rename its columns, or name them by `source` in the schema"
        findings.append(Finding("file", sample.name, "", f"no field reads any of its columns: {columns}", advice, 1.0))
    read = {one.raw_name for encoder in encoders.values() for one in encoder.fields}
    unread = [name for name in sample.columns if name not in read and name != ID_COLUMN]
    elsewhere = _sides_elsewhere(sample, encoders) if len(sides) == len(encoders) else set()
    for side in sides:
        encoder = encoders[side]
        for one in encoder.fields:
            is_asked = one.entity == side or len(sides) == len(encoders)
            if one.entity in elsewhere and not one.is_id:
                continue
            id_is_there = one.is_id and sample.id_column(encoder) is not None
            if not is_asked or one.raw_name in sample.columns or id_is_there:
                continue
            like = get_close_matches(one.raw_name, unread, n=1, cutoff=LIKENESS)
            hint = f"; {like[0]}, which no field reads, is named alike" if like else ""
            advice = "rename or add the column, or take the field out of the schema"
            if one.is_id:
                advice = "rename the column of ids; `ctr load` finds it by --id COLUMN, too"
                hint += ": no id was looked at"
            findings.append(Finding("lacking", sample.name, one.raw_name, f"it has no such column{hint}", advice, 1.0))
        column = sample.id_column(encoder)
        if column is not None and sample.rows and not any(sample.ids(encoder)):
            message = f"none of {len(sample.rows)} rows has an id"
            findings.append(Finding("ids", sample.name, column, message, "look at what writes the file", 1.0))
    return list({(one.where, one.field, one.message): one for one in findings}.values())


def _sides_elsewhere(sample: FileSample, encoders: Mapping[Side, Encoder]) -> set[str]:
    """Return the sides of which a file has the ids alone, as the features are in files of their own."""
    return {
        side
        for side, encoder in encoders.items()
        if not any(one.raw_name in sample.columns for one in encoder.fields if one.entity == side and not one.is_id)
    }


def match_types(
    in_file: Mapping[str, FieldValues], in_store: Mapping[str, FieldValues], where: str, file: str
) -> list[Finding]:
    """Say which categories the file and the store write otherwise.

    A field is named if no value of the one is a value of the other, of the same entities where there are some, and they
    are of two kinds, such as numbers and text.
    """
    findings = []
    for name, ours in in_file.items():
        theirs = in_store[name]
        if ours.is_id or ours.is_number or not ours.kind or not theirs.kind or ours.kind == theirs.kind:
            continue
        both = ours.keys_of.keys() & theirs.keys_of.keys()
        if len(both) >= LEAST_PAIRS:
            are_apart = not any(ours.keys_of[one] & theirs.keys_of[one] for one in both)
        else:
            some, others = (frozenset().union(*one.keys_of.values()) for one in (ours, theirs))
            are_apart = min(len(ours.keys_of), len(theirs.keys_of)) >= LEAST_PAIRS and not some & others
        if are_apart:
            message = (
                f"{file} has {_words(ours)}, the {where} in the store have {_words(theirs)}: no value is in both, so "
                "that what was learned is not found"
            )
            advice = "write both alike, by the same program: a model knows values by their text"
            findings.append(Finding("types", where, ours.raw_name, message, advice))
    return findings


def _words(values: FieldValues) -> str:
    return f"{values.kind}s such as {', '.join(values.examples[:2])}"
