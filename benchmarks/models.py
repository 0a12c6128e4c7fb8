"""`python -m benchmarks.models`: train every model on every set at hand, and put the tables into docs/models.md.

Each run's result is kept in a JSON file, so that a call that was killed, or given `--seconds`, goes on where it ended.
A run whose settings or data have changed is trained again. Run it on a quiet machine: the seconds are wall time.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 150  # a log wraps nothing
ROOT = Path(__file__).parents[1]
DATA = ROOT / ".." / "shared" / "data"
PAGE = ROOT / "docs" / "models.md"
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
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from app.models import MODELS
    from benchmarks.machine import describe
    from benchmarks.model_peers import PEERS
    from benchmarks.model_runs import RunKey
    from benchmarks.model_sets import SETS
    from benchmarks.model_table import insert_between_marks, tables

    is_default = effort == DEFAULT_EFFORT and not quick
    aside = "-".join(["models", *(["quick"] if quick else []), *([effort] if effort != DEFAULT_EFFORT else [])])
    runs = runs or (RUNS if is_default else RUNS.with_name(aside))
    if fresh and seconds is not None:
        raise typer.BadParameter(
            f"with --seconds each call would begin anew; empty {runs} instead", param_hint="--fresh"
        )
    torch.set_num_threads(1)
    all_models = [*MODELS, *PEERS]
    chosen_models = _check_names("--models", all_models if models == "all" else models.split(","), all_models)
    chosen_sets = _check_names("--sets", list(SETS) if sets == "all" else sets.split(","), list(SETS))
    for name in chosen_sets:
        if missing := SETS[name].missing(data):
            _notify(f"{name} is left out: {missing}")
    chosen_sets = [name for name in chosen_sets if not SETS[name].missing(data)]
    chosen_seeds = [int(seed) for seed in seeds.split(",")][: 1 if quick else None]
    keys = [
        RunKey(name, model, seed, effort) for name in chosen_sets for seed in chosen_seeds for model in chosen_models
    ]
    machine = describe()
    began = time.perf_counter()
    until = began + (math.inf if seconds is None else seconds)
    work = Work(data, runs, quick, fresh, machine["commit"], len(keys), until)
    for name in chosen_sets:
        work.set([key for key in keys if key.set == name])
    results, failed = work.results, work.failed
    everything = {**_earlier(runs, all_models, effort, results), **results}
    if everything:
        where = f"{machine['cpu'].split(' (')[0]}, {machine['cores']} cores"
        titles = {name: data_set.title for name, data_set in SETS.items()}
        content = tables(list(everything.values()), titles, all_models, where)
        console.print(content, markup=False, highlight=False, soft_wrap=True)
        if write and is_default:
            try:
                page.write_text(insert_between_marks(page.read_text(encoding="utf-8"), content), encoding="utf-8")
            except (OSError, ValueError) as error:
                raise SystemExit(f"error: {page}: {error}") from error
            _notify(f"written to {page}")
    counts = f"{work.trained} trained, {len(results) - work.trained} remembered"
    _notify(f"{counts}, {work.left} left, in {time.perf_counter() - began:.0f} s")
    for name, why in failed.items():
        _notify(f"{name} failed: {why}")
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


@dataclass
class Work:
    """The runs that a call has to do, and their results."""

    data: Path
    runs: Path
    quick: bool
    fresh: bool
    commit: str
    total: int
    until: float
    """`time.perf_counter()` after which no further run is begun."""
    trained: int = 0
    left: int = 0
    results: dict[Any, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def set(self, keys: list[Any]) -> None:
        """Do all runs of one set; the rows are read once, and only if a run is missing."""
        from benchmarks.model_runs import baselines_fitted_once, file_digests, fingerprint, read_result
        from benchmarks.model_sets import SETS

        data_set = SETS[keys[0].set]
        digests, rows = file_digests(data_set.files(self.data)), None
        with baselines_fitted_once():
            for key in keys:
                identity = fingerprint(key, digests, self.quick)
                if not self.fresh and (result := read_result(key, self.runs, identity)):
                    self.add(key, result, f"remembered from {result.created_at}")
                    continue
                if time.perf_counter() > self.until:
                    self.left += 1
                    continue
                if rows is None:
                    _notify(f"{data_set.name}: reading")
                    rows = data_set.load(self.data, self.quick)
                self.run(key, rows, identity)

    def run(self, key: Any, rows: Any, identity: str) -> None:
        """Do one run and keep its result; a failure is noted and does not end the others."""
        from app.errors import CtrError
        from benchmarks.model_runs import run, write_result

        try:
            result = run(key, *rows, identity, self.commit)
        except (CtrError, ImportError, RuntimeError, ValueError) as error:  # one that fails does not cost the others
            self.failed[f"{key.set} {key.model} {key.seed}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            _notify(f"{self.describe(key)}: failed: {error}")
            return
        write_result(key, self.runs, result)
        self.trained += 1
        self.add(key, result, f"in {result.seconds:.1f} s")

    def add(self, key: Any, result: Any, how: str) -> None:
        """Keep and print a result."""
        note = ", poor" if result.poor else ""
        _notify(f"{self.describe(key)}: AUC {result.auc:.4f}, log loss {result.log_loss:.4f}{note}, {how}")
        self.results[key] = result

    def describe(self, key: Any) -> str:
        """Return the run's number and name."""
        number = len(self.results) + len(self.failed) + 1
        return f"{number}/{self.total} {key.set} {key.model} seed {key.seed}"


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


def _check_names(option: str, names: list[str], choices: list[str]) -> list[str]:
    """Return the names. Raises BadParameter if one is not among the choices."""
    if unknown := [name for name in names if name not in choices]:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(choices)}", param_hint=option)
    return names


def _notify(text: str) -> None:
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
