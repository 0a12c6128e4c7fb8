"""The page needs no other file, shows every number as a table too, and escapes text that looks like HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from app.training.architectures import ModelConfig
from app.training.data.split import SplitConfig
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.trainer_config import TrainerConfig
from app.training.report import FINDINGS, PAGE, figures, write_report
from app.training.report.collect import curves
from app.training.report.page import render
from tests.training.test_job import labelled

VOID = {"meta", "link", "br", "img", "input", "hr"}
COMMAND = "ctr train --dataset table --data 'my clicks.csv'"


class Page(HTMLParser):
    """Parses a page into its text, ids and links, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.images: list[str | None] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.targets += [str(given[a]) for a in ("src", "href", "xlink:href", "data", "action") if given.get(a)]
        if tag == "svg":
            self.images.append(given.get("aria-label"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def run(folder: Path, model: str = "fm", calibration: Any = "platt") -> Page:
    folder.mkdir(exist_ok=True)
    data = labelled()
    labels = np.array([n % 7 < 3 for n in range(len(data))], np.float32)  # users with both labels
    data = replace(data, labels_N=labels, source="<script>alert(1)</script> & co")
    config = JobConfig(
        model=ModelConfig(model, dim=4),
        trainer=TrainerConfig(batch_size=64, epochs=2),
        split=SplitConfig(kind="random", test=0.3),
        calibration=calibration,
    )
    TrainingJob(config).run(data, None, folder, name="tried", command=COMMAND)
    return Page((folder / PAGE).read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_folder = tmp_path_factory.mktemp("run")
    run(run_folder)
    return run_folder


def test_it_needs_nothing_but_itself_and_is_small(folder: Path) -> None:
    text = (folder / PAGE).read_text()
    page = Page(text)
    assert not page.open, "every element is closed"
    assert "script" not in page.tags
    assert page.targets
    assert all(target.startswith(("#", "data:")) for target in page.targets)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(text) < 1_000_000
    assert "light-dark(" in text


def test_ids_are_unique_and_links_lead_somewhere(folder: Path) -> None:
    page = Page((folder / PAGE).read_text())
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets if target.startswith("#")} <= set(page.ids)


def test_every_drawing_has_a_name_and_a_table(folder: Path) -> None:
    page = Page((folder / PAGE).read_text())
    assert len(page.images) == 8
    assert all(page.images)
    assert page.tags.count("table") >= len(page.images)


def test_colours_are_the_pages_own_and_numbers_of_axes_are_whole(folder: Path) -> None:
    drawings = re.findall(r"<svg role.*?</svg>", (folder / PAGE).read_text(), re.DOTALL)
    assert not re.search(r"#[0-9a-f]{6}", "".join(drawings))
    reliability = next(drawing for drawing in drawings if 'id="reliability-' in drawing)
    ticks = [float(tick) for tick in re.findall(r">([\d.]+)</text>", reliability)]
    assert len(set(ticks)) > 4, "not rounded with the places"


def test_it_says_what_was_found(folder: Path) -> None:
    text = Page((folder / PAGE).read_text()).text
    findings = msgspec.json.decode((folder / FINDINGS).read_bytes())
    for metrics in (findings["metrics"]["test"], *findings["baselines"].values()):
        assert f"{metrics['log_loss']:.4f}" in text
    assert COMMAND in text
    assert findings["reproduce"]["digest"]["test"] in text
    assert "chose the best epoch" in text
    for field in findings["fields"]:
        assert field["name"] in text
    bins = findings["calibration"]["test"]["after"]
    assert sum(bin_["rows"] for bin_ in bins) == findings["data"]["test"]["rows"] == 90
    assert sum(findings["scores"]["click"]) + sum(findings["scores"]["none"]) == 90
    assert len(findings["importance"]["fields"]) == len(findings["fields"])


def test_text_that_looks_like_html_stays_text(folder: Path) -> None:
    assert "<script>alert(1)</script> & co" in Page((folder / PAGE).read_text()).text


def test_a_script_in_any_name_or_value_is_escaped(folder: Path) -> None:
    """Every string of the findings could come from a user: names of fields, values, paths, options, the command."""
    script = "<script>alert(1)</script>"

    def marked(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: marked(inner, name) for name, inner in value.items()}
        if isinstance(value, list):
            return [marked(inner, key) for inner in value]
        return value + script if isinstance(value, str) and key not in ("method", "omitted") else value

    findings = msgspec.json.decode((folder / FINDINGS).read_bytes())
    named = {"skipped": "2 bad rows", "unreadable": {f"price{script}": "1 bad row"}}
    findings = marked(findings | {"data": findings["data"] | named})
    page = Page(render(findings))
    assert not page.open
    assert "script" not in page.tags
    for field in findings["fields"]:
        assert field["name"].endswith(script)
        assert page.text.count(field["name"]) >= 3, "the table of fields, that of their importance, and the drawing"
    assert f"price{script}: 1 bad row{script}" in page.text
    assert page.text.count(script) > 50
    for where in ("model", "data", "reproduce"):
        assert any(value in page.text for value in findings[where].values() if isinstance(value, str))


def test_a_model_without_pairs_and_without_calibration_says_so(tmp_path: Path) -> None:
    page = run(tmp_path, "nfm", "none")
    assert "Not shown. nfm: its crosses go through a network" in page.text
    assert "Nothing was scaled" in page.text
    assert len(page.images) == 7


def test_one_run_one_page(folder: Path) -> None:
    findings = msgspec.json.decode((folder / FINDINGS).read_bytes())
    assert render(findings) == render(findings) == (folder / PAGE).read_text()


def test_what_cannot_be_said_is_a_dash(folder: Path, tmp_path: Path) -> None:
    findings = msgspec.json.decode((folder / FINDINGS).read_bytes())
    findings["metrics"]["test"]["gauc"] = float("nan")
    findings["users"] = {"omitted": "the schema has no user id"}
    findings["curves"] = {"roc": [], "pr": []}
    write_report(tmp_path, findings)
    text = Page((tmp_path / PAGE).read_text()).text
    assert "–" in text
    assert "the schema has no user id" in text
    assert "nan" not in text.lower().split()


def test_a_curve_of_tied_scores_keeps_its_corners_and_precision_is_drawn_as_stairs() -> None:
    """Where half of the clicks are above everything and the rest are one tie, the ROC curve goes straight up first.

    Equal scores have the precision of random order at every recall, and a sloping line would show more.
    """
    labels_N = np.array([1, 1, 1, 0, 1, 0, 1, 0, 1, 0], np.float32)
    drawn = curves(labels_N, np.where(np.arange(10) < 3, 0.9, 0.2))
    assert drawn["roc"] == [[0, 0], [0, 0.5], [1, 1]]
    assert drawn["pr"][-1] == [1, 0.6]
    equal = curves(labels_N, np.full(10, 0.3))["pr"]
    assert equal == [[0, 1], [1, 0.6]]
    drawn = figures.curve("pr", "PR curve", equal, "recall", "precision", 0.6)
    line = next(path for path in re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--first\)', drawn))
    heights = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", line)]
    assert len(heights) == 3
    assert heights[0] < heights[1] == heights[2], "it falls at once and stays there"
