"""The arithmetic of docs/scaling.md follows from the figures that it names, which are those that were measured."""

from __future__ import annotations

import math
import re

from tests.pages import DOCS, ROOT

PAGE = " ".join((DOCS / "scaling.md").read_text().split())
MEASURED = (ROOT / "benchmarks" / "results" / "2026-11-22.md").read_text()
MILLION_ITEMS, PLANNED = 0.85, 0.7


def requests_a_second(candidates: int) -> float:
    found = re.search(rf"^\| {candidates} \| ctr \| ([\d,]+) \|", MEASURED, re.MULTILINE)
    assert found is not None
    return float(found[1].replace(",", ""))


def test_cores() -> None:
    rate = requests_a_second(500)
    a_core = rate * MILLION_ITEMS * PLANNED
    assert (
        f"{rate:,.0f} × {MILLION_ITEMS} × {PLANNED} = {a_core:.0f} requests/s a core, so {100_000 / a_core:.0f} cores"
        in PAGE
    )
    few = requests_a_second(100)
    assert f"({few:,.0f} requests/s) it is {100_000 / (few * MILLION_ITEMS * PLANNED):.0f}" in PAGE


def test_memory_of_the_store() -> None:
    user, item = map(int, re.search(r"\| (\d+), (\d+) bytes \|", PAGE).groups())  # type: ignore[union-attr]
    assert f"100 million items of {item} bytes are {item / 10:.0f} GB" in PAGE
    assert f"100 million users of {user} bytes are {user / 10:.0f} GB" in PAGE
    assert f"{math.ceil((item + user) / 10 / 4)} GB a master" in PAGE, "of four"


def test_items_read_again() -> None:
    a_worker = 2_000_000 / (0.7 * 600)
    assert f"{a_worker:,.0f}" == "4,762"
    assert "4,760 `HMGET` a second and worker, 570,000 from 120 workers" in PAGE
    assert 120 * a_worker // 10_000 * 10_000 == 570_000
