"""Turn `report.json` into one HTML file that needs nothing else, neither network nor scripts.

The templates are under `templates/`, one for each section. Jinja escapes every value that they insert, but
for the drawings, which are SVG whose text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.training.evaluation.metrics import METRIC_LABELS
from app.training.report.drawings import draw_findings
from app.training.report.tables import number, percent, table_rows, thousands

TEMPLATES = Path(__file__).with_name("templates")
SECTIONS = {
    "Result": "result.html",
    "Training": "training.html",
    "Ranking": "ranking.html",
    "Calibration": "calibration.html",
    "Scores": "scores.html",
    "Users": "users.html",
    "Fields": "importance.html",
    "Crosses": "crosses.html",
    "Data": "data.html",
    "Run it again": "reproduce.html",
}
"""Names the template of each section, by title."""


def render(findings: Mapping[str, Any]) -> str:
    """Return the HTML of findings as they come back from JSON, where NaN is None."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            findings=findings,
            metric_labels=METRIC_LABELS,
            sections=SECTIONS,
            drawings=draw_findings(findings),
            **table_rows(findings),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent, thousands=thousands, anchor=_anchor)
    return environment


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")
