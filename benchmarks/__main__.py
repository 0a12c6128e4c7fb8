"""`python -m benchmarks`: the whole comparison in at most six minutes, or one figure of it by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.commands.output import emit
from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks import batching, before, latency, machine, million, precision, updates, workers
from benchmarks.agreement import check
from benchmarks.capacity import measure
from benchmarks.contenders import ALL, FLOOR, missing, started
from benchmarks.figure import Figure
from benchmarks.ratios import floor_costs, ratios
from benchmarks.report import Report, console, figure_table
from benchmarks.stage import DIM, HIDDEN, Stage, set_up

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@cli.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    peers: Annotated[str, typer.Option(help="Who is measured.")] = ",".join(ALL),
    candidates: Annotated[str, typer.Option(help="Item ids in a request.")] = "100,500,1000",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 1.0,
    quick: Annotated[bool, typer.Option("--quick", help="One short round of the main table: a smoke run.")] = False,
    with_million: Annotated[bool, typer.Option("--million", help="1,000,000 items too: minutes more.")] = False,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>.md.")] = True,
    as_json: AsJson = False,
) -> None:
    """Compare the service with its peers and with the floor."""
    if context.invoked_subcommand:
        return
    began = time.perf_counter()
    if quick:
        rounds, seconds, page = 1, 0.5, False
    sizes = [int(size) for size in candidates.split(",")]
    names = peers.split(",")
    if unknown := set(names) - set(ALL):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(ALL)}", param_hint="--peers")
    catalogue = SyntheticCatalogue()
    report = Report(
        machine.describe(),
        {**asdict(catalogue), "dim": DIM, "hidden": "-".join(map(str, HIDDEN))},
        {"rounds": rounds, "seconds": seconds},
    )
    report.skipped = {name: f"needs {', '.join(lacking)}" for name in names if (lacking := missing(name))}
    with _stage(catalogue) as stage:
        stage.publish(precision.MODEL, precision.HIDDEN)
        with contextlib.ExitStack() as stack:
            contenders = []
            for name in names:
                if name not in report.skipped:
                    _say(f"starting {name}")
                    contenders.append(stack.enter_context(started(stage, name)))
            _say("checking that all give the same ranking")
            report.difference = check(stage, contenders, sizes)
            report.capacity = measure(stage, contenders, sizes, rounds=rounds, seconds=seconds, say=_say)
            if FLOOR in names:
                report.floors = floor_costs(stage, report.capacity, sizes)
        report.figures = ratios(report.capacity, report.floors)
        console.print(report.main_table())
        if not quick:
            _further(report, "open loop", lambda: latency.spread(stage))
            _further(report, "updates under load", lambda: [_updates(stage)])
            _further(report, "one and two workers", lambda: workers.two_over_one(stage))
            _further(report, "fp32 and bf16", lambda: [precision.bf16_over_fp32(stage)])
    if with_million:
        with _pinned():
            _further(report, "a million items", lambda: [million.many_over_few(*_cores, say=_say)])
    report.settings["minutes"] = round((time.perf_counter() - began) / 60, 1)
    console.print(report.figure_table())
    for name, why in {**report.skipped, **report.failed}.items():
        _say(f"{name} was left out: {why}")
    if page:
        _say(f"written to {report.write()}")
    if as_json:
        emit(report.document())
    if report.failed:
        raise typer.Exit(1)


def _further(report: Report, what: str, measure: Callable[[], list[Figure]]) -> None:
    """One that fails does not cost the others; it is named in the report and in the exit status."""
    _say(what)
    try:
        report.figures += measure()
    except (Exception, SystemExit) as error:
        report.failed[what] = (str(error).strip().splitlines() or [repr(error)])[0]
        _say(f"{what}: {error}")


def _updates(stage: Stage, number: int = 300) -> Figure:
    with stage.service() as (_, url):
        return updates.visibility(stage, url, updates=number)


@cli.command("latency")
def latency_command(seconds: float = 1.5, rounds: int = 7, as_json: AsJson = False) -> None:
    """p99 over p50 at 70 % of capacity, open loop, with and without busy polling."""
    with _stage() as stage:
        _show(latency.spread(stage, seconds=seconds, rounds=rounds), as_json)


@cli.command("updates")
def updates_command(number: int = 300, as_json: AsJson = False) -> None:
    """How soon an item update shows in /rank, under load."""
    with _stage() as stage:
        _show([_updates(stage, number)], as_json)


@cli.command("workers")
def workers_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Two workers over one, and how evenly they share."""
    with _stage() as stage:
        _show(workers.two_over_one(stage, rounds=rounds), as_json)


@cli.command("million")
def million_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """1,000,000 items in the catalogue over 10,000, all cached."""
    with _pinned():
        _show([million.many_over_few(*_cores, rounds=rounds, say=_say)], as_json)


@cli.command("bf16")
def bf16_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """bf16 over fp32 with hidden layers 400-400-400."""
    with _stage() as stage:
        _show([precision.bf16_over_fp32(stage, rounds=rounds)], as_json)


@cli.command("bf16-auc")
def bf16_auc_command(
    train: Annotated[Path, typer.Argument(help="Rows in the format of SparrowRecSys to train on.")],
    test: Annotated[Path, typer.Argument(help="Rows to test on.")],
    as_json: AsJson = False,
) -> None:
    """What bf16 changes in the answers of a DeepFM trained with default settings."""
    from benchmarks import precision_auc  # needs what only training needs

    found = precision_auc.auc_change(train, test)
    for name, value in found.items():
        _say(f"{name}: {value:.6f}")
    if as_json:
        emit(found)


@cli.command("before")
def before_command(
    checkout: Annotated[Path, typer.Argument(help="Another checkout of this project, its C library built.")],
    candidates: Annotated[str, typer.Option(help="Item ids in a request.")] = "100,500,1000",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many.")] = 9,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Requests and training of this checkout over those of another one, interleaved in one run."""
    sizes = [int(size) for size in candidates.split(",")]
    with _stage() as stage:
        _show(before.compare(stage, checkout.absolute(), sizes, rounds=rounds, seconds=seconds, say=_say), as_json)


@cli.command("batching")
def batching_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Candidates of several requests scored in one call, over each request alone."""
    with _stage() as stage:
        _show(batching.batched_over_alone(stage, rounds=rounds), as_json)


_cores = machine.cores()


def _pinned() -> contextlib.AbstractContextManager[None]:
    """The load generator, and the stores it starts, on the second core."""
    return machine.pinned(_cores[1])


@contextlib.contextmanager
def _stage(catalogue: SyntheticCatalogue | None = None) -> Iterator[Stage]:
    with _pinned():
        _say("starting the store and writing the catalogue")
        with set_up(catalogue or SyntheticCatalogue(), *_cores) as stage:
            yield stage


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _show(figures: list[Figure], as_json: bool) -> None:
    console.print(figure_table(figures))
    if as_json:
        emit([asdict(figure) | {"met": figure.met} for figure in figures])


if __name__ == "__main__":
    cli()
