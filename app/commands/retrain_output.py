"""What `ctr retrain` prints: the table of the two versions, and the document of `--json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.commands.output import figures_table

if TYPE_CHECKING:
    from rich.table import Table

    from app.registry.gate.gate_report import GateReport
    from app.training.retrain import RetrainOutcome

METRICS = ("auc", "log_loss", "pr_auc", "calibration")


def comparison_table(outcome: RetrainOutcome) -> Table:
    """Show the live version beside the candidate on the rows that were held out."""
    from app.training.evaluation.metrics import METRIC_LABELS

    evaluation = outcome.evaluation
    titles = (METRIC_LABELS[metric] for metric in METRICS)
    table = figures_table(f"the newest {evaluation['rows']:,} rows", "version", *titles)
    for name, version in ((f"{outcome.live}, live", "live"), ("candidate", "candidate")):
        table.add_row(name, *(f"{evaluation[version][metric]:.4f}" for metric in METRICS))
    return table


def outcome_document(
    name: str,
    outcome: RetrainOutcome,
    folder: Path | None,
    reason: str | None,
    message: str | None,
    gate: GateReport | None,
) -> dict[str, Any]:
    """Make the JSON document of a retraining of the model `name`.

    Args:
        folder: that of the version; None if nothing was published.
        reason: why nothing was published, as one word; `message` says it in a sentence.
        gate: the gate's report on the new version, if it came that far and passed.
    """
    return {
        "model": name,
        "live": outcome.live,
        "published": folder is not None,
        "version": outcome.version,
        "version_dir": str(folder) if folder else None,
        "reason": reason,
        "message": message,
        "rows": outcome.rows,
        "data": outcome.data,
        "keys": outcome.keys,
        "evaluation": outcome.evaluation,
        "gate": gate,
        "seconds": round(outcome.seconds, 3),
        "samples_per_second": round(outcome.fitted.samples_per_second, 1) if outcome.fitted else None,
    }
