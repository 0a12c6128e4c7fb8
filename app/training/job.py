"""One training run from raw rows to a verified version: split, encode, train, calibrate, measure, report, export."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
import torch

from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.data.readers.bad_rows import SkippedRows
from app.training.data.split import HELD_OUT, PARTS, SplitConfig
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.evaluation.baselines import baselines
from app.training.evaluation.calibration import Calibration, Method, fit_calibration
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.predict import predict
from app.training.evaluation.reliability import Floats
from app.training.evaluation.user_groups import user_groups
from app.training.export import export_version, verify_export
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import FitResult, Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.report import PAGE, write_report
from app.training.report.collect import ReportInput, collect_findings

Metrics = dict[str, float]
Say = Callable[[str], None]

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class JobConfig:
    """Every choice of a run; kept in the manifest."""

    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preparation: PreprocessingFit = field(default_factory=PreprocessingFit)
    calibration: Method = "auto"

    def build(self) -> TrainingJob:
        return TrainingJob(self)


@dataclass(frozen=True)
class PreparedData:
    """The three parts of the data, by name, as every model of a schema takes them."""

    data: dict[str, Dataset]
    encoded: dict[str, EncodedRows]
    preprocessing: Preprocessing
    rows: dict[str, ExpandedRows]

    def groups(self, part: str) -> Any:
        """Whose row each is, for GAUC."""
        return user_groups(self.preprocessing.schema, self.encoded[part])


@dataclass(frozen=True)
class TrainedModel:
    """A model with its calibration in place, and what it is worth on the parts `validation` and `test`."""

    model: CtrModel
    fitted: FitResult
    calibration: Calibration
    logits: dict[str, Floats]
    metrics: dict[str, Metrics]
    uncalibrated: dict[str, Metrics]

    def probabilities(self, part: str) -> Floats:
        """Calibrated, [N] in float64, of a held-out part's rows."""
        return self.calibration.probabilities(self.logits[part])


@dataclass(frozen=True)
class JobResult:
    metrics: dict[str, Metrics]
    """Of the parts `validation` and `test`."""
    baselines: dict[str, Metrics]
    """On the test part."""
    fitted: FitResult
    seconds: float
    rows: dict[str, int]
    unreadable: dict[str, SkippedRows]
    calibration: Calibration
    uncalibrated: dict[str, Metrics]
    """As `metrics`, without the calibration."""
    report: Path | None
    """The page; None where it could not be written."""


