"""`ctr retrain`: trains the live version's architecture on the newest rows, and publishes it or says why not."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from app.commands.completion import datasets
from app.commands.options import (
    Clicks,
    Impressions,
    NegativeRate,
    Positive,
    QuoteEscape,
    Weight,
    interval_seconds,
    weight_columns,
)
from app.commands.output import AsJson, ConsoleReporter, console, emit, notify, show_error
from app.commands.store_options import Model, Store, open_store
from app.errors import ConfigError, CtrError, DataError, NotPublished
from app.runtime.schedule import repeat
from app.runtime.signals import exit_on_sigterm

if TYPE_CHECKING:
    from app.registry.artifact.artifact import Artifact
    from app.registry.gate.gate_report import GateReport
    from app.training.data.dataset import Dataset
    from app.training.retrain_config import RetrainConfig

PUBLISHED, FAILED, BAD_INPUT, NOTHING_PUBLISHED = 0, 1, 2, 3
TUNING = "Training (as the live version was trained, unless said)"


def retrain(
    data: Annotated[Path | None, typer.Option(help="File or folder; movielens can do without.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Format.", show_default="the live version's", autocompletion=datasets)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of 0 or 1 of a table.", show_default="label")] = None,
    positive: Positive = None,
    weight: Weight = None,
    negative_rate: NegativeRate = None,
    impressions: Impressions = None,
    clicks: Clicks = None,
    timestamp: Annotated[str | None, typer.Option(help="Time column of a table, numbers or ISO 8601.")] = None,
    features: Annotated[
        Path | None, typer.Option(help="features.yaml, to be told where it differs.", show_default="the live version's")
    ] = None,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of bad rows above which it stops, and says which.")
    ] = 0.01,
    cache: Annotated[Path, typer.Option(help="Folder of the encoded forms of large files.")] = Path("runs/encoded"),
    quote_escape: QuoteEscape = None,
    window_days: Annotated[
        float | None, typer.Option(min=1e-6, help="Only rows of the last days before the newest.")
    ] = None,
    window_rows: Annotated[int | None, typer.Option(min=10, help="Only so many newest rows.")] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=0.9, help="Share of the window, its newest rows, to compare on.", show_default="0.1"
        ),
    ] = None,
    metric: Annotated[Literal["log_loss", "auc"], typer.Option(help="What decides.")] = "log_loss",
    min_gain: Annotated[
        float, typer.Option(help="Least improvement over the live version; below 0 it may be so much worse.")
    ] = -0.001,
    force: Annotated[
        bool, typer.Option("--force", help="Publish it though it is worse than a constant or logistic regression.")
    ] = False,
    only_new: Annotated[
        bool, typer.Option("--only-new", help="End with 3 where no row is newer than those of the live version.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh/--warm", help="Begin with fresh weights, or with the live version's.")
    ] = True,
    every: Annotated[str | None, typer.Option(help="Again and again until stopped: 90s, 30m, 6h, 1d.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; it stops early.", rich_help_panel=TUNING)] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            min=1e-9,
            max=10.0,
            help="Of Adam.",
            rich_help_panel=TUNING,
            show_default="the live version's, a quarter of it with --warm",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Rows a step.", rich_help_panel=TUNING)] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, rich_help_panel=TUNING)] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Of torch.", rich_help_panel=TUNING)] = 1,
    model: Model = None,
    model_store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Train the live version's architecture on the newest rows; publish it unless it is worse on the newest of all.

    Exit status: 0 a new version is live; 3 nothing was published, and one line says why; 2 wrong options or data;
    1 anything else.

    Example: ctr retrain --data clicks.parquet --timestamp at --window-days 14
    """
    options = {name: value for name, value in locals().items() if name != "every"}
    if every is None:
        raise typer.Exit(_once(**options))
    raise typer.Exit(repeat(interval_seconds(every), _once, options, stop_status=BAD_INPUT, notify=notify))


def _once(**options: Any) -> int:
    """Run one retraining and return the exit status; errors are shown here, so that a loop can go on after them."""
    try:
        with exit_on_sigterm():
            return _retrain(**options)
    except CtrError as error:
        show_error(str(error))
        return BAD_INPUT if isinstance(error, ConfigError | DataError) else FAILED


