"""Draw what a report shows, from its findings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.training.report import figures
from app.training.report.tables import drawn_crosses


def draw_findings(findings: Mapping[str, Any]) -> dict[str, str]:
    """Return the SVG elements of the page by name; a section that is not shown has none."""
    svgs = {
        "learning": _learning(findings["training"]),
        **_curves(findings),
        "reliability": _reliability(findings["calibration"]),
        "scores": _scores(findings["scores"]),
        "importance": _importance(findings["importance"]["fields"]),
    }
    users, crosses = findings["users"], findings["crosses"]
    if "omitted" not in users:
        svgs["users"] = figures.histogram(
            "users", "AUC per user", users["edges"], {"users": users["weights"]}, "AUC of one user's rows"
        )
    if "omitted" not in crosses:
        svgs["crosses"] = figures.heat_map(*drawn_crosses(crosses))
    return svgs


def _learning(training: Mapping[str, Any]) -> str:
    epochs = training["epochs"]
    return figures.learning_curves(
        [epoch["train_loss"] for epoch in epochs],
        [epoch["validation_loss"] for epoch in epochs],
        training["best_epoch"],
    )


def _curves(findings: Mapping[str, Any]) -> dict[str, str]:
    roc, pr = findings["curves"]["roc"], findings["curves"]["pr"]
    if not roc:
        return {}
    share = findings["data"].get("test", {}).get("ctr") or 0.0
    return {
        "roc": figures.curve("roc", "ROC curve", roc, "false positive rate", "true positive rate", None),
        "pr": figures.curve("pr", "PR curve", pr, "recall", "precision", share),
    }


def _reliability(calibration: Mapping[str, Any]) -> str:
    test = calibration["test"]
    return figures.reliability(test["before"], test["after"] if calibration["method"] != "none" else None)


def _scores(scores: Mapping[str, Any]) -> str:
    labels = {"rows with a click": "click", "rows without": "none"}
    series = {}
    for label, name in labels.items():
        total = sum(scores[name]) or 1
        series[label] = [count / total for count in scores[name]]
    return figures.histogram("scores", "Scores by label", scores["edges"], series, "predicted probability")


def _importance(fields: list[dict[str, Any]]) -> str:
    return figures.bars(
        "importance",
        "Rise of the log loss when a field is permuted",
        {field["field"]: field["log_loss"] for field in fields},
        [tuple(field["log_loss_range"]) for field in fields],
        "rise of the log loss",
    )