@dataclass(frozen=True)
class TrainingJob:
    config: JobConfig

    def run(
        self,
        data: Dataset,
        test: Dataset | None,
        folder: Path,
        *,
        name: str,
        say: Say = lambda _: None,
        report: Callable[[ProgressUpdate], None] | None = None,
        command: str = "",
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> JobResult:
        """
        Args:
            test: rows to test on; None holds some of `data` out.
            folder: existing folder for the version and its report.
            say: told what is being done, for people.
            command: the command line that started it, for the report.
            checkpoint: where training keeps its state, and whether to go on from it.
            group: the processes that train together; the others `follow`.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
            ArtifactError: what was written does not read back with the same scores.
        """
        started = time.perf_counter()
        prepared = self.prepare(data, test, say, group)
        say(f"Training {self.config.model.name}: {prepared.preprocessing.rows:,} table rows")
        trained = self.train(prepared, report, checkpoint, group)
        beside = self.baselines(prepared, say)
        return self.finish(prepared, trained, beside, folder, name, command, started, say)

    def follow(
        self, data: Dataset, test: Dataset | None, group: ProcessGroup, *, checkpoint: Checkpoint | None = None
    ) -> None:
        """A process's part in training a model that the first process keeps. Raises DataError, ConfigError."""
        self._fitted(self.prepare(data, test, group=group), None, checkpoint, group)

    def prepare(
        self, data: Dataset, test: Dataset | None, say: Say = lambda _: None, group: ProcessGroup = SINGLE_PROCESS
    ) -> PreparedData:
        """Split the rows, encode them and fit what preprocessing learns, the same in all processes.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
        """
        machine_group = group.on_this_machine()
        parts = dict(zip(PARTS, group.run_all_or_raise(lambda: self.config.split.parts(data, test)), strict=True))
        say("Encoding " + ", ".join(f"{len(part):,} {part_name}" for part_name, part in parts.items()) + " rows")
        encoded = {part: encode(rows, machine_group) for part, rows in parts.items()}
        preprocessing = self.config.preparation.fit(data.schema, encoded["train"], group)
        rows = {part: expand(preprocessing, slots, machine_group) for part, slots in encoded.items()}
        return PreparedData(parts, encoded, preprocessing, rows)

    def train(
        self,
        prepared: PreparedData,
        report: Callable[[ProgressUpdate], None] | None = None,
        checkpoint: Checkpoint | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> TrainedModel:
        """A fresh model, trained, calibrated on the validation part and measured. Raises DataError."""
        return self.measured(prepared, *self._fitted(prepared, report, checkpoint, group))

    def _fitted(
        self,
        prepared: PreparedData,
        report: Callable[[ProgressUpdate], None] | None,
        checkpoint: Checkpoint | None,
        group: ProcessGroup,
    ) -> tuple[CtrModel, FitResult]:
        model = self.config.model.build(prepared.preprocessing)
        trainer = Trainer(self.config.trainer, model, prepared.preprocessing)
        train, validation = prepared.rows["train"], prepared.rows["validation"]
        return model, trainer.fit(train, validation, report, checkpoint=checkpoint, group=group)

    def measured(self, prepared: PreparedData, model: CtrModel, fitted: FitResult) -> TrainedModel:
        """Calibrate a trained model, in place, and measure it."""
        labels = {part: prepared.encoded[part].labels_N for part in HELD_OUT}
        with torch.inference_mode():
            logits: dict[str, Floats] = {part: predict(model, prepared.rows[part]).numpy() for part in HELD_OUT}
        calibration = fit_calibration(
            self.config.calibration, logits["validation"], labels["validation"], self.config.trainer.seed
        )
        calibration.apply(model)

        def measure(how: Calibration) -> dict[str, Metrics]:
            return {
                part: evaluate(labels[part], how.probabilities(logits[part]), prepared.groups(part))
                for part in HELD_OUT
            }

        return TrainedModel(model, fitted, calibration, logits, measure(calibration), measure(Calibration()))

    def baselines(self, prepared: PreparedData, say: Say = lambda _: None) -> dict[str, Metrics]:
        """Metrics of the baselines on the test part; none where they fail, as the trained model must not be lost."""
        say("Fitting the baselines on the same rows")
        train, test = ((prepared.encoded[part], prepared.rows[part]) for part in ("train", "test"))
        try:
            return baselines(prepared.preprocessing, train, test, self.config.trainer.seed, prepared.groups("test"))
        except Exception as error:
            log.exception("baselines_failed")
            say(f"The baselines could not be fitted, the model is: {type(error).__name__}: {error}")
            return {}

    def finish(
        self,
        prepared: PreparedData,
        trained: TrainedModel,
        beside: dict[str, Metrics],
        folder: Path,
        name: str,
        command: str = "",
        started: float | None = None,
        say: Say = lambda _: None,
        also: dict[str, Any] | None = None,
    ) -> JobResult:
        """Write the report and the version, and read the version back.

        Args:
            started: `time.perf_counter()` when the run began.
            also: what else the manifest's config is to hold.

        Raises:
            ArtifactError: what was written does not read back with the same scores.
        """
        began = time.perf_counter() if started is None else started
        fitted, calibration = trained.fitted, trained.calibration
        unreadable = {f: s for slots in prepared.encoded.values() for f, s in slots.unreadable.items()}
        found = {"data": describe(prepared.data), "config": asdict(self.config)}
        say("Writing the report and the version")
        run = ReportInput(
            name=name,
            model=trained.model,
            preprocessing=prepared.preprocessing,
            encoded=prepared.encoded,
            rows=prepared.rows,
            fitted=fitted,
            calibration=calibration,
            logits=trained.logits,
            metrics=trained.metrics,
            uncalibrated=trained.uncalibrated,
            baselines=beside,
            unreadable={field: str(skipped) for field, skipped in unreadable.items()},
            seed=self.config.trainer.seed,
            command=command,
            **found,
        )
        written = self._report(folder, run, say)
        export_version(
            folder,
            trained.model,
            prepared.data["validation"],
            name=name,
            metrics={**trained.metrics, "baselines": beside, "uncalibrated": trained.uncalibrated},
            data=found["data"],
            config={
                **found["config"],
                "epochs_trained": len(fitted.epochs),
                "best_epoch": fitted.best_epoch + 1,
                "calibrated": asdict(calibration),
                **(also or {}),
            },
            beside=written,
        )
        verify_export(folder, prepared.encoded["test"], trained.probabilities("test"))
        return JobResult(
            metrics=trained.metrics,
            baselines=beside,
            fitted=fitted,
            seconds=time.perf_counter() - began,
            rows={part: len(rows) for part, rows in prepared.data.items()},
            unreadable=unreadable,
            calibration=calibration,
            uncalibrated=trained.uncalibrated,
            report=folder / PAGE if written else None,
        )

    def _report(self, folder: Path, run: ReportInput, say: Say) -> tuple[str, ...]:
        """Names of the files; none where it fails: hours of training must not be lost to a drawing."""
        try:
            return write_report(folder, collect_findings(run))
        except Exception as error:
            log.exception("report_failed", folder=str(folder))
            say(f"The report could not be written, the version is: {type(error).__name__}: {error}")
            return ()


def describe(parts: dict[str, Dataset]) -> dict[str, Any]:
    """Where the rows came from, how many, their CTR, and the time they span."""
    described: dict[str, Any] = {"source": parts["train"].source, "dataset": parts["train"].name}
    for name, part in parts.items():
        described[name] = {"rows": len(part), "ctr": round(float(part.labels_N.mean()), 6), **_window(part)}
    if parts["train"].skipped.count:
        described["skipped"] = str(parts["train"].skipped)
    return described


def _window(part: Dataset) -> dict[str, str | int]:
    if part.timestamps_N is None:
        return {}
    ends = {"from": int(part.timestamps_N.min()), "to": int(part.timestamps_N.max())}
    try:
        return {end: datetime.fromtimestamp(at, UTC).isoformat() for end, at in ends.items()}
    except (ValueError, OverflowError, OSError):  # not seconds since 1970
        return dict(ends)
