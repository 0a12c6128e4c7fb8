"""Run a training job from raw rows to a verified version: split, encode, train, calibrate, measure, report, export."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import ConfigError
from app.models.base import CtrModel
from app.training.calibrated_model import calibrate_and_measure
from app.training.data.dataset import Dataset
from app.training.data.split import PARTS
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.job_config import JobConfig
from app.training.job_results import JobResult, PreparedData, TrainedModel
from app.training.judgement import fit_baselines_on
from app.training.linear_average import LinearAverage
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import FitResult, Trainer
from app.training.model_contract import check_user_model
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.positions import check_held_positions
from app.training.recipe.facts import measure, validation_share
from app.training.recipe.rules import apply_rules
from app.training.recipe.search import RULES, FittedModel, RecipeSearch, SearchResult, TriedFit
from app.training.refit import RefittedModel, refit
from app.training.write_version import write_version

Notify = Callable[[str], None]
OnProgress = Callable[[ProgressUpdate], None]

REFIT = "refit"
"""Names the last fit of a job among those that have checkpoints."""


@dataclass(frozen=True)
class TrainingJob:
    """Trains, measures and exports one model; `run` does it all, the other methods are its stages."""

    config: JobConfig

    def run(
        self,
        data: Dataset,
        test: Dataset | None,
        folder: Path,
        *,
        name: str,
        notify: Notify = lambda message: None,
        on_progress: OnProgress | None = None,
        command: str = "",
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> JobResult:
        """Train a model and write its version and report.

        Args:
            test: rows to test on; with None some of `data` are held out.
            folder: an existing folder for the version and its report.
            notify: called with a message for the user at the start of each stage.
            on_progress: called every few batches of training.
            command: the command line that started the job, for the report.
            checkpoint: where training keeps its state, and whether to resume from it.
            group: the processes that train together; the first runs the job, the others `follow`.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
            ArtifactError: what was written does not read back with the same scores.
        """
        started = time.perf_counter()
        searched = self.fit_best(data, test, notify, on_progress, checkpoint, group)
        job, prepared = TrainingJob(searched.config), searched.best.prepared
        trained = calibrate_and_measure(job.config, prepared, searched.best.model, searched.best.fitted)
        if trained.average.in_words:
            notify(f"Chosen: {trained.average.in_words}")
        elif job.config.linear_share and not trained.average.share:
            notify("Not averaged with logistic regression: there are too many rows, or it could not be fitted")
        job = TrainingJob(replace(job.config, linear_share=trained.average.share))
        baselines = fit_baselines_on(prepared, job.config.trainer.seed, notify, linear=trained.linear)
        refitted = job.refit(data, test, prepared, trained, notify, on_progress, checkpoint, group)
        result = write_version(
            job.config,
            prepared,
            trained,
            baselines,
            folder,
            name,
            command,
            started,
            notify,
            refitted=refitted,
            searched=searched,
        )
        if checkpoint:
            for fit_name in (REFIT, *(tried.name for tried in searched.tried)):
                _checkpoint_of(checkpoint, fit_name).delete()
        return result

    def fit_best(
        self,
        data: Dataset,
        test: Dataset | None,
        notify: Notify = lambda message: None,
        on_progress: OnProgress | None = None,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> SearchResult:
        """Adapt the options to the data as far as `config.effort` says, and return the best fit.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
        """
        config = self.config
        if config.effort:
            split = replace(config.split, validation=validation_share(data.labels_N))
            share = config.linear_share if "linear_share" in config.given else None
            config = replace(config, split=split, linear_share=share)
        if group.size > 1:
            config = replace(config, linear_share=0.0)  # nor was an average
        prepared = TrainingJob(config).prepare(data, test, notify, group)
        facts = measure(prepared)
        if config.effort:
            if group.size > 1:
                config = replace(config, effort="quick")  # a search in several processes has not been tried
            recipe = apply_rules(config, facts)
            config = recipe.config
            for reason in recipe.reasons:
                notify(f"Chosen: {reason}")
        notify(f"Training {config.model.name}: {prepared.preprocessing.rows:,} table rows")

        def fit(tried: JobConfig, fit_name: str) -> FittedModel:
            job, rows = TrainingJob(tried), prepared
            if tried.preparation != config.preparation:
                rows = job.with_target_statistics(prepared)
            model, fitted = job._fit(rows, on_progress, checkpoint and _checkpoint_of(checkpoint, fit_name), group)
            return FittedModel(rows, model, fitted)

        searched = RecipeSearch(config, facts, fit, notify).run()
        if len(searched.tried) > 1:
            notify(f"Chosen: {searched.chosen}, of {_losses(searched.tried)}")
        return searched

    def follow(
        self, data: Dataset, test: Dataset | None, group: ProcessGroup, *, checkpoint: Checkpoint | None = None
    ) -> None:
        """Take part in training the model that the first process exports.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
        """
        searched = self.fit_best(data, test, checkpoint=checkpoint, group=group)
        best = searched.best
        TrainingJob(searched.config)._refit(
            data, test, best.prepared, best.fitted, LinearAverage(), None, checkpoint, group
        )

    def prepare(
        self,
        data: Dataset,
        test: Dataset | None,
        notify: Notify = lambda message: None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> PreparedData:
        """Split the rows, encode them and fit what preprocessing learns, the same in all processes.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
        """
        check_user_model(self.config.model, data)
        machine_group = group.on_this_machine()
        choice = group.run_all_or_raise(lambda: self.config.split.choose(data, test))
        notify(f"Held out for validation{'' if test else ' and test'}: {choice}")
        if choice.warning:
            notify(f"Warning: {choice.warning}")
        parts = dict(
            zip(PARTS, group.run_all_or_raise(lambda: self.config.split.parts(data, test, choice)), strict=True)
        )
        notify("Encoding " + ", ".join(f"{len(part):,} {part_name}" for part_name, part in parts.items()) + " rows")
        encoded = {part: encode(rows, machine_group) for part, rows in parts.items()}
        preprocessing = self.config.preparation.fit(data.schema, encoded["train"], group)
        check_held_positions(preprocessing)
        rows = {part: expand(preprocessing, slots, machine_group) for part, slots in encoded.items()}
        return self.with_target_statistics(PreparedData(parts, encoded, preprocessing, rows))

    def with_target_statistics(self, prepared: PreparedData) -> PreparedData:
        """Add the target statistics that this job is configured with to rows that have none.

        It is a matter of a second, so that a search may prepare its rows once and try several kinds.

        Raises:
            ConfigError: rows are mapped from files.
        """
        if self.config.preparation.target_statistics == "none":
            return prepared
        if prepared.are_mapped:
            raise ConfigError(
                "--target-statistics: these rows are mapped from files, as all that a service recorded and tables of "
                "more than 64 MB are, and statistics are made of rows in memory alone: leave the option out"
            )
        preprocessing, rows = self.config.extend(prepared.preprocessing, prepared.rows)
        return replace(prepared, preprocessing=preprocessing, rows=rows)

    def train(
        self,
        prepared: PreparedData,
        on_progress: OnProgress | None = None,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> TrainedModel:
        """Train a fresh model, calibrate it on the validation part and measure it. Raises DataError if it diverges."""
        return calibrate_and_measure(self.config, prepared, *self._fit(prepared, on_progress, checkpoint, group))

    def _fit(
        self,
        prepared: PreparedData,
        on_progress: OnProgress | None,
        checkpoint: Checkpoint | None,
        group: ProcessGroup,
    ) -> tuple[CtrModel, FitResult]:
        model = self.config.model.build(prepared.preprocessing)
        trainer = Trainer(self.config.trainer, model, prepared.preprocessing)
        train, validation = prepared.rows["train"], prepared.rows["validation"]
        # The checkpoint stays until the whole job is done: one that is killed in a later fit resumes behind this one.
        fitted = trainer.fit(train, validation, on_progress, checkpoint=checkpoint, group=group)
        return model, fitted

    def refit(
        self,
        data: Dataset,
        test: Dataset | None,
        prepared: PreparedData,
        trained: TrainedModel,
        notify: Notify = lambda message: None,
        on_progress: OnProgress | None = None,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> RefittedModel | None:
        """Train the model that is written on all of `data`, with the calibration of the trained one.

        Returns:
            None if the configuration says to write the trained model itself.

        Raises:
            DataError: the training diverges.
        """
        if self.config.refit:
            notify(f"Fitting it again on all {len(data):,} rows, for {trained.fitted.best_epoch + 1} epochs")
        refitted = self._refit(data, test, prepared, trained.fitted, trained.average, on_progress, checkpoint, group)
        return refitted and refitted.calibrated(
            trained.calibration, trained.logits["validation"], prepared.encoded["validation"].learned_weighting
        )

    def _refit(
        self,
        data: Dataset,
        test: Dataset | None,
        prepared: PreparedData,
        fitted: FitResult,
        averaged: LinearAverage,
        on_progress: OnProgress | None,
        checkpoint: Checkpoint | None,
        group: ProcessGroup,
    ) -> RefittedModel | None:
        if not self.config.refit:
            return None
        return refit(
            self.config,
            data,
            prepared.encoded["test"],
            fitted,
            prepared.preprocessing,
            has_seen_test=test is None,
            averaged=averaged,
            on_progress=on_progress,
            checkpoint=checkpoint and _checkpoint_of(checkpoint, REFIT),
            group=group,
        )


def _losses(tried: Sequence[TriedFit]) -> str:
    return ", ".join(
        f"{fit.name} {'failed' if fit.validation_loss is None else f'{fit.validation_loss:.4f}'}" for fit in tried
    )


def _checkpoint_of(checkpoint: Checkpoint, fit_name: str) -> Checkpoint:
    """Return the checkpoint of one fit of a job, which has several."""
    return checkpoint if fit_name == RULES else checkpoint.sibling(fit_name)
