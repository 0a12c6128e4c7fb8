"""`NewestRows`: of several rows of one entity, the one to store: the last, or the newest by a column of times."""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

from app.errors import EncodingError
from app.features.loading.record_file import Record
from app.features.times import HOW_TO_WRITE, seconds_of_value


class NewestRows:
    """Takes note of the row of each entity that is to be stored: two numbers an entity, whatever a row holds."""

    def __init__(self, column: str | None = None) -> None:
        """Prepare for a file; `column` names the time by which rows are newer, None takes the order of the file."""
        self._column = column
        self._rows: dict[int, int] = {}
        self._times: dict[int, float] = {}
        self.older = 0
        """How many rows have another of their entity that is newer."""

    def time_of(self, record: Record) -> float:
        """Return the time of a row, 0 where none is asked for. Raises EncodingError if it has none."""
        if self._column is None:
            return 0.0
        if self._column not in record.values:
            raise EncodingError(self._column, f"there is no such column, only {', '.join(record.values)[:100]}")
        seconds = seconds_of_value(record.values[self._column])
        if seconds is None:
            raise EncodingError(self._column, f"is no time: {HOW_TO_WRITE}")
        return seconds

    def add(self, entity_id: str, record: Record, seconds: float) -> None:
        """Take note of a good row, of the time that `time_of` gave."""
        digest = xxh3_64_intdigest(entity_id.encode())
        if digest in self._rows:
            self.older += 1
            if self._column is not None and seconds < self._times[digest]:
                return
        self._rows[digest] = record.row
        if self._column is not None:
            self._times[digest] = seconds

    def holds(self, entity_id: str, record: Record) -> bool:
        """Tell whether this row is the one to store."""
        return self._rows.get(xxh3_64_intdigest(entity_id.encode())) == record.row
