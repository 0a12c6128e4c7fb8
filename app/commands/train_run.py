"""`TrainingRun`: what `ctr train` does with rows that were read, until a version is written and maybe live."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.commands.output import INTERRUPTED, ConsoleReporter, console, notify, warn
from app.commands.run_tracking import command_line
from app.commands.train_output import note_other_schema, show_result
from app.commands.trained_states import export_states_of

if TYPE_CHECKING:
    from app.registry.store.model_store import ModelStore
    from app.settings import Settings
    from app.training.data.dataset import Dataset
    from app.training.distributed import ProcessGroup
    from app.training.job_config import JobConfig
    from app.training.job_results import JobResult
    from app.training.loop.checkpoint import Checkpoint
    from app.training.publish import Destination


@dataclass(frozen=True)
class WrittenVersion:
    """A version that was trained, and what became of it."""

    destination: Destination
    result: JobResult
    is_refused: bool
    """Whether it is poor and nobody forced it, so that it is kept and does not go live."""
    is_published: bool
    """Whether it is live, in the model store."""

    @property
    def report(self) -> Path | None:
        """Where the page about its training is; None where there is none. To publish a version moves its folder."""
        return self.destination.folder / self.result.report.name if self.result.report else None


@dataclass(frozen=True)
class TrainingRun:
    """One run of `ctr train`, in the process that writes the version."""

    config: JobConfig
    model: str
    """The architecture, or `package.module:Class`."""
    name: str
    """The version's name in the model store."""
    settings: Settings
    runs: Path
    """Folder of versions that are not published."""
    store: ModelStore | None
    """Where to publish; None to write the version under `runs`."""
    force: bool
    """Whether to take a poor model."""

    def train_and_publish(
        self,
        rows: Dataset,
        test_rows: Dataset | None,
        checkpoint: Checkpoint,
        group: ProcessGroup,
        export: Path | None,
    ) -> WrittenVersion:
        """Fit a version, write it and say how good it is; gate and publish it where there is a store.

        Args:
            export: a folder for the last state of users and items, written while a failure still keeps the version
                from going live; None for none.

        Raises:
            typer.Exit: Ctrl-C, once it has said how to go on.
            DataError, ConfigError, ArtifactError: the rows cannot be trained on, the version cannot be written, or the
                gate refuses it.
        """
        from app.models.user_class import short_name
        from app.publishing.gate_version import gate_version
        from app.publishing.publish import prune_old_versions
        from app.training.live_version import is_better_than_live
        from app.training.publish import new_run_folder, publish_on_success

        store, reporter, short = self.store, ConsoleReporter(), short_name(self.model)
        if store:
            note_other_schema(store, rows.schema)
        measured: list[JobResult] = []

        def gate(version: int) -> None:
            assert store is not None
            better = is_better_than_live(store, rows.schema, measured[0])
            gate_version(store, version, self.settings, reporter, better=better)

        with publish_on_success(store, gate) if store else new_run_folder(self.runs, short) as destination:
            try:
                result = self._fit(rows, test_rows, destination.folder, checkpoint, group)
            except KeyboardInterrupt:
                _say_how_to_resume(checkpoint)
                raise typer.Exit(INTERRUPTED) from None
            measured.append(result)
            is_refused = bool(result.verdict.poor) and not self.force
            if store and is_refused:
                destination.withhold(self.runs, short)
            show_result(self.model, result, rows)
            if export:
                export_states_of(rows, export, "--export")
        is_published = store is not None and not is_refused
        if store and is_published:
            prune_old_versions(store, self.settings, reporter)
        done, folder = "Published as stable" if is_published else "Written to", destination.folder
        notify(f"{done} {folder} in {result.seconds:.1f} s")
        if store and not is_published:
            warn(f"it is not published; --force publishes a poor one, and so does ctr publish {folder}")
        return WrittenVersion(destination, result, is_refused, is_published)

    def _fit(
        self, rows: Dataset, test_rows: Dataset | None, folder: Path, checkpoint: Checkpoint, group: ProcessGroup
    ) -> JobResult:
        from app.training.job import TrainingJob
        from app.training.loop.progress import TrainingProgress

        with TrainingProgress(console) as progress:
            return TrainingJob(self.config).run(
                rows,
                test_rows,
                folder,
                name=self.name,
                notify=notify,
                on_progress=progress.report,
                command=command_line(),
                checkpoint=checkpoint,
                group=group,
            )


def _say_how_to_resume(checkpoint: Checkpoint) -> None:
    if checkpoint.exists:
        notify("Interrupted: the same command with --resume goes on from the last epoch that was kept")
    else:
        notify("Interrupted: nothing was kept yet, and nothing is written")
