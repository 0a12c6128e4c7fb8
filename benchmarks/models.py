"""`python -m benchmarks.models`: train every model on both sparrow splits, and put the table into docs/models.md.

Each run is remembered in a JSON file, so that a call that was killed, or given `--seconds`, goes on where it ended; one
whose settings or data have changed is trained again. Run it on a quiet machine: the seconds are wall time.
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
    seconds: Annotated[
        float | None, typer.Option(help="Begin no further model after so long; the same call goes on.")
    ] = None,
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
    from benchmarks.model_runs import PEERS, Key
    from benchmarks.model_table import placed, table

    if fresh and seconds is not None:
        raise typer.BadParameter(
            f"with --seconds each call would begin anew; empty {runs} instead", param_hint="--fresh"
        )
    torch.set_num_threads(1)
    known = [*MODELS, *PEERS]
    wanted = _chosen("--models", known if models == "all" else models.split(","), known)
    chosen_splits = _chosen("--splits", splits.split(","), list(SPLITS))
    keys = [Key(split, model, int(seed)) for split in chosen_splits for seed in seeds.split(",") for model in wanted]
    machine = describe()
    began = time.perf_counter()
    work = Work(data, runs, fresh, machine["commit"], len(keys), began + (math.inf if seconds is None else seconds))
    for group in {(key.split, key.seed): None for key in keys}:
        work.group([key for key in keys if (key.split, key.seed) == group])
    results, failed = work.results, work.failed
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
    counts = f"{work.trained} trained, {len(results) - work.trained} remembered"
    _say(f"{counts}, {work.left} left, in {time.perf_counter() - began:.0f} s")
    for name, why in failed.items():
        _say(f"{name} failed: {why}")
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
    """What a call has to do, and what came of it."""

    data: Path
    runs: Path
    fresh: bool
    commit: str
    total: int
    until: float
    """Of `time.perf_counter`; nothing is begun after it."""
    trained: int = 0
    left: int = 0
    results: dict[Any, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def group(self, keys: list[Any]) -> None:
        """All models of one split and seed: the rows are read and encoded once, and only where a model is missing."""
        from app.training.data.catalogue import open_dataset
        from app.training.job import TrainingJob
        from benchmarks.model_runs import file_digests, fingerprint, remembered

        split, seed = keys[0].split, keys[0].seed
        files = [self.data / f"{split}.{part}.csv.gz" for part in ("train", "test")]
        if missing := [file for file in files if not file.is_file()]:
            raise SystemExit(f"error: {missing[0]}: no such file; name the folder of sparrow58k with --data")
        digests, prepared = file_digests(files), None
        for key in keys:
            identity = fingerprint(key, digests)
            if not self.fresh and (found := remembered(key, self.runs, identity)):
                self.done(key, found, f"remembered from {found.created_at}")
                continue
            if time.perf_counter() > self.until:
                self.left += 1
                continue
            if prepared is None:
                _say(f"{split}, seed {seed}: reading and encoding")
                prepared = TrainingJob(key.config()).prepare(*(open_dataset("sparrow", file) for file in files))
            self.train(key, prepared, identity)

    def train(self, key: Any, prepared: Any, identity: str) -> None:
        from app.errors import CtrError
        from benchmarks.model_runs import remember, train

        try:
            found = train(key, prepared, identity, self.commit)
        except (CtrError, RuntimeError, ValueError) as error:  # one that fails does not cost the others
            self.failed[f"{key.split} {key.model} {key.seed}"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            _say(f"{self.place(key)}: failed: {error}")
            return
        remember(key, self.runs, found)
        self.trained += 1
        self.done(key, found, f"in {found.seconds:.1f} s")

    def done(self, key: Any, found: Any, how: str) -> None:
        _say(f"{self.place(key)}: AUC {found.auc:.4f}, log loss {found.log_loss:.4f}, {how}")
        self.results[key] = found

    def place(self, key: Any) -> str:
        number = len(self.results) + len(self.failed) + 1
        return f"{number}/{self.total} {key.split} {key.model} seed {key.seed}"


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
