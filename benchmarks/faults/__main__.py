"""`python -m benchmarks.faults`: inject faults into real processes, and print what was seen beside what must hold."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Annotated

import typer

from app.commands.output import AsJson, emit
from app.features.loading.synthetic import SyntheticCatalogue
from app.observability.logs import configure_logging
from benchmarks import machine
from benchmarks.faults import page as pages
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.catalogue import ROWS
from benchmarks.faults.row import Outcome, Row, Skipped
from benchmarks.faults.secrets import Secrets
from benchmarks.report import console
from benchmarks.testbed import set_up

EXAMPLES = """Examples:

  make faults                                      everything, in at most 25 minutes; writes a page
                                                   into benchmarks/results

  make faults ARGS="--only heads,overload-5x"      some rows; --list names them

  make faults ARGS="--seconds 15 --no-page"        shorter faults
"""
FULL = SyntheticCatalogue(users=1000, items=5000)
SMALL = SyntheticCatalogue(users=50, items=300, cardinality=50)
SMOKE_SECONDS = 3.0
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@cli.command(help=__doc__, epilog=EXAMPLES)
def main(
    only: Annotated[str, typer.Option(help="Rows, separated by commas; all without it.")] = "",
    seconds: Annotated[float, typer.Option(min=1.0, help="How long faults last that last a minute in full.")] = 60.0,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Some rows, short, and judged without what a busy machine can miss.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="Name the rows and stop.")] = False,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>-faults.md.")] = True,
    as_json: AsJson = False,
) -> None:
    chosen = _chosen(only, smoke=smoke)
    if list_:
        for row in chosen:
            typer.echo(f"{row.name:18} {row.fault}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that all that was started is ended
    configure_logging("warning")  # to standard error: with --json standard output is one document
    began = time.monotonic()
    cores = machine.cores()
    secrets = Secrets()
    outcomes: list[Outcome] = []
    with machine.pinned(cores[1]):
        _notify("starting the store and publishing a version")
        with set_up(SMALL if smoke else FULL, *cores, password=secrets.password) as testbed:
            bed = FaultBed(testbed, secrets, SMOKE_SECONDS if smoke else seconds, smoke, _notify)
            with contextlib.closing(bed):
                for number, row in enumerate(chosen, 1):
                    _notify(f"[{number}/{len(chosen)}] {row.name}: {row.fault}")
                    outcome = _run(row, bed)
                    outcomes.append(outcome)
                    _notify(
                        f"    {'NOT OK' if outcome.ok is False else 'ok'} ({outcome.seconds:.0f} s): {outcome.seen}"
                    )
    for table in pages.tables(outcomes):
        console.print(table)
    run = {
        "rows": len(outcomes),
        "seconds of the long faults": bed.seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    facts = machine.describe()
    if page and not smoke and not only:
        _notify(f"written to {pages.write(pages.page(facts, run, outcomes))}")
    if as_json:
        emit({"machine": facts, "settings": run, "rows": pages.document(outcomes)})
    if any(outcome.ok is False for outcome in outcomes):
        raise typer.Exit(1)


def _chosen(only: str, *, smoke: bool) -> list[Row]:
    names = [name for name in only.split(",") if name]
    if unknown := set(names) - {row.name for row in ROWS}:
        known = ", ".join(row.name for row in ROWS)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {known}", param_hint="--only")
    return [row for row in ROWS if (row.name in names if names else row.smoke or not smoke)]


def _run(row: Row, bed: FaultBed) -> Outcome:
    """Run a row. One that cannot be judged does not end the run: it counts as missed, with the reason."""
    began = time.monotonic()
    try:
        checks, skipped, error = row.run(bed), "", ""
    except Skipped as reason:
        checks, skipped, error = (), str(reason), ""
    except (Exception, SystemExit) as failure:
        checks, skipped, error = (), "", " ".join(str(failure).split())[:300] or repr(failure)
    return Outcome(row, checks, skipped, error, time.monotonic() - began, judged_timed=not bed.smoke)


def _notify(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    cli()