def _retrain(
    *,
    data: Path | None,
    dataset: str | None,
    label: str | None,
    positive: str | None,
    weight: str | None,
    negative_rate: str | None,
    impressions: str | None,
    clicks: str | None,
    timestamp: str | None,
    quote_escape: str | None,
    features: Path | None,
    max_bad: float,
    cache: Path,
    only_new: bool,
    threads: int,
    model: str | None,
    model_store: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    from app.commands.options import quiet_threads

    quiet_threads(threads)  # ahead of the imports below, which import torch
    from app.commands.retrain_output import comparison_table, outcome_document
    from app.publishing.gate_version import gate_version
    from app.publishing.publish import prune_old_versions
    from app.training.evaluation.comparison import is_better
    from app.training.live_version import check_same_weighting, newest_time
    from app.training.loop.progress import TrainingProgress
    from app.training.retrain import RetrainOutcome, retraining_lock
    from app.training.retrain import retrain as retrain_version

    settings, store = open_store(model, model_store)
    reporter = ConsoleReporter()
    stable = store.pointer().stable
    if stable is None:
        raise ConfigError(f"{store.name} has no live version in {store.folder}: `ctr train --publish` makes the first")
    outcome = RetrainOutcome(stable)
    reports: list[GateReport] = []
    folder = reason = message = None

    def gate(version: int) -> None:
        better = is_better(outcome.evaluation)
        reports.append(gate_version(store, version, settings, reporter, better=better))

    try:
        with retraining_lock(store):
            outcome.live = stable = store.pointer().stable or stable  # another retraining may just have ended
            live = store.load(stable)
            config = _config(live, options)
            notify(f"Reading {dataset or live.manifest.data.get('dataset')}")
            columns = {"label": label, "timestamp": timestamp, "escape": quote_escape, "positive": positive}
            weighting = weight_columns(weight, negative_rate, impressions, clicks)
            check_same_weighting(live.manifest, weighting)
            rows = _read(live, dataset, data, features, **columns, weighting=weighting, max_bad=max_bad, cache=cache)
            live_newest = newest_time(live.manifest)
            times_N = rows.timestamps_N
            if only_new and live_newest is not None and times_N is not None and times_N.max() <= live_newest:
                raise NotPublished("old", f"not published: no row is newer than those version {stable} came from")
            with TrainingProgress(console) as progress:
                folder = retrain_version(
                    config,
                    rows,
                    store,
                    live,
                    outcome,
                    gate=gate,
                    notify=notify,
                    on_progress=progress.report,
                    command=shlex.join(["ctr", *sys.argv[1:]]),
                )
        prune_old_versions(store, settings, reporter)
    except NotPublished as error:
        reason, message = error.reason, str(error)
    if outcome.evaluation:
        console.print(comparison_table(outcome))
        if seen := outcome.evaluation["seen_by_live"]:
            notify(f"{seen:.0%} of these rows are no newer than what the live version learned from.")
    if message is None:
        notify(f"{store.name} {outcome.version} is live in place of {stable}, after {outcome.seconds:.1f} s")
    else:
        console.print(f"[yellow]{escape(message)}[/]", highlight=False, soft_wrap=True)
    if as_json:
        report = reports[0] if reports else None
        emit(outcome_document(store.name, outcome, folder, reason, message, report))
    return PUBLISHED if message is None else NOTHING_PUBLISHED


def _config(live: Artifact, options: dict[str, Any]) -> RetrainConfig:
    """Take the live version's choices, with those of the command line on top. Raises ConfigError."""
    from app.training.live_version import config_of
    from app.training.retrain_config import RetrainConfig, RetrainWindow

    job = config_of(live.manifest)
    given = {name: options[name] for name in ("epochs", "batch_size", "seed") if options[name] is not None}
    job = replace(job, trainer=replace(job.trainer, **given))
    if options["seed"] is not None:
        job = replace(job, model=replace(job.model, seed=options["seed"]))
    if options["holdout"] is not None:
        job = replace(job, split=replace(job.split, test=options["holdout"]))
    return RetrainConfig(
        job,
        RetrainWindow(options["window_rows"], options["window_days"]),
        options["fresh"],
        options["learning_rate"],
        options["metric"],
        options["min_gain"],
        options["force"],
    )


def _read(live: Artifact, dataset: str | None, data: Path | None, features: Path | None, **options: Any) -> Dataset:
    """Read the rows by the live version's dataset and schema, unless the command line names others."""
    import msgspec

    from app.training.data.catalogue import open_dataset
    from app.training.data.encoding_progress import EncodingProgress

    name = dataset or live.manifest.data.get("dataset")
    if not name:
        raise ConfigError(f"version {live.version} does not say what it was trained on: name it with --dataset")
    with tempfile.TemporaryDirectory(prefix="ctr-schema-") as folder:
        schema_owner = None if features else f"version {live.version}"
        if features is None:
            features = Path(folder) / "features.yaml"  # YAML reads JSON
            features.write_bytes(msgspec.json.encode({"reading": 1, **live.manifest.feature_schema}))
        with EncodingProgress(console, data.name if data else name) as progress:
            rows = open_dataset(
                name, data, features=features, report=progress.report, schema_owner=schema_owner, **options
            )
    for note in rows.notes:
        notify(note)
    if rows.skipped.count:
        notify(f"{rows.source}: {rows.skipped}")
    return rows
