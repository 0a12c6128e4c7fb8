"""`train_document`: what `ctr train --json` prints."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.training.job_results import JobResult
    from app.training.publish import Destination


def train_document(model: str, destination: Destination, result: JobResult, report: Path | None) -> dict[str, Any]:
    """Make the JSON document of a training.

    Args:
        report: the page of the report, where it is by now.
    """
    return {
        "model": model,
        "version_dir": str(destination.folder),
        "version": destination.version,
        "metrics": result.metrics,
        "baselines": result.baselines,
        "seconds": round(result.seconds, 3),
        "samples_per_second": round(result.fitted.samples_per_second, 1),
        "report": str(report) if report else None,
        "calibration": asdict(result.calibration),
        "poor": result.verdict.poor,
        "comparisons": asdict(result.verdict)["differences"],
        "baseline_notes": result.baseline_notes,
        "metrics_of": result.metrics_of,
        "refitted": {**result.refitted, "test": result.refitted_metrics} if result.refitted else None,
        "recipe": result.recipe,
        "linear_share": result.config.linear_share,
    }
