"""`python -m benchmarks.cuts`: train on a few rows of every set at hand, beside logistic regression on the same rows.

Each run's result is kept in a JSON file, so that a call that was killed, or given `--seconds`, goes on where it ended.
The table in docs/models.md shows what there is so far.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from app.commands.options import quiet_threads
from benchmarks.model_options import DATA, PAGE, ROOT, check_fresh, check_names, check_sets, console, notify, write_page

RUNS = ROOT / "runs" / "cuts"
PEER = "logistic_regression"


def main(
    model: Annotated[str, typer.Option(help="The model that is compared with logistic regression.")] = "deepfm",
    sets: Annotated[str, typer.Option(help="By commas; all takes those whose files are there.")] = "all",
    rows: Annotated[str, typer.Option(help="Numbers of rows of the cuts, by commas.")] = "500,2000,8000",
    cuts: Annotated[int, typer.Option(min=1, help="Number of cuts of each size and set.")] = 10,
    data: Annotated[Path, typer.Option(help="Folder of the folders of the sets.")] = DATA,
    runs: Annotated[Path, typer.Option(help="Folder of the results so far.", show_default="runs/cuts")] = RUNS,
    page: Annotated[Path, typer.Option(help="Page with a place for the table.")] = PAGE,
    write: Annotated[bool, typer.Option("--write/--no-write", help="Put the table into the page.")] = True,
    seconds: Annotated[
        float | None, typer.Option(help="Begin no further model after so long; the same call goes on.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is remembered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train on the cuts and write the table. It is of the cuts that this call names and their results are there.

    Example: python -m benchmarks.cuts --sets frappe86k --rows 500 --cuts 3
    """
    quiet_threads(1)
    from app.models import MODELS
    from benchmarks.cut_table import MARKS, table
    from benchmarks.machine import describe
    from benchmarks.model_runs import RunKey
    from benchmarks.model_work import Work

    check_fresh(fresh, seconds, runs)
    check_names("--model", [model], list(MODELS))
    sizes = [_positive(size) for size in rows.split(",")]
    chosen_sets = check_sets(sets, data)
    machine = describe()
    began = time.perf_counter()
    until = began + (math.inf if seconds is None else seconds)
    total = len(chosen_sets) * cuts * 2
    works = {
        size: Work(data, runs / str(size), False, fresh, machine["commit"], total, until, cut=size) for size in sizes
    }
    for name in chosen_sets:
        for work in works.values():
            work.run_set([RunKey(name, trained, number) for number in range(cuts) for trained in (model, PEER)])
    results = {size: list(work.results.values()) for size, work in works.items() if work.results}
    if results:
        where = f"{machine['cpu'].split(' (')[0]}, {machine['cores']} cores"
        content = table(results, model, PEER, chosen_sets, where)
        console.print(content, markup=False, highlight=False, soft_wrap=True)
        if write:
            write_page(page, content, MARKS)
    left = sum(work.left for work in works.values())
    trained = sum(work.trained for work in works.values())
    notify(f"{trained} trained, {left} left, in {time.perf_counter() - began:.0f} s")
    failed = {f"{size} rows: {run}": why for size, work in works.items() for run, why in work.failed.items()}
    for run, why in failed.items():
        notify(f"{run} failed: {why}")
    if as_json:
        by_size = {str(size): of_size for size, of_size in results.items()}
        document = {"machine": machine, "results": by_size, "left": left, "failed": failed}
        typer.echo(msgspec.json.encode(document).decode())
    if failed:
        raise typer.Exit(1)


def _positive(text: str) -> int:
    """Return the number. Raises BadParameter if it is no whole number above 0."""
    if not text.isdecimal() or not int(text):
        raise typer.BadParameter(f"{text}: give whole numbers above 0, by commas", param_hint="--rows")
    return int(text)


if __name__ == "__main__":
    typer.run(main)
