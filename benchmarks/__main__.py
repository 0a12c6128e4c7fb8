"""`python -m benchmarks`: the whole comparison in at most six minutes, or one figure of it by name."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from app.commands.output import AsJson, emit
from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks import batching, before, event_cost, exploration, latency, machine, million, precision, updates, workers
from benchmarks.agreement import check_rankings
from benchmarks.capacity import measure_capacity
from benchmarks.contenders import ALL, FLOOR, missing_packages, start_contender
from benchmarks.figure import Figure
from benchmarks.ratios import floor_costs, ratios
from benchmarks.report import Report, console, figure_table
from benchmarks.testbed import DIM, HIDDEN, Testbed, set_up

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


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
    report.skipped = {name: f"needs {', '.join(packages)}" for name in names if (packages := missing_packages(name))}
    with _testbed(catalogue) as testbed:
        testbed.publish(precision.MODEL, precision.HIDDEN)
        with contextlib.ExitStack() as stack:
            contenders = []
            for name in names:
                if name not in report.skipped:
                    _notify(f"starting {name}")
                    contenders.append(stack.enter_context(start_contender(testbed, name)))
            _notify("checking that all give the same ranking")
            report.difference = check_rankings(testbed, contenders, sizes)
            report.capacity = measure_capacity(
                testbed, contenders, sizes, rounds=rounds, seconds=seconds, notify=_notify
            )
            if FLOOR in names:
                report.floors = floor_costs(testbed, report.capacity, sizes)
        report.figures = ratios(report.capacity, report.floors)
        console.print(report.main_table())
        if not quick:
            _measure_part(report, "open loop", lambda: latency.tail_ratio(testbed))
            _measure_part(report, "updates under load", lambda: [_updates(testbed)])
            _measure_part(report, "one and two workers", lambda: workers.two_over_one(testbed))
            _measure_part(report, "fp32 and bf16", lambda: [precision.bf16_over_fp32(testbed)])
    if with_million:
        with _pinned():
            _measure_part(report, "a million items", lambda: [million.many_over_few(*_cores, notify=_notify)])
    report.settings["minutes"] = round((time.perf_counter() - began) / 60, 1)
    console.print(report.figure_table())
    for name, why in {**report.skipped, **report.failed}.items():
        _notify(f"{name} was left out: {why}")
    if page:
        _notify(f"written to {report.write()}")
    if as_json:
        emit(report.document())
    if report.failed:
        raise typer.Exit(1)


def _measure_part(report: Report, what: str, measure: Callable[[], list[Figure]]) -> None:
    """Add figures to the report. A part that fails does not end the run: the report and the exit status name it."""
    _notify(what)
    try:
        report.figures += measure()
    except (Exception, SystemExit) as error:
        report.failed[what] = (str(error).strip().splitlines() or [repr(error)])[0]
        _notify(f"{what}: {error}")


def _updates(testbed: Testbed, number: int = 300) -> Figure:
    with testbed.service() as (_, url):
        return updates.update_visibility(testbed, url, updates=number)


@cli.command("latency")
def latency_command(seconds: float = 1.5, rounds: int = 7, as_json: AsJson = False) -> None:
    """Measure p99 over p50 at 70 % of capacity, open loop, with and without busy polling."""
    with _testbed() as testbed:
        _show(latency.tail_ratio(testbed, seconds=seconds, rounds=rounds), as_json)


@cli.command("updates")
def updates_command(number: int = 300, as_json: AsJson = False) -> None:
    """Measure how soon an item update shows in /rank, under load."""
    with _testbed() as testbed:
        _show([_updates(testbed, number)], as_json)


@cli.command("workers")
def workers_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Compare two workers with one, and measure how evenly they share."""
    with _testbed() as testbed:
        _show(workers.two_over_one(testbed, rounds=rounds), as_json)


@cli.command("events")
def events_command(rounds: int = 15, seconds: float = 2.0, as_json: AsJson = False) -> None:
    """Measure what the event log costs: processor time of an answer, requests a second and p99, with it and without."""
    with _testbed() as testbed:
        _show(event_cost.with_log_over_without(testbed, rounds=rounds, seconds=seconds, notify=_notify), as_json)


@cli.command("exploration")
def exploration_command(rounds: int = 500, as_json: AsJson = False) -> None:
    """Measure what drawing the order of an answer adds to a request, in the process."""
    _show(exploration.cost_of_exploring(rounds=rounds), as_json)


@cli.command("million")
def million_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Compare a catalogue of 1,000,000 items with one of 10,000, all cached."""
    with _pinned():
        _show([million.many_over_few(*_cores, rounds=rounds, notify=_notify)], as_json)


@cli.command("bf16")
def bf16_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Compare bf16 with fp32, with hidden layers 400-400-400."""
    with _testbed() as testbed:
        _show([precision.bf16_over_fp32(testbed, rounds=rounds)], as_json)


@cli.command("bf16-auc")
def bf16_auc_command(
    train: Annotated[Path, typer.Argument(help="Rows in the format of SparrowRecSys to train on.")],
    test: Annotated[Path, typer.Argument(help="Rows to test on.")],
    as_json: AsJson = False,
) -> None:
    """Measure what bf16 changes in the answers of a DeepFM trained with default settings."""
    from benchmarks import precision_auc  # needs what only training needs

    changes = precision_auc.auc_change(train, test)
    for name, value in changes.items():
        _notify(f"{name}: {value:.6f}")
    if as_json:
        emit(changes)


@cli.command("before")
def before_command(
    checkout: Annotated[Path, typer.Argument(help="Another checkout of this project, its C library built.")],
    candidates: Annotated[str, typer.Option(help="Item ids in a request.")] = "100,500,1000",
    rounds: Annotated[int, typer.Option(min=1, help="Medians are of this many.")] = 9,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each measurement.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Compare requests and training of this checkout with those of another one, interleaved in one run."""
    sizes = [int(size) for size in candidates.split(",")]
    with _testbed() as testbed:
        _show(
            before.compare(testbed, checkout.absolute(), sizes, rounds=rounds, seconds=seconds, notify=_notify), as_json
        )


@cli.command("batching")
def batching_command(rounds: int = 5, as_json: AsJson = False) -> None:
    """Compare scoring candidates of several requests in one call with scoring each request alone."""
    with _testbed() as testbed:
        _show(batching.batched_over_alone(testbed, rounds=rounds), as_json)


_cores = machine.cores()


def _pinned() -> contextlib.AbstractContextManager[None]:
    """Keep the load generator, and the stores that it starts, on the second core."""
    return machine.pinned(_cores[1])


@contextlib.contextmanager
def _testbed(catalogue: SyntheticCatalogue | None = None) -> Iterator[Testbed]:
    with _pinned():
        _notify("starting the store and writing the catalogue")
        with set_up(catalogue or SyntheticCatalogue(), *_cores) as testbed:
            yield testbed


def _notify(text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _show(figures: list[Figure], as_json: bool) -> None:
    console.print(figure_table(figures))
    if as_json:
        emit([asdict(figure) | {"met": figure.met} for figure in figures])


if __name__ == "__main__":
    cli()
