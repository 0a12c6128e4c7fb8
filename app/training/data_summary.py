"""Summarise a job's data for the manifest and the report."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from app.features.times import DATED_S, LAST_S
from app.training.data.dataset import Dataset


def summarise_data(parts: dict[str, Dataset]) -> dict[str, Any]:
    """Return the rows' source, and the number of rows, the CTR and the time span of each part."""
    summary: dict[str, Any] = {"source": parts["train"].source, "dataset": parts["train"].name}
    for name, part in parts.items():
        weights = part.weights
        ctr = float(part.labels_N.mean()) if weights is None else weights.in_evaluation.mean(part.labels_N)
        summary[name] = {"rows": len(part), "ctr": round(ctr, 6), **_window(part)}
        if weights is not None and weights.units_N is not None:
            summary[name]["impressions"] = part.counts()[0]
    if parts["train"].weights:
        summary["weights"] = parts["train"].weights.note
        if parts["train"].weights.negative_rate < 1:
            summary["negative_rate"] = round(parts["train"].weights.negative_rate, 6)
    if parts["train"].skipped.count:
        summary["skipped"] = str(parts["train"].skipped)
    return summary


def _window(part: Dataset) -> dict[str, str | int]:
    """Return the first and the last time, in ISO 8601 where they are dates, and as numbers where they count."""
    if part.timestamps_N is None:
        return {}
    ends = {"from": int(part.timestamps_N.min()), "to": int(part.timestamps_N.max())}
    if not all(DATED_S <= at <= LAST_S for at in ends.values()):
        return dict(ends)
    return {end: datetime.fromtimestamp(at, UTC).isoformat() for end, at in ends.items()}
