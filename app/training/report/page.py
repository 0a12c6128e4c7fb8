"""The page: `report.json` in, one HTML file out that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from app.training.report import sections
from app.training.report import tables_section as facts
from app.training.report.tables import number
from app.training.report.tables_section import METRICS

TEMPLATE = Path(__file__).with_name("page.html")
Found = Mapping[str, Any]


def render(found: Found) -> str:
    """HTML of findings as they come back from JSON, where NaN is None."""
    shown = {
        "Result": facts.result(found),
        "Training": sections.training(found),
        "Ranking": sections.ranking(found),
        "Calibration": sections.calibration(found),
        "Scores": sections.scores(found),
        "Users": sections.users(found["users"]),
        "Fields": sections.importance(found["importance"]),
        "Crosses": sections.crosses(found["crosses"]),
        "Data": facts.data(found),
        "Run it again": facts.reproduce(found["reproduce"]),
    }
    links = "".join(f'<a href="#{_anchor(title)}">{escape(title)}</a>' for title in shown)
    body = f"<header>{_head(found)}<nav>{links}</nav></header>\n<main>\n"
    for title, content in shown.items():
        body += f'<section id="{_anchor(title)}"><h2>{escape(title)}</h2>\n{content}\n</section>\n'
    name = f"{found['model']['name']}, trained {found['created_at']}"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(title=escape(name), body=f"{body}</main>")


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _head(found: Found) -> str:
    model, test = found["model"], found["metrics"]["test"]
    cards = "".join(
        f"<div><b>{number(test[metric])}</b>{label}</div>" for metric, label in METRICS.items() if metric in test
    )
    size = f"{model['architecture']}, {model['parameters']:,} weights, {model['table_rows']:,} table rows"
    return (
        f"<h1>{escape(model['name'])}</h1><p class='quiet'>{escape(size)}. Trained {escape(found['created_at'])} on "
        f"{escape(str(found['data'].get('source', '')))}.</p><div class='cards' role='group' aria-label='test part'>"
        f"{cards}</div>"
    )
