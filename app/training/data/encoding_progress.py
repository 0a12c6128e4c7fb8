"""Show the progress of encoding a large file: share read, rows, rows a second and the time that is left."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn


class EncodingProgress:
    """Shows a progress bar from the first report on: small files, and those encoded before, make none."""

    def __init__(self, console: Console, name: str, doing: str = "encoding") -> None:
        """
        Args:
            doing: what is done to the file; `encoding` says at the end that it is kept.
        """
        self._console, self._name, self._doing = console, name, doing
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:>11,} rows"),
            TextColumn("{task.fields[rate]:>9,.0f} rows/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._started = time.perf_counter()
        self._rows = 0

    def __enter__(self) -> EncodingProgress:
        return self

    def report(self, rows: int, fraction: float) -> None:
        """Show the number of rows encoded so far and the share of the file that has been read."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(f"{self._doing} {self._name}", total=1.0, rows=0, rate=0.0)
        self._rows = rows
        self._bar.update(self._task, completed=fraction, rows=rows, rate=self._rate())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if self._task is not None and kind is None and self._doing == "encoding":
            self._console.print(
                f"Encoded {self._rows:,} rows of {self._name}, {self._rate():,.0f} rows/s; kept for the next run",
                markup=False,
                highlight=False,
            )

    def _rate(self) -> float:
        return self._rows / max(time.perf_counter() - self._started, 1e-6)
