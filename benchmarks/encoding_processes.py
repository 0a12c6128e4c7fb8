"""`python -m benchmarks.encoding_processes`: compare two processes under torchrun that encode a file with one.

The file is Criteo-shaped (`benchmarks.encoding`), as one TSV and as a folder of Parquet files. One and two take turns,
each in processes of their own and with a cache of their own; imports and the start of torchrun are not counted.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from app.commands.output import AsJson, console, emit
from benchmarks import encoding

FILES = 5
GROUP_ROWS = 50_000
KINDS = ("tsv", "parquet")
Seconds = dict[str, float]

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@cli.command()
def main(
    rows: Annotated[int, typer.Option(min=1000, help="Of the file.")] = 400_000,
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many.")] = 3,
    kind: Annotated[list[str] | None, typer.Option(help="tsv, parquet, or both.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the files are, or are generated and then kept.")] = None,
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Print the seconds of one process and of two, and how many times faster two are."""
    if worker:
        assert folder is not None
        _work(folder, worker)
        return
    results: dict[str, dict[str, Seconds]] = {}
    with _kept_or_temporary(folder) as data_folder:
        write_files(data_folder, rows)
        for name in kind or KINDS:
            runs: dict[int, list[Seconds]] = {1: [], 2: []}
            for _ in range(rounds):
                for processes, seconds in runs.items():
                    seconds.append(_run(data_folder, name, processes))
            results[name] = {}
            for phase in ("encoding", "preparing"):
                one, two = ([run[phase] for run in runs[processes]] for processes in (1, 2))
                ratios = [a / b for a, b in zip(one, two, strict=True)]
                medians = [statistics.median(values) for values in (one, two, ratios)]
                results[name][phase] = dict(zip(("one", "two", "times"), medians, strict=True))
                console.print(f"{name}, {phase}: {medians[0]:.2f} s, {medians[1]:.2f} s: {medians[2]:.2f} times faster")
    if as_json:
        emit(results)


@contextmanager
def _kept_or_temporary(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ctr-encoding-") as made:
        yield Path(made)


def write_files(folder: Path, rows: int) -> None:
    """Write the TSV and the Parquet files of the same rows, unless they are there already."""
    import polars as pl

    from app.training.data.formats.criteo import HEADER

    path, parts = folder / "day_0.tsv", folder / "parquet"
    if path.exists() and parts.exists():
        return
    encoding.generate(path, rows)
    parts.mkdir(exist_ok=True)
    frame = pl.read_csv(path, separator="\t", has_header=False, new_columns=HEADER, infer_schema=False)
    for number in range(FILES):
        piece = frame[number * rows // FILES : (number + 1) * rows // FILES]
        piece.write_parquet(parts / f"{number}.parquet", row_group_size=GROUP_ROWS)


def _run(folder: Path, kind: str, processes: int) -> Seconds:
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    command += ["benchmarks.encoding_processes", "--worker", kind, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise SystemExit(f"error: {kind} by {processes}: {ran.stderr.strip()[-2000:]}")
    seconds: Seconds = json.loads((folder / "result.json").read_text())
    return seconds


def _work(folder: Path, kind: str) -> None:
    import torch

    from app.features.schema import load_schema
    from app.training.data.formats import criteo
    from app.training.data.formats.table import table_source
    from app.training.data.load_dataset import load_dataset
    from app.training.distributed import join_process_group
    from app.training.job import TrainingJob
    from app.training.job_config import JobConfig

    torch.set_num_threads(1)
    schema = load_schema(Path(criteo.__file__).with_suffix(".yaml"))
    with join_process_group() as group:
        cache = group.all_gather(tempfile.mkdtemp(dir=folder) if group.is_first else "")[0]
        group.barrier()
        started = time.perf_counter()
        if kind == "tsv":
            source = criteo.criteo_source(folder / "day_0.tsv", schema)
        else:
            source = table_source(folder / "parquet", schema, criteo.LABEL, None)
        data = load_dataset(source, cache=Path(cache), group=group)
        group.barrier()
        encoded = time.perf_counter()
        TrainingJob(JobConfig()).prepare(data, None, group=group)
        group.barrier()
        ended = time.perf_counter()
        if group.is_first:
            shutil.rmtree(cache)
            result = {"encoding": encoded - started, "preparing": ended - encoded}
            (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    cli()
