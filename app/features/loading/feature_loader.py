"""`FeatureLoader` writes a file of features into Redis, one HASH per entity, each replaced whole or merged into.

The file is read twice. The first time every row is checked, by the encoder that will serve it where a schema is known;
a file with too many bad rows is refused before anything is written. The second time its good rows are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import redis

from app.errors import MAX_REPORTED, DataError, EncodingError
from app.features.encoder import Encoder
from app.features.key_template import KeyTemplate
from app.features.loading.entity_writer import EntityWriter, StoredEntity
from app.features.loading.file_columns import FileColumns
from app.features.loading.newest_rows import NewestRows
from app.features.loading.record_file import Record, RecordFile
from app.features.loading.stored_text import stored_id, stored_text

BATCH = 100
"""Entities a transaction: large enough to hide the round trip, small enough to hold up readers for a millisecond."""
PROGRESS_EVERY = 500

OnLoadProgress = Callable[[str, int, float], None]
"""Called with "checking" or "loading", the rows so far, and the share of the file read."""


class LoadSummary(NamedTuple):
    """The result of `FeatureLoader.load`."""

    loaded: int
    """Rows written."""
    bad: int
    """Rows left out."""
    problems: list[str]
    """The first few bad rows, each with its number and reason."""
    seconds: float
    lacking: list[str]
    """The fields of the schema that the file does not name."""
    unread: list[str]
    """The columns that no field of the schema reads."""
    lost: Mapping[str, int]
    """How many entities had a field before that they do not have any more, by field."""
    older: int
    """Rows of an entity that has a newer one, which is stored."""

    @property
    def rows_per_second(self) -> float:
        """Rows written a second, the check included."""
        return self.loaded / self.seconds if self.seconds else 0.0


class FeatureLoader:
    """Checks and writes the entities of one kind."""

    def __init__(
        self,
        client: redis.Redis,
        key: KeyTemplate,
        *,
        id_field: str = "id",
        encoder: Encoder | None = None,
        max_bad: float = 0.001,
        columns: FileColumns | None = None,
        merge: bool = False,
        newest: str | None = None,
        on_progress: OnLoadProgress = lambda *_: None,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            id_field: the column with the id, which is not stored unless the schema reads it as a feature too.
            encoder: checks the values; it is of this entity's side. None checks only that they can be stored.
            max_bad: the share of rows, 0 to 1, that may be bad and are left out.
            columns: judges the columns of the file; None takes any.
            merge: keep what is stored of the fields that a row does not name; one that it names and leaves empty is
                removed.
            newest: of several rows of an entity the newest by this column of times is stored; None stores the last.
            on_note: called with a line on what the server cannot do, and what follows.
        """
        self._client = client
        self._key = key
        self._id_field = id_field
        self._encoder = encoder
        self._stores_id = encoder is not None and any(
            field.raw_name == id_field and field.entity == encoder.side and not field.is_id for field in encoder.fields
        )
        self._reads = None if encoder is None else set(encoder.raw_names)
        self._max_bad = max_bad
        self._columns = columns or FileColumns("entities", id_field, None)
        self._judges_columns = columns is not None
        self._merge = merge
        self._newest_column = newest
        self._newest = NewestRows(newest)
        self._on_progress = on_progress
        self._on_note = on_note

    def load(self, records: RecordFile) -> LoadSummary:
        """Check all rows, then write the good ones. Loading the same file again is safe.

        Raises:
            DataError: the file cannot be read, holds no rows, too many bad ones or a column that may be meant for a
                field; nothing was written.
            StoreError: Redis does not answer or refuses; the message says how many rows were written.
        """
        started = time.perf_counter()
        self._newest = NewestRows(self._newest_column)
        writer = self._writer()
        writer.find_out_transactions()  # before the file is read for minutes
        bad, problems = self._check(records)
        if self._judges_columns:
            self._columns.check(records.path)
        self._write(writer, records, bad)
        lacking, unread = ([], []) if self._merge else (self._columns.lacking, self._columns.unread)
        seconds = time.perf_counter() - started
        lost = dict(writer.lost.most_common())
        return LoadSummary(writer.written, len(bad), problems, seconds, lacking, unread, lost, self._newest.older)

    def delete(self, records: RecordFile) -> int:
        """Remove the entities whose ids are in the file, whatever else it holds; return how many there were.

        Raises:
            DataError: the file cannot be read, or a row has no id; nothing was removed.
            StoreError: Redis does not answer or refuses.
        """
        for record in records:
            self._columns.add(record.values)
            if self._id_field in record.values or record.problem:
                self._entity_id(records, record)
        self._columns.check_ids(records.path)
        writer = self._writer()
        removed = 0
        ids: list[str] = []
        for record in records:
            ids.append(self._entity_id(records, record))
            if len(ids) == BATCH:
                removed += writer.remove(ids)
                ids.clear()
                self._on_progress("removing", removed, records.fraction)
        return removed + writer.remove(ids)

    def _writer(self) -> EntityWriter:
        return EntityWriter(self._client, self._key, merge=self._merge, on_note=self._on_note)

    def _entity_id(self, records: RecordFile, record: Record) -> str:
        """Return the id of a row of entities to remove. Raises DataError."""
        try:
            if record.problem:
                raise EncodingError("row", record.problem)
            return self._id_of(record)
        except EncodingError as error:
            raise DataError(f"{records.path}: {record.place}: {error}; nothing was removed") from error

    def _check(self, records: RecordFile) -> tuple[set[int], list[str]]:
        """Return the numbers of the bad rows, and what is wrong with the first few. Raises DataError."""
        bad: set[int] = set()
        problems: list[str] = []
        count = 0
        for count, record in enumerate(records, 1):
            self._columns.add(record.values)
            try:
                self._check_one(record)
            except EncodingError as error:
                bad.add(record.row)
                if len(problems) < MAX_REPORTED:
                    problems.append(f"{record.place}: {error}")
            if count % PROGRESS_EVERY == 0:
                self._on_progress("checking", count, records.fraction)
        self._on_progress("checking", count, 1.0)
        if not count:
            raise DataError(f"{records.path}: holds no rows")
        self._columns.check_ids(records.path)
        if len(bad) > self._max_bad * count:
            listed = "\n  ".join(problems)
            more = f"\n  and {len(bad) - len(problems)} more" if len(bad) > len(problems) else ""
            raise DataError(
                f"{records.path}: {len(bad)} of {count} rows are bad, more than the {self._max_bad:.2%} allowed "
                f"(--max-bad); nothing was written\n  {listed}{more}"
            )
        return bad, problems

    def _check_one(self, record: Record) -> None:
        """Take note of a row that may be its entity's newest. Raises EncodingError if the row is bad."""
        entity_id, fields, _ = self._convert(record)
        seconds = self._newest.time_of(record)
        if self._encoder is not None:
            self._encoder.encode(fields, entity_id)
        self._newest.add(entity_id, record, seconds)

    def _id_of(self, record: Record) -> str:
        if self._id_field not in record.values:
            raise EncodingError(self._id_field, f"there is no such column, only {', '.join(record.values)[:100]}")
        return stored_id(record.values[self._id_field], self._id_field)

    def _convert(self, record: Record) -> StoredEntity:
        """Return the id, the fields to store and those left empty. Raises EncodingError if the row is bad."""
        if record.problem:
            raise EncodingError("row", record.problem)
        entity_id = self._id_of(record)
        fields = {
            name: text
            for name, value in record.values.items()
            if (name != self._id_field or self._stores_id) and (text := self._text(value, name)) is not None
        }
        return StoredEntity(entity_id, fields, [name for name in record.values if name not in fields])

    def _text(self, value: object, name: str) -> str | None:
        """Return a value as it is stored, None where it is left out. Raises EncodingError if it cannot be."""
        try:
            return stored_text(value, name)
        except EncodingError:
            if self._reads is None or name in self._reads:
                raise
            return None  # what no field reads is no reason to lose the row

    def _write(self, writer: EntityWriter, records: RecordFile, bad: set[int]) -> None:
        """Write the rows that are not bad. Raises StoreError."""
        batch: list[StoredEntity] = []
        for record in records:
            if record.row in bad:
                continue
            entity = self._convert(record)
            if not self._newest.holds(entity.id, record) and not self._merges_rows:
                continue
            batch.append(entity)
            if len(batch) == BATCH:
                writer.write(batch)
                batch.clear()
                self._on_progress("loading", writer.written, records.fraction)
        writer.write(batch)
        self._on_progress("loading", writer.written, 1.0)

    @property
    def _merges_rows(self) -> bool:
        """Whether each row of an entity updates what the rows before it said, in the order of the file."""
        return self._merge and self._newest_column is None
