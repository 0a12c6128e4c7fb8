"""Say in sentences what the test part shows of a model: of how many clicks, how surely, and whether it is credible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.training.evaluation.baselines import CONSTANT
from app.training.evaluation.intervals import Z
from app.training.evaluation.verdict import Verdict

FEW = 100
"""With fewer rows of a class in the test part AUC has a standard error above 0.03."""
TOO_GOOD = 0.99
"""Nobody foresees clicks so well: with this AUC a field knows what came after them."""


def evidence(metrics: Mapping[str, float], verdict: Verdict, rows: int, clicks: int) -> Iterator[str]:
    """Yield what a reader of the test part's metrics should know.

    Args:
        metrics: of the test part, with the bounds of the intervals.
        verdict: holds the differences from the baselines.
        rows, clicks: how many the test part has.
    """
    auc, log_loss = _with_error(metrics, "auc", 4), _with_error(metrics, "log_loss", 4)
    yield f"The test part has {clicks:,} clicks in {rows:,} rows: AUC {auc}, log loss {log_loss} (standard errors)"
    difference = verdict.differences.get("test", {}).get(CONSTANT)
    if difference is not None:
        loss = difference.log_loss
        shown = "better" if loss.high < 0 else "worse" if loss.low > 0 else "not shown to be better"
        side = "above" if loss.value > 0 else "below"
        yield (
            f"It is {shown} than a constant: its log loss is {abs(loss.value):.5f} {side} (standard error "
            f"{loss.error:.5f})"
        )
    rarer = min(clicks, rows - clicks)
    if rarer < FEW:
        what = "a click" if clicks <= rows - clicks else "no click"
        yield f"Only {rarer:,} test rows have {what}: such figures change by chance; give it more rows"


def is_too_good(metrics: Mapping[str, float]) -> bool:
    """Tell whether the AUC is one that only a field which knows the answer gives."""
    return metrics["auc"] >= TOO_GOOD


def _with_error(metrics: Mapping[str, float], name: str, digits: int) -> str:
    error = (metrics[f"{name}_high"] - metrics[f"{name}_low"]) / 2 / Z
    return f"{metrics[name]:.{digits}f} ± {error:.{digits}f}" if error == error else f"{metrics[name]:.{digits}f}"
