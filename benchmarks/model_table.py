"""Writes the table of all models as Markdown, between two marks of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from benchmarks.model_runs import RunResult

BEGIN, END = "<!-- models: begin, written by `make bench-models` -->", "<!-- models: end -->"
PEER_NAMES = {
    "logistic_regression": "logistic regression, scikit-learn",
    "gradient_boosting": "gradient boosting, scikit-learn",
}


def table(results: Sequence[RunResult], splits: Sequence[str], models: Sequence[str], where: str) -> str:
    """Return the table: rows by log loss on the first split, the best first; mean and deviation over the seeds.

    Args:
        where: the machine, for the line below the table.
    """
    runs_of = {
        (split, model): [r for r in results if (r.split, r.model) == (split, model)]
        for split in splits
        for model in models
    }
    trained = [model for model in models if any(runs_of[split, model] for split in splits)]
    first = splits[0]
    trained.sort(key=lambda model: mean(r.log_loss for r in runs_of[first, model]) if runs_of[first, model] else 9.0)
    columns = ["model"]
    for split in splits:
        columns += [f"{split}: AUC", "log loss", "GAUC"]
    columns += ["seconds", "artifact"]
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    for model in trained:
        runs = [run for split in splits for run in runs_of[split, model]]
        row = [PEER_NAMES.get(model, f"`{model}`")]
        for split in splits:
            of_split = runs_of[split, model]
            row += [_spread(run.auc for run in of_split), _spread(run.log_loss for run in of_split)]
            row.append(_mean(run.gauc for run in of_split))
        sizes = [run.artifact_bytes for run in runs if run.artifact_bytes]
        row += [f"{mean(run.seconds for run in runs):.1f}", f"{mean(sizes) / 1e6:.2f} MB" if sizes else "–"]
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", _note(results, splits, where)])


def _note(results: Sequence[RunResult], splits: Sequence[str], where: str) -> str:
    seeds = {split: sorted({r.seed for r in results if r.split == split}) for split in splits}
    seed_lists = sorted({", ".join(map(str, of_split)) for of_split in seeds.values()})
    counts: dict[tuple[str, str], int] = {}
    for r in results:
        counts[r.split, r.model] = counts.get((r.split, r.model), 0) + 1
    short = sorted({model for (split, model), count in counts.items() if count < len(seeds[split])})
    days = sorted({r.created_at[:10] for r in results})
    loads = [r.load_average for r in results]
    window = " to ".join(dict.fromkeys((days[0], days[-1])))
    note = (
        f"Default settings, test parts of sparrow58k ({' and '.join(splits)} split), mean and standard deviation over "
        f"the seeds {' / '.join(seed_lists)} (of weights, batches and the validation part). Seconds: one fit until it "
        f"stops early, one thread, on average of both splits. {where}, {window}, commit "
        f"{', '.join(sorted({r.commit for r in results}))}, load average {min(loads):.1f} to {max(loads):.1f}."
    )
    if short:
        note += f" Fewer seeds so far: {', '.join(short)}."
    return note


def _spread(values: Iterable[float]) -> str:
    measured = list(values)
    if not measured:
        return "–"
    return f"{mean(measured):.4f}" + (f" ± {stdev(measured):.4f}" if len(measured) > 1 else "")


def _mean(values: Iterable[float | None]) -> str:
    measured = [value for value in values if value is not None]
    return f"{mean(measured):.4f}" if measured else "–"


def insert_between_marks(page: str, content: str) -> str:
    """Return the page with the content between the marks. Raises ValueError if the page has no marks."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page has no place for the table: put {BEGIN} and {END} into it")
    return pattern.sub(lambda _: f"{BEGIN}\n{content}\n{END}", page, count=1)
