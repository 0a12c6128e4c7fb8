"""`python -m benchmarks.training_processes`: compare two processes under torchrun with one, on the same batches."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from app.commands.output import AsJson, emit
from app.models import build
from app.training.distributed import join_process_group
from app.training.evaluation.predict import predict
from app.training.loop.epochs import EpochLoop
from app.training.loop.train_step import TrainStep
from app.training.loop.trainer_config import TrainerConfig
from app.training.optim.rowwise_rmsprop import RowWiseRmspropConfig
from benchmarks.figure import Figure
from benchmarks.report import console, figure_table
from benchmarks.training_contenders import DIM, HIDDEN
from benchmarks.training_data import as_rows, columns

BATCH = 8192
EPOCHS = 4
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@cli.command()
def main(
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many; one and two take turns.")] = 3,
    worker: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Train with one thread a process and batches of 8,192 rows in all, so 4,096 for each of two."""
    if worker:
        _train(worker)
        return
    by_processes: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, results in by_processes.items():
            results.append(_run(processes))
    speed = {p: statistics.median(r["samples_per_second"] for r in results) for p, results in by_processes.items()}
    ratio = statistics.median(
        b["samples_per_second"] / a["samples_per_second"] for a, b in zip(by_processes[1], by_processes[2], strict=True)
    )
    note = f"{speed[2]:,.0f} over {speed[1]:,.0f}; {BATCH:,} rows a step in all, one thread a process, {rounds} rounds"
    auc_difference = max(abs(a["auc"] - b["auc"]) for a, b in zip(by_processes[1], by_processes[2], strict=True))
    figures = [
        Figure("samples/s, 2 processes under torchrun over 1", "at least", 1.5, reached=ratio, note=note),
        Figure(
            "AUC of 2 processes and of 1, apart by", "at most", 0.002, unit="", reached=auc_difference,
            note=f"after {EPOCHS} epochs, on a tenth of the rows held out",
        ),
    ]  # fmt: skip
    console.print(figure_table(figures))
    if as_json:
        emit([asdict(figure) | {"met": figure.met} for figure in figures])


def _run(processes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m"]
        if processes > 1:
            command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        command += ["benchmarks.training_processes", "--worker", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, capture_output=True, env=environment)
        result: dict[str, Any] = json.loads((Path(folder) / "result.json").read_text())
        return result


def _train(folder: Path) -> None:
    from sklearn.metrics import roc_auc_score

    torch.set_num_threads(1)
    preprocessing, rows = as_rows(columns())
    held = len(rows.labels_N) // 10
    order_N = torch.randperm(len(rows.labels_N), generator=torch.Generator().manual_seed(0))
    train, test = (rows.take(chosen) for chosen in (order_N[held:], order_N[:held]))
    with join_process_group() as group:
        torch.manual_seed(0)
        config = TrainerConfig(batch_size=BATCH)
        model = build("deepfm", preprocessing, dim=DIM, hidden=HIDDEN)
        table = RowWiseRmspropConfig(config.learning_rate, config.table_l2, config.averaging)
        train_step = TrainStep(model, preprocessing, table, group=group)
        loop = EpochLoop(config, train_step, preprocessing, train, None, None)
        for _ in range(EPOCHS):
            loop.train_epoch()
            loop.validate(test)
        # The first epoch warms up.
        seconds = statistics.median(epoch.seconds for epoch in loop.state.epochs[1:])
        auc = float(roc_auc_score(test.labels_N, predict(train_step.average, test)))
        if group.is_first:
            result = {"samples_per_second": len(train.labels_N) / seconds, "auc": auc}
            (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    cli()
