"""`python -m benchmarks.models`: train every model on every set at hand, and put the tables into docs/models.md.

Each run's result is kept in a JSON file, so that a call that was killed, or given `--seconds`, goes on where it ended.
A run whose settings or data have changed is trained again. Run it on a quiet machine: the seconds are wall time.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from app.commands.options import quiet_threads
from benchmarks.model_options import (
    DATA,
    PAGE,
    ROOT,
    check_fresh,
    check_names,
    check_sets,
    console,
    notify,
    write_page,
)

RUNS = ROOT / "runs" / "models"
DEFAULT_EFFORT = "default"
"""Results of another effort, and of a quick look, are kept in folders of their own and not written to the page."""


def main(
    models: Annotated[str, typer.Option(help="By commas; all, or names of models and peers.")] = "all",
    sets: Annotated[str, typer.Option(help="By commas; all takes those whose files are there.")] = "all",
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    effort: Annotated[str, typer.Option(help="As of `ctr train`; the page is for its default.")] = DEFAULT_EFFORT,
    data: Annotated[Path, typer.Option(help="Folder of the folders of the sets.")] = DATA,
    runs: Annotated[Path | None, typer.Option(help="Folder of the results so far.", show_default="runs/models")] = None,
    page: Annotated[Path, typer.Option(help="Page with a place for the tables.")] = PAGE,
    write: Annotated[bool, typer.Option("--write/--no-write", help="Put the tables into the page.")] = True,
    quick: Annotated[
        bool, typer.Option("--quick", help="Some rows of each set and one seed, kept apart and not written.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Begin no further model after so long; the same call goes on.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is remembered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train the models and write the tables. Results of earlier calls for other models stay in them.

    Example: python -m benchmarks.models --models fm,deepfm --sets frappe86k --seeds 0
    """
    quiet_threads(1)
    from app.models import MODELS
    from benchmarks.machine import describe
    from benchmarks.model_peers import PEERS
    from benchmarks.model_runs import RunKey
    from benchmarks.model_sets import SETS
    from benchmarks.model_table import MARKS, tables
    from benchmarks.model_work import Work

    is_default = effort == DEFAULT_EFFORT and not quick
    aside = "-".join(["models", *(["quick"] if quick else []), *([effort] if effort != DEFAULT_EFFORT else [])])
    runs = runs or (RUNS if is_default else RUNS.with_name(aside))
    check_fresh(fresh, seconds, runs)
    all_models = [*MODELS, *PEERS]
    chosen_models = check_names("--models", all_models if models == "all" else models.split(","), all_models)
    chosen_sets = check_sets(sets, data)
    chosen_seeds = [int(seed) for seed in seeds.split(",")][: 1 if quick else None]
    keys = [
        RunKey(name, model, seed, effort) for name in chosen_sets for seed in chosen_seeds for model in chosen_models
    ]
    machine = describe()
    began = time.perf_counter()
    until = began + (math.inf if seconds is None else seconds)
    work = Work(data, runs, quick, fresh, machine["commit"], len(keys), until)
    for name in chosen_sets:
        work.run_set([key for key in keys if key.set == name])
    results, failed = work.results, work.failed
    everything = {**_earlier(runs, all_models, effort, results), **results}
    if everything:
        where = f"{machine['cpu'].split(' (')[0]}, {machine['cores']} cores"
        titles = {name: data_set.title for name, data_set in SETS.items()}
        content = tables(list(everything.values()), titles, all_models, where)
        console.print(content, markup=False, highlight=False, soft_wrap=True)
        if write and is_default:
            write_page(page, content, MARKS)
    counts = f"{work.trained} trained, {len(results) - work.trained} remembered"
    notify(f"{counts}, {work.left} left, in {time.perf_counter() - began:.0f} s")
    for name, why in failed.items():
        notify(f"{name} failed: {why}")
    if as_json:
        document: dict[str, Any] = {
            "machine": machine,
            "results": list(results.values()),
            "left": work.left,
            "failed": failed,
        }
        typer.echo(msgspec.json.encode(document).decode())
    if failed:
        raise typer.Exit(1)


def _earlier(runs: Path, models: list[str], effort: str, results: dict[Any, Any]) -> dict[Any, Any]:
    """Return the results of earlier calls in the folder that are of today's settings and not among `results`."""
    from benchmarks.model_runs import RunKey, RunResult
    from benchmarks.model_sets import SETS

    earlier = {}
    for file in sorted(runs.glob("*.json")):
        try:
            result = msgspec.json.decode(file.read_bytes(), type=RunResult)
        except (OSError, msgspec.DecodeError):
            continue
        key = RunKey(result.set, result.model, result.seed, effort)
        if key not in results and result.model in models and result.set in SETS and _current(key, result):
            earlier[key] = result
    return earlier


def _current(key: Any, result: Any) -> bool:
    """Return whether the result is of today's default settings; `read_result` checks the data too."""
    from benchmarks.model_runs import fingerprint

    config = msgspec.json.decode(fingerprint(key, {}))["config"]
    return bool(msgspec.json.decode(result.fingerprint)["config"] == config)


if __name__ == "__main__":
    typer.run(main)
