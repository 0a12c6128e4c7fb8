"""Compare a candidate with the live version on the same rows, and decide whether it is good enough."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from app.features.slots import Slots
from app.registry.artifact.artifact import Artifact
from app.training.evaluation.intervals import paired_difference
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.weighting import Weighting
from app.training.preprocessing.encode import EncodedRows

Metric = Literal["log_loss", "auc"]
Probabilities = npt.NDArray[np.float64]
CHUNK_ROWS = 8192


def probabilities(artifact: Artifact, examples: EncodedRows) -> Probabilities:
    """Return the probabilities [N] that a version gives these rows by its plain `forward`."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(examples.labels_N), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            # Copied, because the slots of a large file are mapped and read-only, which torch does not know.
            sides = [
                Slots(np.array(side.keys[chunk]), np.array(side.values[chunk]))
                for side in (examples.user, examples.item)
            ]
            parts.append(artifact.score_pairs(*sides).cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def compare(
    metric: Metric,
    labels_N: npt.NDArray[np.float32],
    new_N: Probabilities,
    live_N: Probabilities,
    groups_N: npt.NDArray[Any] | None = None,
    weighting: Weighting | None = None,
) -> dict[str, Any]:
    """Return the metrics of both, the gain, and how sure the difference is, row by row.

    Args:
        new_N: the candidate's probabilities.
        live_N: the live version's probabilities.
        groups_N: the user of each row; with it the metrics have GAUC.
        weighting: how much each row counts; None counts all the same.
    """
    new, live = (evaluate(labels_N, p_N, groups_N, weighting) for p_N in (new_N, live_N))
    sign = -1.0 if metric == "log_loss" else 1.0
    difference = paired_difference(labels_N, new_N, live_N, weighting)
    return {
        "metric": metric,
        "rows": len(labels_N),
        "candidate": new,
        "live": live,
        "gain": sign * (new[metric] - live[metric]),
        "log_loss_gain_error": difference.log_loss.error,
        "difference": asdict(difference),
    }


def shortfall(evaluation: dict[str, Any], live: int) -> str:
    """Return why the candidate is not good enough; empty where it is.

    Args:
        evaluation: what `compare` returned, and `min_gain`.
        live: the number of the live version.
    """
    gain, min_gain, metric = (evaluation[key] for key in ("gain", "min_gain", "metric"))
    if gain >= min_gain:  # not for NaN
        return ""
    candidate_value, live_value = (f"{evaluation[which][metric]:.5f}" for which in ("candidate", "live"))
    name = {"auc": "AUC", "log_loss": "log loss"}[metric]
    if gain != gain:
        change = "cannot be compared"
    elif gain == 0:
        change = "is neither better nor worse"
    else:
        change = f"is {'better' if gain > 0 else 'worse'} by {_amount(abs(gain))}"
    if min_gain < 0:
        demand = f"may be worse by {-min_gain:.5f} at most"
    elif min_gain > 0:
        demand = f"has to be better by {min_gain:.5f} at least"
    else:
        demand = "has to be no worse"
    return (
        f"not published: on the newest {evaluation['rows']:,} rows its {name} is {candidate_value}, that of version "
        f"{live} {live_value}: it {change}, and {demand} (--min-gain {min_gain:g})"
    )


def _amount(gain: float) -> str:
    return f"{gain:.5f}" if gain >= 0.00001 else f"{gain:.1g}"


def is_better(evaluation: Mapping[str, Any]) -> bool:
    """Tell whether `compare` found the candidate better on the same rows, and by nothing worse.

    Better by AUC or log loss, beyond 95 % intervals, and not worse by the other beyond them.
    """
    difference = evaluation.get("difference", {})
    auc, loss = difference.get("auc"), difference.get("log_loss")
    return bool(auc and loss and ((auc["low"] > 0 and loss["low"] <= 0) or (loss["high"] < 0 and auc["high"] >= 0)))
