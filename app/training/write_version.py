"""Write a trained model's version and report, and read the version back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from app.training.data_summary import summarise_data
from app.training.evaluation.baselines import BaselineResult
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.reliability import Floats
from app.training.export import export_version, verify_export
from app.training.field_histograms import field_histograms
from app.training.job_config import JobConfig
from app.training.job_results import JobResult, Metrics, PreparedData, TrainedModel
from app.training.judgement import judge_trained
from app.training.recipe.search import SearchResult
from app.training.refit import RefittedModel
from app.training.report import PAGE, write_report
from app.training.report.collect import ReportInput, collect_findings

log = structlog.get_logger(__name__)


def write_version(
    config: JobConfig,
    prepared: PreparedData,
    trained: TrainedModel,
    baselines: dict[str, BaselineResult],
    folder: Path,
    name: str,
    command: str = "",
    started: float | None = None,
    notify: Callable[[str], None] = lambda message: None,
    manifest_details: dict[str, Any] | None = None,
    *,
    refitted: RefittedModel | None = None,
    searched: SearchResult | None = None,
) -> JobResult:
    """Write the report and the version, and read the version back.

    The report and the metrics are those of the trained model, which has not seen the rows that it is measured on.

    Args:
        config: the job that trained the model.
        refitted: the model to write in place of the trained one.
        searched: how the configuration was chosen.
        started: `time.perf_counter()` when the job began; None means now.
        manifest_details: further entries of the manifest's config.

    Raises:
        ArtifactError: what was written does not read back with the same scores.
    """
    began = time.perf_counter() if started is None else started
    unreadable = {
        field: skipped for encoded in prepared.encoded.values() for field, skipped in encoded.unreadable.items()
    }
    data = summarise_data(prepared.data)
    recipe = searched.summary() if searched else None
    metrics_of = "the held-out model" if refitted else "this version"
    baseline_metrics = {name: baseline.metrics["test"] for name, baseline in baselines.items()}
    verdict = judge_trained(prepared, trained, baselines)
    notify("Writing the report and the version")
    report_input = ReportInput(
        name=name,
        model=trained.model,
        preprocessing=prepared.preprocessing,
        encoded=prepared.encoded,
        rows=prepared.rows,
        fitted=trained.fitted,
        calibration=trained.calibration,
        logits=trained.logits,
        metrics=trained.metrics,
        uncalibrated=trained.uncalibrated,
        baselines=baselines,
        verdict=verdict,
        data=data,
        config=config.as_document(),
        unreadable={field: str(skipped) for field, skipped in unreadable.items()},
        seed=config.trainer.seed,
        command=command,
    )
    report_files = _write_report(folder, report_input, notify)
    probabilities_N, refitted_metrics = _measure_written(prepared, trained, refitted)
    metrics: dict[str, dict[str, Any]] = {
        **trained.metrics,
        "baselines": baseline_metrics,
        "uncalibrated": trained.uncalibrated,
    }
    if refitted_metrics:
        metrics["refitted"] = {"test": refitted_metrics}
    export_version(
        folder,
        refitted.model if refitted else trained.model,
        prepared.data["validation"],
        name=name,
        metrics=metrics,
        data=data,
        config={
            **config.as_document(),
            "epochs_trained": len(trained.fitted.epochs),
            "best_epoch": trained.fitted.best_epoch + 1,
            "calibrated": asdict(refitted.calibration if refitted else trained.calibration),
            "poor": verdict.poor,
            "metrics_of": metrics_of,
            "refitted": refitted.summary() if refitted else None,
            "recipe": recipe,
            **(manifest_details or {}),
        },
        histograms=field_histograms(prepared.preprocessing.schema, prepared.encoded["train"], config.trainer.seed),
        extra_files=report_files,
    )
    verify_export(folder, prepared.encoded["test"], probabilities_N)
    return JobResult(
        metrics=trained.metrics,
        baselines=baseline_metrics,
        baseline_notes={name: baseline.note for name, baseline in baselines.items()},
        verdict=verdict,
        fitted=trained.fitted,
        seconds=time.perf_counter() - began,
        rows={part: rows.counts()[0] for part, rows in prepared.data.items()},
        clicks={part: rows.counts()[1] for part, rows in prepared.data.items()},
        unreadable=unreadable,
        calibration=trained.calibration,
        uncalibrated=trained.uncalibrated,
        report=folder / PAGE if report_files else None,
        refitted=refitted.summary() if refitted else None,
        refitted_metrics=refitted_metrics,
        metrics_of=metrics_of,
        recipe=recipe,
        config=config,
        test=prepared.encoded["test"],
        test_probabilities_N=trained.probabilities("test"),
    )


def _measure_written(
    prepared: PreparedData, trained: TrainedModel, refitted: RefittedModel | None
) -> tuple[Floats, Metrics | None]:
    """Return the test rows' probabilities by the model that is written, and its metrics if they are its own.

    Those of a refitted model that was trained on the test rows too would flatter it: there are none.
    """
    if not refitted:
        return trained.probabilities("test"), None
    probabilities_N = refitted.test_probabilities()
    if refitted.has_seen_test:
        return probabilities_N, None
    test = prepared.encoded["test"]
    return probabilities_N, evaluate(test.labels_N, probabilities_N, prepared.groups("test"), test.weighting)


def _write_report(folder: Path, report_input: ReportInput, notify: Callable[[str], None]) -> tuple[str, ...]:
    """Write the report and return its files' names, or none if it fails: hours of training must not be lost."""
    try:
        return write_report(folder, collect_findings(report_input))
    except Exception as error:
        log.exception("report_failed", folder=str(folder))
        notify(f"The report could not be written, the version is: {type(error).__name__}: {error}")
        return ()
