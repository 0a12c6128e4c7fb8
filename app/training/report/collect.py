"""Collect everything that a report shows as one JSON document; `drawings` and `tables` present it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve, roc_curve

from app import __version__
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.registry.artifact.manifest import now
from app.training.data.split import HELD_OUT
from app.training.evaluation.baselines import BaselineResult
from app.training.evaluation.calibration import Calibration
from app.training.evaluation.field_summary import field_summaries
from app.training.evaluation.importance import MAX_ROWS, REPEATS, measure_importance
from app.training.evaluation.interactions import measure_interactions
from app.training.evaluation.metrics import group_aucs
from app.training.evaluation.reliability import Floats, Reliability, reliability
from app.training.evaluation.rows_digest import rows_digest
from app.training.evaluation.user_groups import user_groups
from app.training.evaluation.verdict import Verdict
from app.training.loop.trainer import FitResult
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

PACKAGES = ("torch", "numpy", "polars", "scikit-learn")
MAX_POINTS = 200
SCORE_BINS, USER_BINS = 30, 20


@dataclass(frozen=True)
class ReportInput:
    """Holds the outcome of a training run, from which its report is collected."""

    name: str
    model: CtrModel
    preprocessing: Preprocessing
    encoded: dict[str, EncodedRows]
    rows: dict[str, ExpandedRows]
    fitted: FitResult
    calibration: Calibration
    logits: dict[str, Floats]
    """Holds the uncalibrated logits of the held-out parts."""
    metrics: dict[str, dict[str, float]]
    uncalibrated: dict[str, dict[str, float]]
    baselines: dict[str, BaselineResult]
    verdict: Verdict
    data: dict[str, Any]
    config: dict[str, Any]
    unreadable: dict[str, str]
    seed: int
    command: str
    """Holds the command that repeats the run; empty if no command started it."""


def collect_findings(run: ReportInput) -> dict[str, Any]:
    """Return the document.

    Curves, histogram and users are of the test part, field importance and crosses of the validation part.
    """
    labels_N, weights_N = run.encoded["test"].labels_N, _weights(run, "test")
    scores_N = run.calibration.probabilities(run.logits["test"])
    schema = run.preprocessing.schema
    return {
        "model": {
            "name": run.name,
            "architecture": run.model.name,
            "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
            "table_rows": run.preprocessing.rows,
        },
        "created_at": now(),
        "metrics": run.metrics,
        "uncalibrated": run.uncalibrated,
        "baselines": {name: baseline.metrics["test"] for name, baseline in run.baselines.items()},
        "baseline_notes": {name: baseline.note for name, baseline in run.baselines.items()},
        "verdict": asdict(run.verdict),
        "training": {**asdict(run.fitted), "best_epoch": run.fitted.best_epoch + 1},
        "curves": curves(labels_N, scores_N, weights_N),
        "calibration": {**asdict(run.calibration), **_diagrams(run)},
        "scores": _histogram(labels_N, scores_N, weights_N),
        "users": _users(user_groups(schema, run.encoded["test"]), labels_N, scores_N, weights_N),
        "importance": _importance(run),
        "crosses": _crosses(run),
        "fields": field_summaries(run.preprocessing, run.encoded, run.seed),
        "data": {**run.data, "unreadable": run.unreadable},
        "reproduce": {
            "command": run.command,
            "seed": run.seed,
            "versions": {"ctr-serving": __version__, "python": platform.python_version(), **_versions()},
            "digest": {part: rows_digest(encoded) for part, encoded in run.encoded.items()},
            "schema_hash": schema.hash,
            "config": run.config,
        },
    }


def _weights(run: ReportInput, part: str) -> Floats | None:
    """Return how much each row of a part counts; None where all count the same."""
    weighting = run.encoded[part].weighting
    return None if weighting is None else weighting.weights_N


def curves(
    labels_N: Floats, scores_N: npt.NDArray[np.float64], weights_N: Floats | None = None
) -> dict[str, list[list[float]]]:
    """Return points of the ROC curve (false positive rate, true) and the PR curve (recall, precision), x ascending."""
    if labels_N.min() == labels_N.max():
        return {"roc": [], "pr": []}
    false_N, true_N, _ = roc_curve(labels_N, scores_N, sample_weight=weights_N)
    precision_N, recall_N, _ = precision_recall_curve(labels_N, scores_N, sample_weight=weights_N)
    return {"roc": _thin(false_N, true_N), "pr": _thin(recall_N[::-1], precision_N[::-1])}


def _thin(x_N: Floats, y_N: Floats) -> list[list[float]]:
    """Return about `MAX_POINTS` points of a curve at most, evenly along x, both ends among them.

    A curve of tied scores has few points, and its corners could be between those chosen: then all are returned.
    """
    chosen = np.arange(len(x_N))
    if len(x_N) > MAX_POINTS:
        spaced = np.linspace(x_N[0], x_N[-1], MAX_POINTS)
        chosen = np.unique(np.r_[0, np.searchsorted(x_N, spaced).clip(max=len(x_N) - 1), len(x_N) - 1])
    return [[round(float(x), 5), round(float(y), 5)] for x, y in zip(x_N[chosen], y_N[chosen], strict=True)]


def _diagrams(run: ReportInput) -> dict[str, Any]:
    diagrams = {}
    for part in HELD_OUT:
        labels_N, logits_N = run.encoded[part].labels_N, run.logits[part]
        by_name = {
            "before": run.calibration.as_trained.probabilities(logits_N),
            "after": run.calibration.probabilities(logits_N),
        }
        diagrams[part] = {
            name: _bins(reliability(labels_N, p_N, weights_N=_weights(run, part))) for name, p_N in by_name.items()
        }
    return diagrams


def _bins(diagram: Reliability) -> list[dict[str, float]]:
    columns = zip(diagram.predicted_G.tolist(), diagram.observed_G.tolist(), diagram.rows_G.tolist(), strict=True)
    return [{"predicted": round(p, 6), "observed": round(o, 6), "rows": rows} for p, o, rows in columns]


def _histogram(labels_N: Floats, scores_N: npt.NDArray[np.float64], weights_N: Floats | None) -> dict[str, Any]:
    edges = np.linspace(0, max(float(scores_N.max()), 1e-9), SCORE_BINS + 1)
    counts = {}
    for name, label in (("click", 1), ("none", 0)):
        chosen_N = labels_N == label
        weights = None if weights_N is None else weights_N[chosen_N]
        counts[name] = np.histogram(scores_N[chosen_N], edges, weights=weights)[0].round().astype(np.int64)
    return {"edges": np.round(edges, 6).tolist(), **{name: count.tolist() for name, count in counts.items()}}


def _users(
    groups_N: npt.NDArray[np.int64] | None, labels_N: Floats, scores_N: Floats, weights_N: Floats | None
) -> dict[str, Any]:
    if groups_N is None:
        return {"omitted": "the schema has no user id"}
    auc_G, rows_G = group_aucs(groups_N, labels_N, scores_N, weights_N)
    users = len(np.unique(groups_N))
    if not len(auc_G):
        return {"omitted": f"none of {users} users has both a click and a row without one"}
    return {
        "gauc": float((auc_G * rows_G).sum() / rows_G.sum()),
        "users": users,
        "with_both": len(auc_G),
        "rows": int(rows_G.sum()),
        "quartiles": [round(float(q), 4) for q in np.quantile(auc_G, (0.25, 0.5, 0.75))],
        "edges": np.linspace(0, 1, USER_BINS + 1).round(4).tolist(),
        "weights": (np.histogram(auc_G, USER_BINS, (0, 1), weights=rows_G)[0] / rows_G.sum()).round(5).tolist(),
    }


def _importance(run: ReportInput) -> dict[str, Any]:
    rows = run.rows["validation"]
    fields = measure_importance(run.model, run.preprocessing, rows, seed=run.seed, scale=run.calibration.scale)
    return {
        "part": "validation",
        "rows": min(len(rows.labels_N), MAX_ROWS),
        "repeats": REPEATS,
        "fields": [asdict(importance) for importance in fields],
    }


def _crosses(run: ReportInput) -> dict[str, Any]:
    crosses = measure_interactions(run.model, run.preprocessing, run.rows["validation"], seed=run.seed)
    if isinstance(crosses, str):
        return {"omitted": f"{run.model.name}: {crosses}"}
    return {"fields": crosses.fields, "strength": np.round(run.calibration.scale * crosses.strength_FF, 5).tolist()}


def _versions() -> Mapping[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # installed under another name, as CUDA builds of some are
            continue
    return versions
