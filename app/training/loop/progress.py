"""Show a progress bar for each epoch of training, with rows a second and the validation log loss."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.training.loop.epochs import ProgressUpdate


class TrainingProgress:
    """Shows each `ProgressUpdate` on a terminal; without one it prints a line an epoch."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>2}"),
            BarColumn(),
            TextColumn("{task.completed:>9,.0f} rows"),
            TextColumn("{task.fields[rate]:>9,.0f} rows/s"),
            TextColumn("{task.fields[outcome]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._epoch, self._started = -1, 0.0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def report(self, update: ProgressUpdate) -> None:
        """Show an update; a new epoch gets a new bar."""
        if update.epoch != self._epoch or self._task is None:
            self._epoch, self._started = update.epoch, time.perf_counter()
            self._task = self._bar.add_task("", total=update.total, epoch=update.epoch + 1, rate=0.0, outcome="")
        rate = update.done / max(time.perf_counter() - self._started, 1e-6)
        outcome = ""
        if update.validation_loss is not None:
            outcome = f"validation log loss {update.validation_loss:.4f}{' (best)' if update.best else ''}"
            if not self._console.is_terminal:
                of = f" of at most {update.at_most}" if update.at_most else ""
                self._console.print(f"epoch {update.epoch + 1}{of}: {outcome}", highlight=False)
        self._bar.update(self._task, completed=update.done, rate=rate, outcome=outcome)
