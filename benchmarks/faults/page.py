"""The tables of a run: for the terminal, as JSON and as the dated page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.faults.row import Outcome
from benchmarks.report import RESULTS, markdown, words_table

COLUMNS = ("row", "fault", "must hold", "seen", "ok")
TITLES = {"found": "Faults that once brought the service down", "promised": "What is promised while something fails"}
METHOD = """\
Real processes, real faults, all on loopback. The service has the first core; the stores, the usual load and whatever
injects the fault share the second, where load and store go first if the system allows. Services of several workers have
both. The usual load is an open loop at 40 % of the closed loop's rate: requests of 100 candidates, latencies from when
a request was due. *p99 at most 1.2x* compares rounds with the fault and without, in turn within one run, by the medians
of the rounds. Every store has a password and every service a key of this run alone, which the last row looks for."""


def rows_of(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Return the cells of a table."""
    words = {True: "yes", False: "NO", None: "-"}
    return [[o.row.name, o.row.fault, o.row.must_hold, o.seen, words[o.ok]] for o in outcomes]


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Return both tables for the terminal, without empty ones."""
    return [words_table(COLUMNS, rows_of(chosen), title) for title, chosen in _by_table(outcomes)]


def document(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the rows for `--json`."""
    return [
        {
            "name": o.row.name,
            "table": o.row.table,
            "fault": o.row.fault,
            "must_hold": o.row.must_hold,
            "seen": o.seen,
            "ok": o.ok,
            "seconds": round(o.seconds, 1),
            "checks": [asdict(check) for check in o.checks],
        }
        for o in outcomes
    ]


def page(machine: dict[str, Any], run: dict[str, Any], outcomes: Sequence[Outcome]) -> str:
    """Return the page as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    missed = [o.row.name for o in outcomes if o.ok is False]
    parts = [
        f"# Faults, {datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}. Python {machine['python']}, {versions}.",
        f"Run: {', '.join(f'{name} {value}' for name, value in run.items())}.",
        METHOD,
        f"{sum(o.ok is True for o in outcomes)} of {len(outcomes)} rows hold"
        + (f"; missed: {', '.join(missed)}." if missed else "."),
    ]
    for title, chosen in _by_table(outcomes):
        parts += [f"## {title}", markdown(COLUMNS, rows_of(chosen))]
    return "\n\n".join(parts) + "\n"


def write(text: str, folder: Path = RESULTS) -> Path:
    """Write the page, in place of that of an earlier run of the day, and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-faults.md"
    path.write_text(text, encoding="utf-8")
    return path


def _by_table(outcomes: Sequence[Outcome]) -> list[tuple[str, list[Outcome]]]:
    chosen = [(title, [o for o in outcomes if o.row.table == name]) for name, title in TITLES.items()]
    return [(title, of) for title, of in chosen if of]
