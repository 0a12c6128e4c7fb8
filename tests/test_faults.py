"""Tests of `make faults`: what is missed is told and ends the run with a failure, and a smoke run of real faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.faults import page
from benchmarks.faults.__main__ import cli
from benchmarks.faults.catalogue import ROWS
from benchmarks.faults.comparison import Comparison
from benchmarks.faults.row import Check, Outcome, Row
from benchmarks.faults.secrets import Secrets
from benchmarks.faults.store_outage import full_again, marked
from benchmarks.faults.timeline import Timeline

ROOT = Path(__file__).parents[1]


def timeline(due: list[float], latency_ms: list[float], status: int = 200, degraded: bool = False) -> Timeline:
    start = np.array(due)
    return Timeline(start, start + np.array(latency_ms) / 1000, np.full(len(due), status), np.full(len(due), degraded))


def row(**options: Any) -> Row:
    return Row("name", "a fault", "what must hold", lambda bed: (), **options)


def test_rows_are_named_once_and_both_tables_have_some() -> None:
    names = [one.name for one in ROWS]
    assert len(set(names)) == len(names)
    assert {one.table for one in ROWS} == {"found", "promised"}
    assert any(one.smoke for one in ROWS)


def test_a_missed_check_makes_a_row_missed_and_is_told_first() -> None:
    missed = Outcome(row(), [Check("this held", ok=True), Check("that did not", ok=False)])
    assert missed.ok is False
    assert missed.seen == "MISSED: that did not; this held"
    assert Outcome(row(), [Check("late", ok=False, timed=True)]).ok is False
    assert Outcome(row(), [Check("late", ok=False, timed=True)], judged_timed=False).ok is True
    assert Outcome(row(), error="it fell over").ok is False
    assert Outcome(row(), skipped="no such server").ok is None


def test_the_page_has_both_tables_and_names_what_was_missed() -> None:
    machine = {"versions": {"torch": "2"}, "commit": "abc", "cpu": "a CPU", "cores": 2, "system": "s", "python": "3"}
    outcomes = [
        Outcome(row(table="found"), [Check("seen so", ok=True)]),
        Outcome(row(), [Check("not so", ok=False)]),
        Outcome(row(), skipped="no such server"),
    ]
    text = page.page(machine, {"minutes": 1}, outcomes)
    assert "1 of 3 rows hold; missed: name." in text
    assert "| name | a fault | what must hold | seen so | yes |" in text
    assert "| MISSED: not so | NO |" in text
    assert "| skipped: no such server | - |" in text
    assert len(page.tables(outcomes)) == 2


def test_a_fault_that_slows_the_others_is_missed() -> None:
    quick, slow = (timeline([0.0] * 100, [float(ms)] * 100) for ms in (2, 3))
    missed, none_failed = Comparison([quick] * 3, [quick, slow, slow], quick).checks(1.2)
    assert (missed.ok, none_failed.ok) == (False, True)
    assert "1.50x" in missed.seen
    held, failed = Comparison([quick] * 3, [quick, quick, slow], timeline([0.0], [1.0], 503)).checks(1.2)
    assert (held.ok, failed.ok) == (True, False)


def test_an_answer_that_hides_an_outage_is_found() -> None:
    assert marked(timeline([1.0, 2.0], [1, 1], degraded=True)).ok
    assert not marked(timeline([1.0, 2.0], [1, 1])).ok
    assert full_again(timeline([1.0, 2.0], [1, 1]), 0.0, 1.0).ok
    assert full_again(timeline([0.5], [1], degraded=True), 0.0, 1.0).ok
    assert not full_again(timeline([1.5], [1], degraded=True), 0.0, 1.0).ok
    assert not full_again(timeline([], []), 0.0, 1.0).ok, "nobody asked"


def test_a_secret_in_an_answer_is_found() -> None:
    secrets = Secrets()
    secrets.look(b"nothing", "/")
    assert (secrets.looked_at, secrets.leaks) == (1, [])
    secrets.look(f"redis://:{secrets.password}@host".encode(), "/health")
    assert secrets.leaks == ["/health"]


def test_help_shows_examples_and_an_unknown_row_is_refused() -> None:
    runner = CliRunner()
    assert "make faults" in runner.invoke(cli, ["--help"]).stdout
    refused = runner.invoke(cli, ["--only", "nothing-of-the-kind"])
    assert refused.exit_code == 2
    assert "choose from" in refused.output
    assert "heads" in runner.invoke(cli, ["--list"]).stdout


@pytest.mark.slow
def test_a_smoke_run_from_end_to_end() -> None:
    command = [sys.executable, "-m", "benchmarks.faults", "--smoke", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout, done.stderr[-2000:]
    rows = json.loads(done.stdout)["rows"]
    assert [one["name"] for one in rows] == [one.name for one in ROWS if one.smoke]
    assert not [one["seen"] for one in rows if one["ok"] is not True]
    assert done.returncode == 0
