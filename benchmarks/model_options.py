"""What the commands that train on many sets have in common: options, names that are checked, and a log."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 150  # a log wraps nothing
ROOT = Path(__file__).parents[1]
DATA = ROOT / ".." / "shared" / "data"
PAGE = ROOT / "docs" / "models.md"


def check_names(option: str, names: list[str], choices: list[str]) -> list[str]:
    """Return the names. Raises BadParameter if one is not among the choices."""
    if unknown := [name for name in names if name not in choices]:
        raise typer.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(choices)}", param_hint=option)
    return names


def check_sets(sets: str, data: Path) -> list[str]:
    """Return the names of the sets whose files are there, and say which are left out.

    Args:
        sets: names by commas, or all.
        data: the folder of the folders of the sets.

    Raises:
        BadParameter: a set is not known.
    """
    from benchmarks.model_sets import SETS

    chosen = check_names("--sets", list(SETS) if sets == "all" else sets.split(","), list(SETS))
    missing = {name: SETS[name].missing(data) for name in chosen}
    for name, what in missing.items():
        if what:
            notify(f"{name} is left out: {what}")
    return [name for name in chosen if not missing[name]]


def check_fresh(fresh: bool, seconds: float | None, runs: Path) -> None:
    """Raise BadParameter if each call of those that go on would begin anew."""
    if fresh and seconds is not None:
        raise typer.BadParameter(
            f"with --seconds each call would begin anew; empty {runs} instead", param_hint="--fresh"
        )


def write_page(page: Path, content: str, marks: tuple[str, str]) -> None:
    """Put the content between the page's marks. Raises SystemExit if the page cannot be written or has no marks."""
    from benchmarks.model_table import insert_between_marks

    try:
        page.write_text(insert_between_marks(page.read_text(encoding="utf-8"), content, marks), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {page}: {error}") from error
    notify(f"written to {page}")


def notify(text: str) -> None:
    """Print a line of the log."""
    console.print(text, markup=False, highlight=False)
