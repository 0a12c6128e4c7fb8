"""`ctr train`: rows in, a verified version out, and a table that shows it beside the baselines."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.commands.output import console, emit
from app.errors import ConfigError

if TYPE_CHECKING:
    from app.training.job import JobConfig, Result

RUNS = Path("runs")
TUNING = "Model and training (the defaults are chosen to win without tuning)"
METRICS = ("auc", "log_loss", "pr_auc", "calibration")


def train(
    dataset: Annotated[str, typer.Option(help="Format: movielens, sparrow or table.")],
    data: Annotated[Path | None, typer.Option(help="File or folder; movielens can do without.")] = None,
    test: Annotated[Path | None, typer.Option(help="Rows to test on; left out, some of the data is held out.")] = None,
    features: Annotated[Path | None, typer.Option(help="features.yaml; every format but table brings its own.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of 0 or 1 of a table.", show_default="label")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Time column of a table, to split by.")] = None,
    split: Annotated[
        Literal["auto", "time", "random"], typer.Option(help="Hold out the newest rows, or some at random.")
    ] = "auto",
    model: Annotated[str, typer.Option(help="Architecture; docs/models.md says which when.")] = "deepfm",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, data and machine: same model.")] = 0,
    publish: Annotated[bool, typer.Option("--publish", help="Put it in the model store and make it live.")] = False,
    name: Annotated[str | None, typer.Option(help="Name in the model store.", show_default="the architecture")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Folder for users.jsonl and items.jsonl: the last state, for `ctr load`.")
    ] = None,
    dim: Annotated[int | None, typer.Option(min=1, max=4096, help="Embedding size.", rich_help_panel=TUNING)] = None,
    hidden: Annotated[str | None, typer.Option(help="Hidden layers, as 128,64.", rich_help_panel=TUNING)] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Rows a step.", rich_help_panel=TUNING)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; it stops early.", rich_help_panel=TUNING)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, max=10.0, help="Of Adam.", rich_help_panel=TUNING)
    ] = None,
    threads: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Of torch; more pay off only on an idle machine.", rich_help_panel=TUNING),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Train a model, compare it with simple baselines and write a version that can be served.

    Example: ctr train --dataset movielens --export .ctr/movielens --publish
    """
    _quiet_threads(threads)
    config = _config(model, seed, split, dim=dim, hidden=hidden, batch=batch_size, epochs=epochs, rate=learning_rate)

    from app.commands.gate import admitted, open_store, pruned
    from app.settings import load_settings
    from app.training.datasets.catalogue import open_dataset
    from app.training.datasets.dataset import export_states
    from app.training.publish import kept_aside, published

    _say(f"Reading {dataset}")
    read = functools.partial(open_dataset, dataset, features=features, label=label, timestamp=timestamp)
    rows, test_rows = read(data), read(test) if test else None
    for part in (rows, test_rows):
        if part and part.skipped.count:
            _warn(f"{part.source}: {part.skipped}")

    name = name or model
    settings = load_settings(model=name)
    store = open_store(settings) if publish else None
    target = (
        published(store, functools.partial(admitted, store, settings=settings)) if store else kept_aside(RUNS, model)
    )
    with target as destination:
        result = _run(config, rows, test_rows, destination.folder, name)
    if store:
        pruned(store, settings)
    for field, skipped in result.unreadable.items():
        _warn(f"{field}: {skipped}")
    console.print(_table(model, result))
    if export:
        written = export_states(rows, export)
        _say(f"Wrote {' and '.join(f'{count:,} {side}s' for side, count in written.items()) or 'nothing'} to {export}")
    _say(f"{'Published as stable' if publish else 'Written to'} {destination.folder} in {result.seconds:.1f} s")
    if as_json:
        emit(
            {
                "model": model,
                "version_dir": str(destination.folder),
                "version": destination.version,
                "metrics": result.metrics,
                "baselines": result.baselines,
                "seconds": round(result.seconds, 3),
                "samples_per_second": round(result.fitted.samples_per_second, 1),
            }
        )


def _quiet_threads(count: int) -> None:
    # Measured on two busy cores: two threads that spin while they wait train 1,500 rows/s, one thread 40,000. OpenMP
    # reads its policy when it is loaded, so this comes before the first import of torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    torch.set_num_threads(count)


def _config(model: str, seed: int, split: Literal["auto", "time", "random"], **given: Any) -> JobConfig:
    """Defaults with what the command line said on top. Raises ConfigError."""
    from app.models import MODELS
    from app.training.architectures import ModelConfig
    from app.training.job import JobConfig
    from app.training.split import SplitConfig
    from app.training.trainer import TrainerConfig

    said = {key: value for key, value in given.items() if value is not None}
    names = {"batch": "batch_size", "epochs": "epochs", "rate": "learning_rate"}
    shape = {"dim": said["dim"]} if "dim" in said else {}
    if "hidden" in said:
        shape["hidden"] = _widths(said["hidden"])
    for option in shape if model in MODELS else ():
        if option not in MODELS[model].options():
            raise ConfigError(f"--{option}: {model} has none; leave it out")
    return JobConfig(
        model=ModelConfig(name=model, seed=seed, **shape),
        trainer=TrainerConfig(seed=seed, **{field: said[key] for key, field in names.items() if key in said}),
        split=SplitConfig(kind=split, seed=seed),
    )


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise ConfigError(f"--hidden {text}: expected widths such as 128,64") from None


def _run(config: JobConfig, rows: Any, test_rows: Any, folder: Path, name: str) -> Result:
    import torch

    from app.training.progress import TrainingProgress

    # These products are small: a second thread gains little, and on a busy machine waiting for it costs ten times more.
    torch.set_num_threads(1)
    with TrainingProgress(console, config.trainer.epochs) as progress:
        return config.build().run(rows, test_rows, folder, name=name, say=_say, report=progress.report)


def _table(model: str, result: Result) -> Table:
    table = Table(title=f"{result.rows['test']:,} test rows", title_justify="left")
    table.add_column("model")
    for column in ("AUC", "log loss", "PR-AUC", "predicted / observed"):
        table.add_column(column, justify="right")
    for name, metrics in {model: result.metrics["test"], **result.baselines}.items():
        style = "bold" if name == model else ""
        table.add_row(name.replace("_", " "), *(f"{metrics[metric]:.4f}" for metric in METRICS), style=style)
    return table


def _say(text: str) -> None:
    console.print(escape(text), highlight=False)


def _warn(text: str) -> None:
    console.print(f"[yellow]note:[/] {escape(text)}", highlight=False)
