"""Writes the dated page of a soak."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.figure import Figure
from benchmarks.report import FIGURE_COLUMNS, RESULTS, figure_rows, markdown

METHOD = """\
The service has the first core to itself; the store, the load generator and what moves the pointer share the second
(two workers have both cores, as has everything else then); the generator goes first on it where the system allows.
Load is an open loop at 70 % of the closed loop's rate just before (two workers: 35 %); latencies count from when a
request was due. Versions are published before the run: a swap is what it is for a machine that only serves, a changed
pointer. *Steady* is all time without a swap: stretches before, halfway and after, less 1.5 s in which connections are
opened or a version is retired, and from 1.3 s after the first answer of a version, when the one before has gone, to
the next pointer. (Until commit 85bb5dc only the stretches counted, their first seconds included; the machine's own
slower seconds then fell into one side of the comparison or the other.) *The second around a swap* is from half a
second before the first answer of the new version to half a second after. The event loop writes the time each
millisecond; *held* is what lies between two of these, so it counts all requests of one turn, and whatever else had
the core. Versions differ in all their weights. A row without a bound is one of which nothing was asked."""


def page(machine: dict[str, Any], settings: dict[str, Any], figures: Sequence[Figure], failed: dict[str, str]) -> str:
    """Return the page as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        f"# Soak, {datetime.now(UTC):%Y-%m-%d}, commit {machine['commit']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}. Python {machine['python']}, {versions}.",
        f"Run: {', '.join(f'{name} {value}' for name, value in settings.items())}.",
        METHOD,
        markdown(FIGURE_COLUMNS, figure_rows(figures)),
    ]
    if failed:
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in failed.items()) + ".")
    return "\n\n".join(parts) + "\n"


def write(text: str, folder: Path = RESULTS) -> Path:
    """Write the page, in place of that of an earlier run of the day, and return its path."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-soak.md"
    path.write_text(text, encoding="utf-8")
    return path
