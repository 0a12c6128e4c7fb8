"""`python -m benchmarks.models`: train every model on both sparrow splits, and put the table into docs/models.md.

Each run is remembered in a JSON file, so that a killed call goes on where it ended; one whose settings or data have
changed is trained again. Run it on a quiet machine: the seconds are wall time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 150  # a log wraps nothing
ROOT = Path(__file__).parents[1]
DATA = ROOT / ".." / "shared" / "data" / "sparrow58k"
PAGE = ROOT / "docs" / "models.md"
RUNS = ROOT / "runs" / "models"
SPLITS = ("random", "time")


def main(
    models: Annotated[str, typer.Option(help="By commas; all, or names and scikit-learn's two.")] = "all",
    seeds: Annotated[str, typer.Option(help="By commas.")] = "0,1,2",
    splits: Annotated[str, typer.Option(help="By commas.")] = ",".join(SPLITS),
    data: Annotated[Path, typer.Option(help="Folder of the sparrow58k files.")] = DATA,
    runs: Annotated[Path, typer.Option(help="Folder of the results so far.")] = RUNS,
    page: Annotated[Path, typer.Option(help="Page with a place for the table.")] = PAGE,
    write: Annotated[bool, typer.Option("--write/--no-write", help="Put the table into the page.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is remembered.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train, remember and tabulate. What is remembered of other models stays in the table.

    Example: python -m benchmarks.models --models fm,deepfm --seeds 0
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    from app.models import MODELS
    from benchmarks.machine import describe
    from benchmarks.model_runs import PEERS, Key, RunResult
    from benchmarks.model_table import placed, table

    torch.set_num_threads(1)
    known = [*MODELS, *PEERS]
    wanted = _chosen("--models", known if models == "all" else models.split(","), known)
    chosen_splits = _chosen("--splits", splits.split(","), list(SPLITS))
    keys = [Key(split, model, int(seed)) for split in chosen_splits for seed in seeds.split(",") for model in wanted]
    machine = describe()
    results: dict[Key, RunResult] = {}
    failed: dict[str, str] = {}
    began, trained = time.perf_counter(), 0
    for group in {(key.split, key.seed): None for key in keys}:
        here = [key for key in keys if (key.split, key.seed) == group]
        trained += _group(here, data, runs, fresh, machine["commit"], results, failed, len(keys))
    everything = {**_earlier(runs, known, results), **results}
    if everything:
        ordered = [split for split in SPLITS if any(key.split == split for key in everything)]
        where = f"{machine['cpu'].split(' (')[0]}, {machine['cores']} cores"
        content = table(list(everything.values()), ordered, known, where)
        console.print(content, markup=False, highlight=False, soft_wrap=True)
        if write:
            try:
                page.write_text(placed(page.read_text(encoding="utf-8"), content), encoding="utf-8")
            except (OSError, ValueError) as error:
                raise SystemExit(f"error: {page}: {error}") from error
            _say(f"written to {page}")
    _say(f"{trained} trained, {len(results) - trained} remembered, in {time.perf_counter() - began:.0f} s")
    for name, why in failed.items():
        _say(f"{name} failed: {why}")
    if as_json:
        document: dict[str, Any] = {"machine": machine, "results": list(results.values()), "failed": failed}
        typer.echo(msgspec.json.encode(document).decode())
    if failed:
        raise typer.Exit(1)


def _group(
    keys: list[Any], data: Path, runs: Path, fresh: bool, commit: str, results: dict[Any, Any], failed: dict[str, str],
    total: int,
) -> int:  # fmt: skip
    """All models of one split and seed: the rows are read and encoded once. Returns how many were trained."""
    from app.errors import CtrError
    from app.training.datasets.catalogue import open_dataset
    from app.training.job import TrainingJob
    from benchmarks.model_runs import fingerprint, remember, remembered, train

    split, seed = keys[0].split, keys[0].seed
    files = [data / f"{split}.{part}.csv.gz" for part in ("train", "test")]
    if missing := [file for file in files if not file.is_file()]:
        raise SystemExit(f"error: {missing[0]}: no such file; name the folder of sparrow58k with --data")
    _say(f"{split}, seed {seed}: reading and encoding")
    rows, test = (open_dataset("sparrow", file) for file in files)
    prepared = TrainingJob(keys[0].config()).prepare(rows, test)
    trained = 0
    for key in keys:
        place = f"{len(results) + len(failed) + 1}/{total} {split} {key.model} seed {seed}"
        found = None if fresh else remembered(key, runs, fingerprint(key, prepared))
        if found is None:
            try:
                found = train(key, prepared, commit)
            except (CtrError, RuntimeError, ValueError) as error:  # one that fails does not cost the others
                failed[f"{split} {key.model} {seed}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                _say(f"{place}: failed: {error}")
                continue
            remember(key, runs, found)
            trained += 1
            how = f"in {found.seconds:.1f} s"
        else:
            how = f"remembered from {found.created_at}"
        results[key] = found
        _say(f"{place}: AUC {found.auc:.4f}, log loss {found.log_loss:.4f}, {how}")
    return trained


def _earlier(runs: Path, known: list[str], results: dict[Any, Any]) -> dict[Any, Any]:
    """Results of other calls in the folder that are as old as their settings: those not asked for now."""
    from benchmarks.model_runs import Key, RunResult

    found = {}
    for file in sorted(runs.glob("*.json")):
        try:
            result = msgspec.json.decode(file.read_bytes(), type=RunResult)
        except (OSError, msgspec.DecodeError):
            continue
        key = Key(result.split, result.model, result.seed)
        if key not in results and result.model in known and result.split in SPLITS and _current(key, result):
            found[key] = result
    return found


def _current(key: Any, result: Any) -> bool:
    """Of today's default settings; a call that asks for it checks the data too."""
    from dataclasses import asdict

    config = msgspec.json.decode(msgspec.json.encode(asdict(key.config())))
    return bool(msgspec.json.decode(result.fingerprint)["config"] == config)


def _chosen(option: str, names: list[str], known: list[str]) -> list[str]:
    if strange := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{', '.join(strange)}: choose from {', '.join(known)}", param_hint=option)
    return names


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
