"""`python -m benchmarks.soak`: the model store under load, in about a quarter of an hour."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from app.commands.output import emit
from app.features.loading.synthetic import SyntheticCatalogue
from benchmarks import machine
from benchmarks.figure import Figure
from benchmarks.report import console, figure_table
from benchmarks.soak import page as pages
from benchmarks.soak.distinct import distinct, resident_mb
from benchmarks.soak.fleet import fleet
from benchmarks.soak.loop import CARDINALITY, held
from benchmarks.soak.shadow import ROUNDS, STRETCH_S, shadow
from benchmarks.soak.swaps import POLL, TRIAL_S, swaps
from benchmarks.soak.versions import publish
from benchmarks.stage import Stage, set_up

QUICK = {"CTR_REDIS_TIMEOUT_MS": "2000", "CTR_DEADLINE_MS": "10000"}
"""A smoke run shares its cores with other tests: it is to show what fails, not what is late."""
PARTS = ("loop", "fleet", "swaps", "distinct", "shadow")
EXAMPLES = """Examples:

  make soak                                   everything; writes benchmarks/results/<date>-soak.md

  make soak ARGS=--quick                      a smoke run of seconds, whose figures say little

  make soak ARGS="--only swaps --swaps 10"    one part, shorter
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
    quick: Annotated[bool, typer.Option("--quick", help="Few swaps of small versions: a smoke run.")] = False,
    page: Annotated[bool, typer.Option(help="Write benchmarks/results/<date>-soak.md.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    parts = only.split(",")
    if unknown := set(parts) - set(PARTS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: choose from {', '.join(PARTS)}", param_hint="--only")
    catalogue, cardinality, control, trial, settings = SyntheticCatalogue(), CARDINALITY, 10.0, TRIAL_S, {}
    turns, turn = ROUNDS, STRETCH_S
    if quick:
        catalogue, cardinality, control, trial = SyntheticCatalogue(users=50, items=300, cardinality=50), 500, 0.5, 0.3
        settings, turns, turn = QUICK, 1, 1.0
        swaps_, period, steady, distinct_, responses, page = 2, 1.5, 1.0, 4, 500, False
    began, load_before = time.perf_counter(), os.getloadavg()[1]
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    cores = machine.cores()

    def part(name: str, measure: Callable[[], list[Figure]]) -> None:
        """One that fails does not cost the others; it is named in the report and in the exit status."""
        if name not in parts:
            return
        _say(name)
        try:
            found = measure()
        except (Exception, SystemExit) as error:
            failed[name] = (str(error).strip().splitlines() or [repr(error)])[0]
            _say(f"{name}: {error}")
        else:
            console.print(figure_table(found, "The model store under load"))
            figures.extend(found)

    with machine.pinned(cores[1]):
        _say("starting the store and writing the catalogue")
        with set_up(catalogue, *cores) as stage:
            part(
                "loop",
                lambda: held(
                    stage, cardinality=cardinality, control_s=control, trial_s=trial, settings=settings, say=_say
                ),
            )
            part(
                "shadow",
                lambda: shadow(stage, rounds=turns, stretch_s=turn, trial_s=trial, settings=settings, say=_say),
            )
            if {"swaps", "distinct"} & set(parts):
                _say(f"publishing {distinct_} versions")
                versions = publish(stage, "bench", range(1, distinct_ + 1), say=_say)
                _long(stage, part, versions, swaps_, period, steady, responses, trial, settings)
            part("fleet", lambda: fleet(stage, trial_s=trial, say=_say))  # the last: it removes the model store
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
        _say(f"written to {pages.write(pages.page(document['machine'], run, figures, failed))}")
    if as_json:
        found = [asdict(figure) | {"met": figure.met} for figure in figures]
        emit({**document, "figures": found, "failed": failed})
    if failed:
        raise typer.Exit(1)


def _long(
    stage: Stage,
    part: Callable[[str, Callable[[], list[Figure]]], None],
    versions: list[int],
    swaps_: int,
    period: float,
    steady: float,
    responses: int,
    trial: float,
    settings: dict[str, str],
) -> None:
    """Both parts in one process, whose memory is looked at throughout."""
    timed, further = versions[:swaps_], versions[swaps_:]
    memory_mb: list[float] = []
    with stage.service(settings=POLL | settings) as (process, url):

        def watched() -> None:
            memory_mb.append(resident_mb(process))

        part(
            "swaps",
            lambda: swaps(stage, url, timed, period_s=period, steady_s=steady, each=watched, trial_s=trial, say=_say),
        )
        part(
            "distinct",
            lambda: distinct(
                stage, process, url, further, responses=responses, earlier_mb=memory_mb, trial_s=trial, say=_say
            ),
        )


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False)


if __name__ == "__main__":
    cli()
