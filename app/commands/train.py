"""`ctr train`: reads rows, writes a verified version, and shows it in a table beside the baselines."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from app.commands.completion import architectures, datasets
from app.commands.options import (
    TUNING,
    Clicks,
    Impressions,
    NegativeRate,
    Positive,
    QuoteEscape,
    Weight,
    job_config,
    quiet_threads,
    weight_columns,
)
from app.commands.output import AsJson, console, emit, notify, warn
from app.commands.run_tracking import track_run
from app.commands.runs_folder import runs_folder
from app.commands.train_document import train_document
from app.commands.train_run import TrainingRun
from app.commands.trained_states import check_folder, export_states_of, load_states

if TYPE_CHECKING:
    from app.training.data.dataset import Dataset

POOR = 3
"""Exit status of a run that worked and whose model is poor."""


def train(
    dataset: Annotated[
        str,
        typer.Option(
            help="Format: movielens, sparrow, criteo, avazu, libsvm, libffm, table, served.", autocompletion=datasets
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(help="File, folder or pattern such as 'day_*.tsv'; movielens can do without.")
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Rows to test on; left out, some of the data is held out.")] = None,
    features: Annotated[Path | None, typer.Option(help="features.yaml; every format but table brings its own.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of 0 or 1 of a table.", show_default="label")] = None,
    positive: Positive = None,
    weight: Weight = None,
    negative_rate: NegativeRate = None,
    impressions: Impressions = None,
    clicks: Clicks = None,
    timestamp: Annotated[
        str | None, typer.Option(help="Time column of a table, numbers or ISO 8601, to split by.")
    ] = None,
    quote_escape: QuoteEscape = None,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of bad rows above which the run stops, and says which.")
    ] = 0.01,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the encoded forms of large files.", show_default="runs/encoded")
    ] = None,
    split: Annotated[
        Literal["auto", "time", "random"], typer.Option(help="Hold out the newest rows, or some at random.")
    ] = "auto",
    model: Annotated[
        str,
        typer.Option(
            help="Architecture; docs/models.md says which when. Or package.module:Class, one of your own.",
            autocompletion=architectures,
        ),
    ] = "deepfm",
    effort: Annotated[
        Literal["quick", "default", "high"],
        typer.Option(help="Options that are not given: by rules, by a search of three fits, or of twelve."),
    ] = "default",
    recipe: Annotated[
        Path | None,
        typer.Option(help="Folder of a version whose options to take, in place of --effort.", show_default="none"),
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Fit the version again on all rows, the held out ones too.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Same seed, data and machine: same model.")] = 0,
    publish: Annotated[bool, typer.Option("--publish", help="Put it in the model store and make it live.")] = False,
    unless_live: Annotated[
        bool,
        typer.Option("--unless-live", help="Do nothing where a version of that name is live."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Take a model that is poor: --publish makes it live, and the status is 0.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name in the model store.", show_default="the architecture")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Folder for users.jsonl and items.jsonl: the last state, for `ctr load`.")
    ] = None,
    load: Annotated[
        bool,
        typer.Option(
            "--load", help="Once it is published, load the last state of users and items, as --export has it."
        ),
    ] = False,
    dim: Annotated[int | None, typer.Option(min=1, max=4096, help="Embedding size.", rich_help_panel=TUNING)] = None,
    hidden: Annotated[str | None, typer.Option(help="Hidden layers, as 128,64.", rich_help_panel=TUNING)] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Rows a step.", rich_help_panel=TUNING)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most; it stops early.", rich_help_panel=TUNING)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Option of a model class of your own; several times.", rich_help_panel=TUNING
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, max=10.0, help="Of Adam.", rich_help_panel=TUNING)
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(min=0.0, max=0.95, help="Of the hidden layers.", rich_help_panel=TUNING)
    ] = None,
    l2: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=10.0, help="On the embedding table; by default what suits the model.", rich_help_panel=TUNING
        ),
    ] = None,
    id_dropout: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of rows without user id.", rich_help_panel=TUNING)
    ] = None,
    min_count: Annotated[
        int | None, typer.Option(min=1, help="Rarer values share one embedding.", rich_help_panel=TUNING)
    ] = None,
    averaging: Annotated[
        float | None, typer.Option(min=0.0, max=0.9999, help="Decay of the average.", rich_help_panel=TUNING)
    ] = None,
    target_statistics: Annotated[
        Literal["none", "fields", "pairs"] | None,
        typer.Option(
            help="Give the model the click rates of its fields' values, or of pairs of values too.",
            show_default="as validation says",
            rich_help_panel=TUNING,
        ),
    ] = None,
    linear_share: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.9,
            help="Share of logistic regression in the average with it that is served.",
            show_default="as validation says",
            rich_help_panel=TUNING,
        ),
    ] = None,
    calibration: Annotated[
        Literal["auto", "platt", "offset", "none"],
        typer.Option(help="auto does what the validation part supports, and says what.", rich_help_panel=TUNING),
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Of torch; more pay off only on an idle machine.", rich_help_panel=TUNING),
    ] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1.", rich_help_panel=TUNING)] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None, typer.Option(help="bfloat16 is for GPUs.", rich_help_panel=TUNING)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run where it was cut short; the same command otherwise.")
    ] = False,
    mlflow: Annotated[
        str | None,
        typer.Option(help="MLflow server or store to write the run to as well.", show_default="CTR_MLFLOW_URI"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a model, compare it with simple baselines and write a version that can be served.

    Under torchrun the processes train one model: torchrun --nproc-per-node 2 --no-python ctr train ...

    Exit status: 0 a version is written, and live with --publish; 3 it is written under runs/ and poor: worse than the
    constant or than logistic regression on the validation part, so that --publish left what was live; 1 anything else.

    Example: ctr train --dataset movielens --export .ctr/movielens --publish
    """
    from app.training.distributed import is_main_process, join_process_group

    console.quiet = not is_main_process()
    quiet_threads(threads)
    config = job_config(
        model,
        seed,
        split,
        dim=dim,
        hidden=hidden,
        dropout=dropout,
        batch_size=batch_size,
        epochs=epochs,
        learning_rate=learning_rate,
        l2=l2,
        id_dropout=id_dropout,
        min_count=min_count,
        averaging=averaging,
        option=option,
        target_statistics=target_statistics,
        calibration=calibration,
        linear_share=linear_share,
        effort=effort,
        refit=refit,
        device=device,
        precision=precision,
    )
    if recipe:
        from app.registry.artifact.manifest_file import read_manifest
        from app.training.live_version import repeat_choice

        config = repeat_choice(config, read_manifest(recipe))

    from app.models.user_class import short_name
    from app.registry.store.model_store import ModelStore
    from app.settings import load_settings
    from app.training.data.catalogue import open_dataset
    from app.training.data.encoding_progress import EncodingProgress
    from app.training.job import TrainingJob
    from app.training.loop.checkpoint import Checkpoint
    from app.training.tracking import Tracking

    with join_process_group(config.trainer.device) as group:
        if publish and name is None:
            _note_other_model(short_name(model))
        name = name or short_name(model)
        settings = load_settings(model=name, mlflow_uri=mlflow)
        live = ModelStore.from_settings(settings).pointer().stable if unless_live else None
        if live is not None:
            notify(f"version {live} of {name} is live: nothing to do (--unless-live)")
            return
        tracking = Tracking(settings.mlflow_uri, name) if settings.mlflow_uri else None
        if export:
            check_folder(export)
        runs = runs_folder()
        cache = cache or runs / "encoded"
        notify(f"Reading {dataset}")
        read_dataset = functools.partial(
            open_dataset,
            dataset,
            features=features,
            label=label,
            timestamp=timestamp,
            escape=quote_escape,
            positive=positive,
            weighting=weight_columns(weight, negative_rate, impressions, clicks),
        )

        def read(path: Path | None) -> Dataset:
            with EncodingProgress(console, path.name if path else dataset) as progress:
                return read_dataset(path, max_bad=max_bad, cache=cache, report=progress.report, group=group)

        rows, test_rows = read(data), read(test) if test else None
        for part in (rows, test_rows):
            for note in part.notes if part else ():
                notify(note)
            if part and part.skipped.count:
                warn(f"{part.source}: {part.skipped}")

        checkpoint = Checkpoint(
            runs / "checkpoints" / f"{dataset}-{short_name(model)}-{seed}.pt", resume=resume, on_failure=warn
        )
        if not group.is_first:
            TrainingJob(config).follow(rows, test_rows, group, checkpoint=checkpoint)
            return
        store = ModelStore.from_settings(settings) if publish else None
        run = TrainingRun(config, model, name, settings, runs=runs, store=store, force=force)
        written = run.train_and_publish(rows, test_rows, checkpoint, group, export)
        if written.report:
            notify(f"Report: {written.report}")
        if load and written.is_published:
            with tempfile.TemporaryDirectory() as states:
                if not export:
                    export_states_of(rows, Path(states), "--load")
                load_states(settings, rows, export or Path(states), None if export else f"the rows of {rows.source}")
        if written.is_published and name != load_settings().model:
            notify(f"To serve it: CTR_MODEL={name} ctr serve")
        if tracking:
            track_run(tracking, written.destination, written.result)
        if as_json:
            emit(train_document(model, written.destination, written.result, written.report))
    if written.is_refused:
        raise typer.Exit(POOR)


def _note_other_model(name: str) -> None:
    """Say so if what is published by default is not the model that the commands here mean by CTR_MODEL."""
    from app.settings import load_settings

    settings = load_settings()
    if "model" in settings.model_fields_set and settings.model != name:
        warn(
            f"this is to be published as {name}, and CTR_MODEL is {settings.model}: with --name {settings.model} it is "
            "a version of that"
        )
