"""Writes the table of cuts: what a model is worth on few rows, beside logistic regression on the same rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from benchmarks.model_runs import RunResult
from benchmarks.model_table import PEER_NAMES

MARKS = "<!-- cuts: begin, written by `python -m benchmarks.cuts` -->", "<!-- cuts: end -->"
MAX_BELOW = 0.005
"""A mean AUC that is further below the peer's is flagged."""
Pairs = list[tuple[RunResult, RunResult]]
"""The model's run and the peer's on each cut of a set."""


def pairs(results: Iterable[RunResult], model: str, peer: str) -> dict[str, Pairs]:
    """Return the model's and the peer's run on each cut that both were trained on, by set."""
    runs = {(result.set, result.model, result.seed): result for result in results}
    found: dict[str, Pairs] = {}
    for (name, trained, seed), result in runs.items():
        other = runs.get((name, peer, seed))
        if trained == model and other:
            found.setdefault(name, []).append((result, other))
    return found


def table(results: Mapping[int, Sequence[RunResult]], model: str, peer: str, sets: Sequence[str], where: str) -> str:
    """Return the table and a line on how it was made.

    Args:
        results: the runs by the number of rows of their cuts.
        model, peer: the names of what is compared; the difference is the first less the second.
        sets: the order of the sets.
        where: the machine, for the last line.
    """
    names = f"`{model}`", PEER_NAMES.get(peer, f"`{peer}`")
    columns = ["rows", "set", "cuts", *(f"AUC: {name}" for name in names), "difference"]
    columns += [*(f"log loss: {name}" for name in names), "difference", "flags"]
    lines = [columns, ["---:", "---", *["---:"] * (len(columns) - 3), "---"]]
    for rows, of_rows in sorted(results.items()):
        of_set = pairs(of_rows, model, peer)
        lines += [_line(rows, name, [of_set[name]]) for name in sets if name in of_set]
        if len(of_set) > 1:
            lines.append(_line(rows, "mean of the sets", list(of_set.values())))
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{text}\n\n{_note([run for runs in results.values() for run in runs], where)}"


def _line(rows: int, name: str, groups: Sequence[Pairs]) -> list[str]:
    """Return the cells of a set, or of the mean of several, in which each set has the same weight."""
    cells = [f"{rows:,}", name, str(sum(map(len, groups)))]
    for metric, digits in (("auc", 4), ("log_loss", 4)):
        values = [[(getattr(a, metric), getattr(b, metric)) for a, b in group] for group in groups]
        difference, error = difference_of(values)
        cells += [f"{mean(mean(pair[n] for pair in group) for group in values):.{digits}f}" for n in (0, 1)]
        cells.append(f"{difference:+.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else ""))
    difference, _ = difference_of([[(a.auc, b.auc) for a, b in group] for group in groups])
    return [*cells, f"more than {MAX_BELOW} below" if difference < -MAX_BELOW else "–"]


def difference_of(groups: Sequence[Sequence[tuple[float, float]]]) -> tuple[float, float | None]:
    """Return the mean over the groups of their mean difference, and its standard error; None with a single pair."""
    differences = [[a - b for a, b in group] for group in groups]
    if any(len(group) < 2 for group in differences):
        return mean(mean(group) for group in differences), None
    variances = [stdev(group) ** 2 / len(group) for group in differences]
    return mean(mean(group) for group in differences), math.sqrt(sum(variances)) / len(groups)


def _note(results: Sequence[RunResult], where: str) -> str:
    days = sorted({result.created_at[:10] for result in results})
    return (
        "Cuts are drawn at random from a set's training rows, and all its test rows are scored by `ctr train` with "
        "default settings; ±: standard errors over the cuts, of the difference on the same rows. "
        f"{where}, {' to '.join(dict.fromkeys((days[0], days[-1])))}, commit "
        f"{', '.join(sorted({result.commit for result in results} - {''}))}."
    )
