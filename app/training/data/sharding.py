"""Plan who reads what: divide the rows of some files into consecutive shards of about equal size.

A shard is whole files, byte ranges of text that begin where a line does, and rows of Parquet. A gzipped file cannot be
split and belongs to one shard. All shards, one after the other, are the rows as one process reads them.

Where cells may be quoted, a line begins only where no quote is open, which depends on all bytes before. So planning has
two steps, that processes may share: count the quotes of each nominal shard, then find the borders. A file with a quote
that is a letter is not split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from app.features.tables.line_blocks import FileRange, QuoteCount, count_quotes, is_gzipped, next_line_start
from app.training.data.readers.table_files import FilePart, SplitBoundary, TableFiles
from app.training.data.readers.text_file import unreadable_file

QuoteCounts = dict[int, QuoteCount]
"""Counts double quotes by the index of their file."""


class FilePosition(NamedTuple):
    """Names a position in one of several files; the index of the last file plus 1 is the end of all."""

    file: int
    offset: int


class ShardPlanner:
    """Divides the rows of some files into `count` shards."""

    def __init__(self, files: TableFiles, count: int) -> None:
        """Measure the files. Raises DataError if one cannot be read."""
        self._files, self.count = files, count
        self._sizes = files.sizes()
        self._whole: set[int] = set()
        total = sum(self._sizes)
        self._nominal = [self._position(total * shard // count) for shard in range(count + 1)]

    def count_quotes(self, shard: int) -> QuoteCounts:
        """Count the quotes between the nominal borders of a shard; there is nothing to count where cells have none.

        Raises:
            DataError: a file cannot be read.
        """
        quoting_of = self._files.quoting_of
        if quoting_of is None:
            return {}
        start, stop = self._nominal[shard], self._nominal[shard + 1]
        counts: QuoteCounts = {}
        for index in range(start.file, min(stop.file + 1, len(self._sizes))):
            if self._can_split(index):
                part = FileRange(
                    start.offset if index == start.file else 0, stop.offset if index == stop.file else None
                )
                file = self._files.files[index]
                try:
                    counts[index] = count_quotes(file, part, quoting_of(file))
                except OSError as error:
                    raise unreadable_file(file, error) from error
        return counts

    def plan(self, quotes: Sequence[QuoteCounts]) -> list[TableFiles]:
        """Return the shards in order.

        Args:
            quotes: the counts of every shard, in order.

        Raises:
            DataError: a file cannot be read.
        """
        self._whole = _with_letter_quotes(quotes)
        borders = []
        for shard in range(self.count):
            file = self._nominal[shard].file
            quotes_before = sum(counts[file].quotes for counts in quotes[:shard] if file in counts)
            borders.append(self._border(self._nominal[shard], within_quotes=quotes_before % 2 == 1))
        borders.append(FilePosition(len(self._sizes), 0))
        begin = FilePosition(0, 0)
        return [
            replace(
                self._files,
                parts=self._parts(borders[shard], borders[shard + 1]),
                parts_before=self._parts(begin, borders[shard]),
            )
            for shard in range(self.count)
        ]

    def _position(self, nominal: int) -> FilePosition:
        for index, size in enumerate(self._sizes):
            if nominal < size:
                return FilePosition(index, nominal)
            nominal -= size
        return FilePosition(len(self._sizes), 0)

    def _border(self, nominal: FilePosition, *, within_quotes: bool) -> FilePosition:
        """Return the position nearest after the nominal one where a shard may begin."""
        index, offset = nominal
        if index == len(self._sizes) or offset == 0:
            return FilePosition(index, 0)
        if not self._can_split(index):
            return FilePosition(index if 2 * offset < self._sizes[index] else index + 1, 0)
        if self._files.boundary is SplitBoundary.PARQUET_ROWS:
            return nominal
        path, quoted = self._files.files[index], self._files.quoting_of is not None
        try:
            begin = next_line_start(path, offset, within_quotes=within_quotes, quoted=quoted)
        except OSError as error:
            raise unreadable_file(path, error) from error
        return FilePosition(index, begin) if begin < self._sizes[index] else FilePosition(index + 1, 0)

    def _parts(self, start: FilePosition, stop: FilePosition) -> tuple[FilePart, ...]:
        parts = (
            (
                self._files.files[index],
                FileRange(start.offset if index == start.file else 0, stop.offset if index == stop.file else None),
            )
            for index in range(start.file, min(stop.file + 1, len(self._files.files)))
        )
        return tuple((file, part) for file, part in parts if part.stop is None or part.stop > part.start)

    def _can_split(self, index: int) -> bool:
        return not is_gzipped(self._files.files[index]) and index not in self._whole


def _with_letter_quotes(shards: Sequence[QuoteCounts]) -> set[int]:
    """Return the files with a quote that is neither around a cell nor doubled within one."""
    files: set[int] = set()
    before: Counter[int] = Counter()
    for counts in shards:
        for file, count in counts.items():
            if not (count.regular_within if before[file] % 2 else count.regular_outside):
                files.add(file)
            before[file] += count.quotes
    return files


def plan_shards(files: TableFiles, count: int) -> list[TableFiles]:
    """Return the rows of the files as `count` consecutive shards. Raises DataError if a file cannot be read."""
    planner = ShardPlanner(files, count)
    return planner.plan([planner.count_quotes(shard) for shard in range(count)])
