"""The lines of a run say after how many epochs it ends, whatever the options said."""

from __future__ import annotations

import io

from rich.console import Console

from app.training.loop.epochs import ProgressUpdate
from app.training.loop.progress import TrainingProgress


def test_lines_name_the_epochs_of_the_run() -> None:
    file = io.StringIO()
    with TrainingProgress(Console(file=file)) as progress:
        progress.report(ProgressUpdate(30, 10, 10, 0.5, True, 60))
        progress.report(ProgressUpdate(31, 10, 10, 0.6))
    assert file.getvalue().splitlines() == [
        "epoch 31 of at most 60: validation log loss 0.5000 (best)",
        "epoch 32: validation log loss 0.6000",
    ]
