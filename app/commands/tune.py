"""`ctr tune`: searches a model's options on the validation part, and prints the command that trains the best."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from app.commands.completion import architectures, datasets
from app.commands.options import (
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
from app.commands.output import AsJson, console, emit, notify
from app.errors import ConfigError, DataError

if TYPE_CHECKING:
    from app.training.job_config import JobConfig
    from app.training.loop.epochs import ProgressUpdate
    from app.training.tuning import Search, Trial

RUNS = Path("runs")
SHOWN = 5


def tune(
    dataset: Annotated[str, typer.Option(help="Format, as in `ctr train`.", autocompletion=datasets)],
    data: Annotated[Path | None, typer.Option(help="File or folder; movielens can do without.")] = None,
    test: Annotated[Path | None, typer.Option(help="As in `ctr train`; it is not looked at.")] = None,
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
    split: Annotated[Literal["auto", "time", "random"], typer.Option(help="As in `ctr train`.")] = "auto",
    model: Annotated[
        str, typer.Option(help="Architecture; docs/models.md says which when.", autocompletion=architectures)
    ] = "deepfm",
    trials: Annotated[int, typer.Option(min=1, help="In all, those of earlier calls included.")] = 30,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Begin no further trial after this time.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the search; the same name goes on with it.", show_default="the model")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most, of each trial.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of the split, the weights and the search.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Of torch.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Search a model's main options on the validation part, and print the command that trains the best.

    Needs the extra `tune`. The search is kept in runs/tune-STUDY.db: end it when you like, go on with the same call.

    Example: ctr tune --dataset movielens --model deepfm --trials 30
    """
    quiet_threads(threads)

    import functools
    from dataclasses import replace

    from app.models import model_class
    from app.models.user_class import short_name
    from app.training.data.catalogue import open_dataset
    from app.training.evaluation.rows_digest import rows_digest
    from app.training.job import TrainingJob
    from app.training.recipe.facts import measure, validation_share
    from app.training.recipe.rules import apply_rules
    from app.training.tuning import Search, search_space

    model_class(model)  # refuses one that is unknown
    name = study or short_name(model)
    if not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"--study {name}: use letters, digits, '_' and '-'")
    read = functools.partial(
        open_dataset,
        dataset,
        features=features,
        label=label,
        timestamp=timestamp,
        escape=quote_escape,
        positive=positive,
        weighting=weight_columns(weight, negative_rate, impressions, clicks),
    )
    rows = read(data)
    base = job_config(model, seed, split, epochs=epochs, effort="quick")
    base = replace(base, split=replace(base.split, validation=validation_share(rows.labels_N)))
    prepared = TrainingJob(base).prepare(rows, read(test) if test else None, notify)
    facts = measure(prepared)

    def make_config(**options: Any) -> JobConfig:
        """Make what `ctr train --effort quick` makes of these options and rows."""
        config = job_config(model, seed, split, epochs=epochs, effort="quick", **options)
        return apply_rules(replace(config, split=base.split), facts).config

    search_key = {"model": model, "training rows": rows_digest(prepared.encoded["train"])[:16], "epochs": str(epochs)}
    search = Search.open(RUNS / f"tune-{name}.db", name, search_key, seed)
    before = len(search.trials)
    if before:
        notify(f"Going on after {before} trials")
    ruled = make_config().trainer
    defaults = search_space(model)
    defaults |= {"batch_size": ruled.batch_size, "l2": ruled.table_l2, "id_dropout": ruled.id_dropout}
    try:
        with console.status("") as status:

            def on_progress(update: ProgressUpdate) -> None:
                share = f"{update.done / update.total:.0%}"
                status.update(f"trial {len(search.trials)} of {trials}, epoch {update.epoch + 1}, {share}")

            search.run(
                prepared,
                make_config,
                defaults,
                trials,
                timeout=minutes * 60 if minutes else None,
                on_progress=on_progress,
                on_trial=lambda trial: _report_trial(trial, search),
            )
    except KeyboardInterrupt:
        notify("Interrupted: the same call goes on from here")
    best = search.best
    if best is None:
        raise DataError("no trial came to an end; give it more --trials or --minutes")
    chosen = best.options | {"escape": quote_escape, "positive": positive}
    chosen |= {"weight": weight, "negative_rate": negative_rate, "impressions": impressions, "clicks": clicks}
    command = _command(chosen, dataset, data, test, features, label, timestamp, split, model, epochs, seed)
    console.print(_table(search))
    first = search.trials[0]
    gain = f", {first.loss - best.loss:+.5f} to the defaults" if first.loss and best.loss else ""
    notify(f"Best validation log loss {best.loss:.5f} in trial {best.number}{gain}. To train it:")
    if not as_json:
        sys.stdout.write(f"{command}\n")
    else:
        states = [trial.state for trial in search.trials]
        emit(
            {
                "model": model,
                "study": str(RUNS / f"tune-{name}.db"),
                "trials": len(states),
                "pruned": states.count("pruned"),
                "failed": states.count("fail"),
                "default": {"validation_log_loss": first.loss, "options": first.options},
                "best": {"validation_log_loss": best.loss, "trial": best.number, "options": best.options},
                "command": command,
            }
        )


def _command(options: dict[str, Any], dataset: str, *rest: Any) -> str:
    """Write the `ctr train` command with these options."""
    data, test, features, label, timestamp, split, model, epochs, seed = rest
    given = {"dataset": dataset, "data": data, "test": test, "features": features, "label": label}
    given |= {"timestamp": timestamp, "split": split, "model": model, "seed": seed, "epochs": epochs, **options}
    words = ["ctr", "train", "--effort", "quick"]
    for option, value in given.items():
        if value is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _report_trial(trial: Trial, search: Search) -> None:
    state = {"complete": "validation log loss", "pruned": "given up at", "fail": "failed"}[trial.state]
    best = search.best
    loss = f" {trial.loss:.5f}" if trial.loss is not None else ""
    mark = " (best)" if best and best.number == trial.number else ""
    notify(f"trial {trial.number}: {state}{loss}{mark} in {trial.seconds:.1f} s; {_short(trial.options)}")


def _table(search: Search) -> Table:
    table = Table(title=f"{len(search.trials)} trials, the best by validation log loss", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("log loss", justify="right")
    table.add_column("options")
    complete = [trial for trial in search.trials if trial.state == "complete"]
    for trial in sorted(complete, key=lambda trial: trial.loss or 0)[:SHOWN]:
        table.add_row(str(trial.number), f"{trial.loss:.5f}", escape(_short(trial.options)))
    return table


def _short(options: dict[str, Any]) -> str:
    return ", ".join(f"{option} {value}" for option, value in options.items())
