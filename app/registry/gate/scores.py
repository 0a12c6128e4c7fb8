"""Check that a version's scores are probabilities, and that they are like those of the live version."""

from __future__ import annotations

import numpy as np

from app.registry.gate.gate_report import GateCheck
from app.registry.gate.gate_task import GateThresholds
from app.registry.gate.served_version import Scores
from app.stats import spearman


def check_values(scores_UN: Scores) -> GateCheck:
    """Check that all scores are finite and in [0, 1]."""
    figures = {"scores": float(scores_UN.size)}
    not_finite = int((~np.isfinite(scores_UN)).sum())
    if not_finite:
        return GateCheck("scores", False, "finite", f"{not_finite} of {scores_UN.size} scores are not finite", figures)
    figures |= {"least": float(scores_UN.min()), "mean": float(scores_UN.mean()), "most": float(scores_UN.max())}
    if figures["least"] < 0 or figures["most"] > 1:
        return GateCheck("scores", False, "range", "scores are not all between 0 and 1", figures)
    return GateCheck("scores", True, figures=figures)


def check_shift(
    new_UN: Scores, live_UN: Scores, live_version: int, thresholds: GateThresholds, better: bool = False
) -> GateCheck:
    """Compare the mean score and the order of all pairs of user and item with those of the live version.

    Args:
        better: it was measured to be better on the same rows, so that it may differ.
    """
    if not np.isfinite(live_UN).all() or live_UN.mean() <= 0:
        return GateCheck("shift", True, detail="the live version's scores are nothing to compare with")
    max_ratio, min_correlation = thresholds.ctr_ratio, thresholds.rank_correlation
    ratio = float(new_UN.mean() / live_UN.mean())
    figures = {"ctr_ratio": round(ratio, 4)}
    if np.ptp(live_UN) > 0:
        figures["rank_correlation"] = round(spearman(new_UN.ravel(), live_UN.ravel()), 4)
    correlation = figures.get("rank_correlation", 1.0)
    if better:
        detail = f"its scores may differ from version {live_version}'s: on the same rows it was measured to be better"
        return GateCheck("shift", True, detail=detail, figures=figures)
    if not 1 / max_ratio <= ratio <= max_ratio:
        detail = f"its mean score is {ratio:.2f} times that of version {live_version}, "
        detail += f"{1 / max_ratio:.2f} to {max_ratio:g} is allowed"
        return GateCheck("shift", False, "shift", detail, figures, comparison=True)
    if correlation < min_correlation:
        detail = f"its order agrees with version {live_version} by {correlation:.2f} (Spearman), "
        return GateCheck("shift", False, "order", f"{detail}{min_correlation:g} is asked", figures, comparison=True)
    return GateCheck("shift", True, figures=figures)
