"""Whoever is woken by an alert finds its section in the runbook, and a section of no alert is not there."""

from __future__ import annotations

import re

import pytest
import yaml

from app.api.problems import BY_STATUS, TYPES
from app.observability.metrics import Metrics
from app.ranking.degraded import DEGRADED
from app.settings import Settings
from tests.pages import DOCS, ROOT, anchor, sections

RUNBOOK = (DOCS / "runbook.md").read_text()
SECTIONS = sections(RUNBOOK, 3)
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
PARTS = ["Means", "See it", "Do", "Harmless when"]


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    assert list(SECTIONS) == list(ALERTS), "in the order of the rules"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_links_to_its_section(name: str) -> None:
    assert ALERTS[name]["annotations"]["runbook_url"] == f"docs/runbook.md#{anchor(name)}"


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_all_that_is_needed(name: str) -> None:
    assert re.findall(r"^- \*\*(.+?):\*\* \S", SECTIONS[name], re.MULTILINE) == PARTS


def test_the_runbook_names_what_there_is() -> None:
    samples = {
        sample
        for family in Metrics()._registry.collect()
        for sample in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }
    assert set(re.findall(r"\bctr_[a-z_]+\b", RUNBOOK)) <= samples
    assert set(re.findall(r"\bCTR_[A-Z_]+[A-Z]\b", RUNBOOK)) <= {
        f"CTR_{name.upper()}" for name in Settings.model_fields
    }
    assert set(re.findall(r"\bCtr[A-Z]\w+", RUNBOOK)) <= set(ALERTS)
    logged = "".join(path.read_text() for path in ROOT.glob("app/**/*.py"))
    words = {*TYPES.values(), *BY_STATUS.values(), *DEGRADED, "runbook_url"}
    for word in set(re.findall(r"`([a-z]+_[a-z_]+)`", RUNBOOK)) - words:
        assert word.startswith("ctr_") or f'"{word}"' in logged or f'"{word.removeprefix("model_")}"' in logged, word


def test_every_degraded_word_is_in_the_runbook() -> None:
    for word in DEGRADED:
        assert f"`{word}`" in RUNBOOK
