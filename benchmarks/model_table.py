"""Writes the tables of all models as Markdown, one for each set, between two marks of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from benchmarks.model_runs import RunResult

MARKS = "<!-- models: begin, written by `make bench-models` -->", "<!-- models: end -->"
PEER_NAMES = {
    "constant": "constant",
    "logistic_regression": "logistic regression, C searched",
    "lightgbm": "LightGBM",
    "catboost": "CatBoost",
}
MAX_BELOW = 0.005
"""A seed whose AUC is further below the mean of the seeds is flagged."""
ROUNDING = 1e-6
COLUMNS = ("model", "AUC", "GAUC", "log loss", "predicted / observed", "seconds", "flags")


def tables(results: Sequence[RunResult], titles: Mapping[str, str], models: Sequence[str], where: str) -> str:
    """Return a heading and a table for each set that has results, and a line on how they were made.

    Args:
        titles: what each set is, by its name, in the order of the tables.
        where: the machine, for the last line.
    """
    parts = []
    for name, title in titles.items():
        of_set = [result for result in results if result.set == name]
        if of_set:
            parts += [f"### {name}: {title}", "", table(of_set, models), ""]
    return "\n".join([*parts, _note(results, where)])


def table(results: Sequence[RunResult], models: Sequence[str]) -> str:
    """Return the table of one set: rows by log loss, the best first; mean and standard deviation over the seeds."""
    runs_of = {model: [result for result in results if result.model == model] for model in models}
    seeds = len({result.seed for result in results})
    rows = [list(COLUMNS), ["---", *["---:"] * (len(COLUMNS) - 2), "---"]]
    for model in sorted((m for m in models if runs_of[m]), key=lambda m: mean(r.log_loss for r in runs_of[m])):
        runs = runs_of[model]
        rows.append(
            [
                PEER_NAMES.get(model, f"`{model}`"),
                _spread(run.auc for run in runs),
                _spread(run.gauc for run in runs),
                _spread(run.log_loss for run in runs),
                _spread((run.calibration for run in runs), 2),
                f"{mean(run.seconds for run in runs):.1f}",
                "; ".join(flags(runs, seeds)) or "–",
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def flags(runs: Sequence[RunResult], seeds: int) -> list[str]:
    """Return what is wrong with a model's runs on one set, in words; `seeds` is how many there should be."""
    average = mean(run.auc for run in runs)
    found = [f"seed {run.seed}: AUC {run.auc - average:+.3f}" for run in runs if run.auc < average - MAX_BELOW]
    worse = [run for run in runs if run.log_loss > run.constant_log_loss + ROUNDING]
    if worse:
        excess = max(run.log_loss - run.constant_log_loss for run in worse)
        found.append(f"worse than the constant ({_seeds(worse)}), by up to {excess:.4f}")
    if poor := [run for run in runs if run.poor]:
        found.append(f"said to be poor ({_seeds(poor)})")
    if len(runs) < seeds:
        found.append(f"{len(runs)} of {seeds} seeds so far")
    return found


def _seeds(runs: Sequence[RunResult]) -> str:
    return f"seed {', '.join(str(run.seed) for run in runs)}"


def _note(results: Sequence[RunResult], where: str) -> str:
    days = sorted({r.created_at[:10] for r in results})
    loads = [r.load_average for r in results]
    seeds = ", ".join(map(str, sorted({r.seed for r in results})))
    return (
        "Test parts, `ctr train` with default settings (the version as it is written), mean and standard deviation "
        f"over the seeds {seeds} (of weights, batches and validation part); without ±, of one seed. Peers are "
        "fitted on all training rows, "
        f"those that stop early on nine tenths. Flags: a seed more than {MAX_BELOW} AUC below the mean; a log loss "
        "above that of the training rows' share of clicks; what `ctr train` itself calls poor. Seconds: the whole job, "
        f"one thread, without reading. {where}, {' to '.join(dict.fromkeys((days[0], days[-1])))}, commit "
        f"{', '.join(sorted({r.commit for r in results}))}, load average {min(loads):.1f} to {max(loads):.1f}."
    )


def _spread(values: Iterable[float | None], digits: int = 4) -> str:
    measured = [value for value in values if value is not None]
    if not measured:
        return "–"
    return f"{mean(measured):.{digits}f}" + (f" ± {stdev(measured):.{digits}f}" if len(measured) > 1 else "")


def insert_between_marks(page: str, content: str, marks: tuple[str, str] = MARKS) -> str:
    """Return the page with the content between the marks. Raises ValueError if the page has no marks."""
    begin, end = marks
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no place for the table: put {begin} and {end} into it")
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", page, count=1)
