"""Training progress for people: a bar an epoch, with rows a second and the validation log loss."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.training.loop.epochs import ProgressUpdate


class TrainingProgress:
    """Shows `ProgressUpdate`s as they are reported. Without a terminal it prints one line an epoch."""

    def __init__(self, console: Console, epochs: int) -> None:
        self._console, self._epochs = console, epochs
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

    def report(self, step: ProgressUpdate) -> None:
        if step.epoch != self._epoch or self._task is None:
            self._epoch, self._started = step.epoch, time.perf_counter()
            self._task = self._bar.add_task("", total=step.total, epoch=step.epoch + 1, rate=0.0, outcome="")
        rate = step.done / max(time.perf_counter() - self._started, 1e-6)
        outcome = ""
        if step.validation_loss is not None:
            outcome = f"validation log loss {step.validation_loss:.4f}{' (best)' if step.best else ''}"
            if not self._console.is_terminal:
                self._console.print(f"epoch {step.epoch + 1} of at most {self._epochs}: {outcome}", highlight=False)
        self._bar.update(self._task, completed=step.done, rate=rate, outcome=outcome)
