"""`python -m benchmarks.soak`: the model store under load, in less than half an hour."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from app.commands.output import AsJson, emit
from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks import machine
from benchmarks.figure import Figure
from benchmarks.report import console, figure_table
from benchmarks.soak import page as pages
from benchmarks.soak.distinct import distinct, resident_mb
from benchmarks.soak.fleet import fleet
from benchmarks.soak.loop import CARDINALITY, measure_held_loop
from benchmarks.soak.shadow import ROUNDS, STRETCH_S, shadow
from benchmarks.soak.steady import SETTLE_S, SWAP_EVERY_S
from benchmarks.soak.steady import steady as measure_steady
from benchmarks.soak.swaps import POLL, TRIAL_S, swaps
from benchmarks.soak.versions import publish
from benchmarks.testbed import Testbed, set_up

QUICK = {"CTR_REDIS_TIMEOUT_MS": "2000", "CTR_DEADLINE_MS": "10000", "CTR_MAX_WAIT_MS": "10000"}
"""A smoke run shares its cores with other tests: it is to show what fails, not what is late."""
PARTS = ("loop", "fleet", "swaps", "distinct", "shadow", "steady")
EXAMPLES = """Examples:

  make soak                                   everything; writes benchmarks/results/<date>-soak.md

  make soak ARGS=--quick                      a smoke run of seconds, whose figures say little

  make soak ARGS="--only swaps --swaps 10"    one part, shorter

  make soak HOURS=8                           a steady load with swaps alone, for so long
"""
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@cli.command(help=__doc__, epilog=EXAMPLES)
def main(
    only: Annotated[str, typer.Option(help="Which parts.")] = ",".join(PARTS),
    swaps_: Annotated[int, typer.Option("--swaps", min=2, help="Swaps, one each period.")] = 100,
    period: Annotated[float, typer.Option(min=1.5, help="Seconds from swap to swap.")] = 3.0,
    steady: Annotated[float, typer.Option(min=1.0, help="Seconds without a swap: before, between and after.")] = 15.0,
    distinct_: Annotated[int, typer.Option("--distinct", min=2, help="Distinct versions, those swaps included.")] = 300,
    responses: Annotated[int, typer.Option(min=1, help="Responses recomputed, at the least.")] = 100_000,
    hours: Annotated[float, typer.Option(min=0.001, help="Hours of the steady load.")] = 1 / 6,
    quick: Annotated[bool, typer.Option("--quick", help="Few swaps of small versions: a smoke run.")] = False,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>-soak.md.")] = True,
    as_json: AsJson = False,
) -> None:
    parts = only.split(",")
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}", param_hint="--only")
    catalogue, cardinality, control, trial, settings = SyntheticCatalogue(), CARDINALITY, 10.0, TRIAL_S, {}
    turns, turn, swap_every, settle = ROUNDS, STRETCH_S, SWAP_EVERY_S, SETTLE_S
    if quick:
        catalogue, cardinality, control, trial = SyntheticCatalogue(users=50, items=300, cardinality=50), 500, 0.5, 0.3
        settings, turns, turn = QUICK, 1, 1.0
        swaps_, period, steady, distinct_, responses, page = 2, 1.5, 1.0, 4, 500, False
        hours, swap_every, settle = 1 / 300, 4.0, 2.0
    began, load_before = time.perf_counter(), os.getloadavg()[1]
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    cores = machine.cores()

    def part(name: str, measure: Callable[[], list[Figure]]) -> None:
        """Measure one part. One that fails does not end the run: the report and the exit status name it."""
        if name not in parts:
            return
        _notify(name)
        try:
            measured = measure()
        except (Exception, SystemExit) as error:
            failed[name] = (str(error).strip().splitlines() or [repr(error)])[0]
            _notify(f"{name}: {error}")
        else:
            console.print(figure_table(measured, "The model store under load"))
            figures.extend(measured)

    with machine.pinned(cores[1]):
        _notify("starting the store and writing the catalogue")
        with set_up(catalogue, *cores) as testbed:
            part(
                "loop",
                lambda: measure_held_loop(
                    testbed,
                    cardinality=cardinality,
                    control_s=control,
                    trial_s=trial,
                    settings=settings,
                    notify=_notify,
                ),
            )
            part(
                "shadow",
                lambda: shadow(testbed, rounds=turns, stretch_s=turn, trial_s=trial, settings=settings, notify=_notify),
            )
            if {"swaps", "distinct"} & set(parts):
                _notify(f"publishing {distinct_} versions")
                versions = publish(testbed, "bench", range(1, distinct_ + 1), notify=_notify)
                _swap_many(testbed, part, versions, swaps_, period, steady, responses, trial, settings)
            part(
                "steady",
                lambda: measure_steady(
                    testbed,
                    minutes=60 * hours,
                    swap_every_s=swap_every,
                    settle_s=settle,
                    trial_s=trial,
                    settings=settings,
                    notify=_notify,
                ),
            )
            part("fleet", lambda: fleet(testbed, trial_s=trial, notify=_notify))  # the last: it removes the model store
    run = {
        "swaps": swaps_,
        "seconds between them": period,
        "distinct versions": distinct_,
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "the machine's load average before": round(load_before, 2),
        "and at the end (the run itself is some 1.7 of it)": round(os.getloadavg()[1], 2),
    }
    document = {"machine": machine.describe(), "settings": run}
    if page:
        _notify(f"written to {pages.write(pages.page(document['machine'], run, figures, failed))}")
    if as_json:
        documents = [asdict(figure) | {"met": figure.met} for figure in figures]
        emit({**document, "figures": documents, "failed": failed})
    if failed:
        raise typer.Exit(1)


def _swap_many(
    testbed: Testbed,
    part: Callable[[str, Callable[[], list[Figure]]], None],
    versions: list[int],
    swaps_: int,
    period: float,
    steady: float,
    responses: int,
    trial: float,
    settings: dict[str, str],
) -> None:
    """Run the parts `swaps` and `distinct` against one service, whose memory is measured throughout."""
    timed, further = versions[:swaps_], versions[swaps_:]
    memory_mb: list[float] = []
    with testbed.service(settings=POLL | settings) as (process, url):

        def record_memory() -> None:
            memory_mb.append(resident_mb(process))

        part(
            "swaps",
            lambda: swaps(
                testbed, url, timed, period_s=period, steady_s=steady, each=record_memory, trial_s=trial, notify=_notify
            ),
        )
        part(
            "distinct",
            lambda: distinct(
                testbed, process, url, further, responses=responses, earlier_mb=memory_mb, trial_s=trial, notify=_notify
            ),
        )


def _notify(text: str) -> None:
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    cli()
