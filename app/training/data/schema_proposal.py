"""Propose a `features.yaml` from a table: by names first, then by what the values do; every line says why."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from app.errors import ConfigError, DataError
from app.features.fields import SIDES, WITHOUT_ID, Entity
from app.features.schema import MAX_FIELDS, parse_schema
from app.features.tables.plain_series import plain_series
from app.training.data.column_names import ITEM_WORDS, USER_WORDS
from app.training.data.column_profile import ColumnProfile
from app.training.data.column_roles import (
    cannot_be_field,
    cannot_be_id,
    copied_column,
    find_label_column,
    labels_of,
    number_hint,
    reason_to_leave_out,
)
from app.training.data.field_names import field_names
from app.training.data.field_proposal import FieldProposal, is_category, propose_field, share_spaces
from app.training.data.id_columns import ProposedId, ids_by_values, is_trait, named_id
from app.training.data.label_threshold import label_threshold
from app.training.data.labels import LabelReading
from app.training.data.missing_words import doubtful_words, missing_words, without_missing_words
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.mixed_columns import as_text_has_it, stack_frames
from app.training.data.readers.table_files import TableFiles
from app.training.data.readers.table_reader import table_files
from app.training.data.time_columns import is_named_like_row_time, is_readable_time, running_number, time_rank, times_of
from app.training.data.usable_rows import MOSTLY_NO_LABEL

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
    notes: tuple[str, ...] = ()
    """Says what a user should know of how the file was read."""


def propose_schema(
    path: Path,
    *,
    label: str | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    rows: int = ROWS,
    escape: str | None = None,
    positive: str | None = None,
) -> SchemaProposal:
    """Propose a schema from the first `rows` rows of a table with named columns.

    Raises:
        ConfigError: a named column is not there, none looks like a label, or none can be a feature.
        DataError: the file cannot be read.
    """
    files = table_files(path, escape=escape)
    profiles = {profile.name: profile for profile in _first_rows(path, files, rows)}
    given: dict[Entity, str] = {side: name for side, name in zip(SIDES, (user_id, item_id), strict=True) if name}
    for name in (label, *given.values()):
        if name and name not in profiles:
            raise ConfigError(f"{path}: no column {name}; it has {', '.join(list(profiles)[:40])}")
    label = label or find_label_column(path, profiles)
    labels = labels_of(profiles[label], LabelReading(positive))
    unclear = positive is None and labels.null_count() > MOSTLY_NO_LABEL * len(labels)
    threshold = label_threshold(profiles[label].series) if unclear else ""
    if threshold:
        raise ConfigError(one_line(f"{path}: {label} {threshold}"))
    if unclear:
        raise ConfigError(one_line(f"{path}: {label} is not 0 or 1; {LabelReading().advice(profiles[label].series)}"))
    left_out = {label: "the label"}
    for name, profile in profiles.items():
        reason = left_out.get(name) or (
            cannot_be_id(profile) if name in given.values() else reason_to_leave_out(profile, labels)
        )
        if reason and name in given.values():
            raise ConfigError(one_line(f"{path}: {name} cannot be an id: {reason}"))
        if reason:
            left_out[name] = reason
    timestamp = _leave_out_times(profiles, left_out, given)
    usable = {name: profile for name, profile in profiles.items() if name not in left_out}
    _leave_out_copies(usable, left_out, given)
    if len(usable) > MAX_FIELDS:
        raise ConfigError(
            f"{path}: {len(usable):,} columns can be features, and a schema has at most {MAX_FIELDS:,} fields: "
            "give it a file of those that matter"
        )
    ids = _find_ids(usable, given, labels)
    proposals = [propose_field(profile, usable, ids, labels) for profile in usable.values()]
    for proposal in proposals:
        proposal.type_reason += number_hint(proposal.profile)
        words = missing_words(proposal.profile.series)
        if proposal.type != "numeric":  # as a number each of them is missing anyway
            words += proposal.profile.words
        if words:
            proposal.options["missing"] = words
        proposal.type_reason += _doubtful_words_hint(proposal, words)
    if not proposals:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ConfigError(one_line(f"{path}: no column can be a feature: {reasons}"))
    names = field_names(profiles)
    for proposal in proposals:
        proposal.field_name = names[proposal.profile.name]
    share_spaces(proposals, ids)
    text = _yaml_document(path, proposals, label, positive, timestamp, left_out, len(labels))
    parse_schema(text, origin=f"the proposal for {path.name}")
    notes = (*files.notes(), *_unread_numbers_notes(proposals), *_without_ids(proposals))
    return SchemaProposal(text, label, timestamp, left_out, notes)


def _leave_out_times(
    profiles: dict[str, ColumnProfile], left_out: dict[str, str], given: dict[Entity, str]
) -> str | None:
    """Leave out the time of the rows, which is returned, and whatever else tells when and not what."""
    usable = {name: profile for name, profile in profiles.items() if name not in left_out}
    named = [given.get("user") or named_id(usable, USER_WORDS), given.get("item") or named_id(usable, ITEM_WORDS)]
    ids = [usable[name] for name in named if name in usable]
    times = {name: times_of(profile) for name, profile in usable.items() if name not in given.values()}
    times_by_name = {name: column for name, column in times.items() if column is not None}
    # The day of a film's release is the film's, and not when the row happened.
    own = {name for name in times_by_name if any(is_trait(usable[name], one) for one in ids)}
    readable = [name for name, column in times_by_name.items() if is_readable_time(column)]
    readable = [name for name in readable if name not in own] or list(filter(is_named_like_row_time, readable))
    timestamp = max(readable, key=lambda name: time_rank(usable[name]), default=None)
    if timestamp:
        left_out[timestamp] = "the time; `ctr train --timestamp` splits by it"
    for name, profile in usable.items():
        if name == timestamp or name in given.values():
            continue
        reason = cannot_be_field(profile)
        if not reason and name in times_by_name and (name not in own or profile.numbers is None):
            reason = "a time: a field needs what comes back, such as its hour or weekday"
        if not reason and name not in own:
            reason = running_number(profile, times_by_name[timestamp].alias(timestamp) if timestamp else None)
        if reason:
            left_out[name] = reason
    return timestamp


def _leave_out_copies(usable: dict[str, ColumnProfile], left_out: dict[str, str], given: dict[Entity, str]) -> None:
    """Leave out columns that say what another one says; ids stay."""
    named = {*given.values(), named_id(usable, USER_WORDS), named_id(usable, ITEM_WORDS)}
    kept = [profile for name, profile in usable.items() if name in named]
    for name, profile in list(usable.items()):
        if name in named:
            continue
        original = copied_column(profile, kept)
        if original:
            left_out[name] = f"says the same as {original} in every row{number_hint(profile)}"
            del usable[name]
        else:
            kept.append(profile)


def _find_ids(
    usable: dict[str, ColumnProfile], given: dict[Entity, str], labels: pl.Series
) -> dict[Entity, ProposedId]:
    ids: dict[Entity, ProposedId] = {side: ProposedId(name, "its id, as you say") for side, name in given.items()}
    for side, words in zip(SIDES, (USER_WORDS, ITEM_WORDS), strict=True):
        taken = {own.name for own in ids.values()}
        name = named_id({name: profile for name, profile in usable.items() if name not in taken}, words)
        if side not in ids and name:
            ids[side] = ProposedId(name, "its id by its name")
    return ids_by_values(usable, ids, lambda profile: is_category(profile, labels))


def _first_rows(path: Path, files: TableFiles, rows: int) -> Iterable[ColumnProfile]:
    """Yield the columns of the first rows, with null for empty text, for NaN and for words among numbers."""
    frames: list[pl.DataFrame] = []
    bad = BadRows(str(path), 1.0)
    for chunk in files(bad):
        frames.append(chunk.frame)
        if sum(len(frame) for frame in frames) >= rows:
            break
    table = stack_frames(frames)[:rows]
    separator = files.separator_of(files.files[0]) if files.separator_of and files.files else None
    if table.is_empty():
        raise DataError(f"{path}: has no usable rows: {bad.skipped}" if bad.count else f"{path}: has no rows")
    for series in table:
        column = series if series.dtype.is_temporal() else as_text_has_it(plain_series(series))
        if column.dtype == pl.String:
            given = column.replace("", None)
            numbers = without_missing_words(given)
            words = given.filter(given.is_not_null() & numbers.is_null()).unique().sort().to_list()
            yield ColumnProfile(numbers, tuple(words), decimal_commas=separator == ";")
        else:
            yield ColumnProfile(column.fill_nan(None) if column.dtype.is_float() else column)


def _doubtful_words_hint(proposal: FieldProposal, declared: list[str]) -> str:
    """Say which words are taken for categories that may mean that nothing is known, and what to write if so."""
    if proposal.type == "numeric" or proposal.options.get("id"):
        return ""
    words = [word for word in doubtful_words(proposal.profile.series) if word not in declared]
    if not words:
        return ""
    shown, wanted = ", ".join(map(repr, words)), json.dumps([*declared, *words], ensure_ascii=False)
    return f"; {shown} count as categories: where they say that nothing is known, write missing: {wanted}"


def _unread_numbers_notes(proposals: list[FieldProposal]) -> list[str]:
    """Say which columns are taken for categories or lists although they look like numbers, and what to do."""
    kinds = {"categorical": "categories", "multi_categorical": "lists"}
    return [
        f"{one_line(one.profile.name)} is taken for {kinds[one.type]}{number_hint(one.profile)}"
        for one in proposals
        if one.type in kinds and number_hint(one.profile)
    ]


def _without_ids(proposals: list[FieldProposal]) -> list[str]:
    """Say for each side that has fields and no id how its values come to be known when it is served."""
    without = [
        side
        for side in SIDES
        if any(one.entity == side for one in proposals)
        and not any(one.entity == side and one.options.get("id") for one in proposals)
    ]
    return [f"No column is the {side}'s id: {WITHOUT_ID[side]}; --{side}-id COLUMN if one is" for side in without]


def _yaml_document(
    path: Path,
    proposals: list[FieldProposal],
    label: str,
    positive: str | None,
    timestamp: str | None,
    left_out: dict[str, str],
    rows: int,
) -> str:
    options = ["--positive", positive] if positive is not None else []
    options += ["--timestamp", timestamp] if timestamp else []
    command = [
        "ctr",
        "train",
        "--dataset",
        "table",
        "--data",
        path.name,
        "--features",
        "features.yaml",
        "--label",
        label,
    ]
    comments = [
        f"Proposed from the first {rows:,} rows of {path.name}. A guess: read it, mend it, keep it with your code.",
        shlex.join([*command, *options]),
        *(f"Left out: {name}: {reason}" for name, reason in left_out.items()),
        *_without_ids(proposals),
    ]
    lines = [
        *(one_line(f"# {comment}") for comment in comments),
        "version: 1",
        "fields:",
    ]
    for entity in ("user", "context", "item"):
        lines += [proposal.yaml() for proposal in proposals if proposal.entity == entity]
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """Escape what would end a line or cannot be in YAML: columns may be called anything."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
