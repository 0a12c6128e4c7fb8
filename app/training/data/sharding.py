"""The rows of one file or several, one after the other, and who of several processes reads which of them.

A share is a stretch of all rows: whole files, byte ranges of text that begin where a line does, rows of Parquet, of
which polars reads the row groups that hold them. A packed file cannot be cut and belongs to one share. So the shares of
all processes, one after the other, are the rows as one process reads them.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import polars as pl

from app.errors import DataError
from app.training.data.readers.bad_rows import BadRows
from app.training.data.readers.chunk import Chunk
from app.training.data.readers.line_blocks import WHOLE, Span, next_line, quotes
from app.training.data.readers.text_file import unreadable
from app.training.distributed import ProcessGroup

Read = Callable[[Path, Span, BadRows], Iterator[Chunk]]
Stretch = tuple[Path, Span]


class Cut(Enum):
    """Where a file may be cut."""

    LINES = "after any line"
    QUOTED_LINES = "after a line that ends outside of double quotes"
    ROWS = "after any row of Parquet"


@dataclass(frozen=True)
class FileChunks:
    """`Chunks` of files of one kind, or of a share of them."""

    files: tuple[Path, ...]
    read: Read
    cut: Cut
    own: tuple[Stretch, ...] | None = None
    """What is read; None is all of it."""
    earlier: tuple[Stretch, ...] = ()
    """What the shares before this one read."""

    def __call__(self, bad: BadRows) -> Iterator[Chunk]:
        """Chunks whose fraction is that of all files, not of this share."""
        if self.own is None and len(self.files) == 1:
            yield from self.read(self.files[0], WHOLE, bad)
            return
        sizes = {file: self._size(file) for file in self.files}
        total, done = sum(sizes.values()), 0
        for file, span in ((file, WHOLE) for file in self.files) if self.own is None else self.own:
            size = (sizes[file] if span.stop is None else span.stop) - span.start
            for chunk in self.read(file, span, bad):
                yield chunk._replace(fraction=(done + chunk.fraction * size) / total)
                del chunk  # or its rows stay while the next ones are read
            done += size

    def rows_before(self) -> int:
        """How many rows the shares before this one have, good or bad: as much work as reading them."""
        bad = BadRows("", 1.0)
        for file, span in self.earlier:
            for _ in self.read(file, span, bad):
                pass
        return bad.rows

    def share(self, group: ProcessGroup) -> FileChunks:
        """What this process reads. All processes have to ask, as quotes are counted together.

        Raises:
            DataError: a file cannot be read.
        """
        sizes = group.run_all_or_raise(lambda: [self._size(file) for file in self.files])
        total = sum(sizes)
        nominal = [total * rank // group.size for rank in range(group.size + 1)]
        odd = self._odd(sizes, nominal, group)
        begins = group.run_all_or_raise(lambda: self._begin(sizes, nominal[group.rank], odd))
        borders = [*group.all_gather(begins), (len(self.files), 0)]
        own = self._between(borders[group.rank], borders[group.rank + 1])
        return replace(self, own=own, earlier=self._between((0, 0), borders[group.rank]))

    def _odd(self, sizes: list[int], nominal: list[int], group: ProcessGroup) -> bool:
        """Whether the file that this share begins in has an odd number of quotes before."""
        if self.cut is not Cut.QUOTED_LINES:
            return False

        def counted() -> dict[int, int]:
            place, at = _place(sizes, nominal[group.rank])
            last, stop = _place(sizes, nominal[group.rank + 1])
            spans = {n: Span(at if n == place else 0, stop if n == last else None) for n in range(place, last + 1)}
            return {n: quotes(self.files[n], span) for n, span in spans.items() if n < len(sizes) and self._cuts(n)}

        counts = group.all_gather(group.run_all_or_raise(counted))
        place, _ = _place(sizes, nominal[group.rank])
        return bool(sum(count.get(place, 0) for count in counts[: group.rank]) % 2)

    def _cuts(self, place: int) -> bool:
        return self.files[place].suffix != ".gz"

    def _begin(self, sizes: list[int], nominal: int, odd: bool) -> tuple[int, int]:
        """File, and place in it, where the share that should begin at this place of all does begin."""
        place, at = _place(sizes, nominal)
        if place == len(sizes) or at == 0:
            return place, 0
        if not self._cuts(place):
            return (place, 0) if 2 * at < sizes[place] else (place + 1, 0)
        if self.cut is Cut.ROWS:
            return place, at
        begin = next_line(self.files[place], at, within_quotes=odd, quoted=self.cut is Cut.QUOTED_LINES)
        return (place, begin) if begin < sizes[place] else (place + 1, 0)

    def _between(self, start: tuple[int, int], stop: tuple[int, int]) -> tuple[Stretch, ...]:
        """What lies between two borders; each is a file and a place in it."""
        spans = (
            (n, Span(start[1] if n == start[0] else 0, stop[1] if n == stop[0] else None))
            for n in range(start[0], min(stop[0] + 1, len(self.files)))
        )
        return tuple((self.files[n], span) for n, span in spans if span.stop is None or span.stop > span.start)

    def _size(self, file: Path) -> int:
        try:
            if self.cut is Cut.ROWS:
                return int(pl.scan_parquet(file).select(pl.len()).collect().item())
            return file.stat().st_size
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(file, error) from error


def _place(sizes: list[int], nominal: int) -> tuple[int, int]:
    """The file in which a place of all lies, and where in it."""
    for number, size in enumerate(sizes):
        if nominal < size:
            return number, nominal
        nominal -= size
    return len(sizes), 0


def data_files(path: Path, known: Callable[[Path], bool] = lambda _: True) -> tuple[Path, ...]:
    """The file, those of a folder or those that a pattern (`day_*.tsv`) matches, in the order of their names.

    Args:
        known: whether a file of a folder is data. Names that begin with `.` or `_` never are, nor are empty files.

    Raises:
        DataError: there are none, or the one that is named is empty.
    """
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.is_file() and file.name[0] not in "._" and known(file))
        found = [file for file in inside if file.stat().st_size]
        if not found:
            raise DataError(f"{path}: no file in this folder has data that can be read")
        return tuple(found)
    if not path.exists() and glob.has_magic(str(path)):
        found = [file for file in map(Path, sorted(glob.glob(str(path)))) if file.is_file() and file.stat().st_size]
        if not found:
            raise DataError(f"{path}: no file matches")
        return tuple(found)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty")
    return (path,)
