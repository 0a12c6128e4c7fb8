"""The Grafana dashboard asks for what is exported or recorded, by labels there are; every panel has its place."""

from __future__ import annotations

import itertools
import re
from typing import Any

import msgspec
import promql_parser
import pytest
import yaml

from app.observability.metrics import Metrics
from tests.pages import ROOT

DASHBOARD = msgspec.json.decode((ROOT / "deploy" / "grafana" / "ctr-serving.json").read_bytes())
PANELS: dict[str, dict[str, Any]] = {panel["title"]: panel for panel in DASHBOARD["panels"]}
QUERIES = [
    *(target["expr"] for panel in PANELS.values() for target in panel.get("targets", [])),
    *(annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]),
]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())["groups"]


def labels_by_sample() -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {
        rule["record"]: {"label", "bucket"} for group in RULES for rule in group["rules"] if "record" in rule
    }
    metrics = Metrics()
    for attribute in vars(metrics).values():
        metric = getattr(attribute, "_counter", attribute)
        if name := getattr(metric, "_name", None):
            for ending in ("", "_total", "_bucket", "_sum", "_count"):
                labels[f"{name}{ending}"] = {*metric._labelnames, *(["le"] if ending == "_bucket" else [])}
    return labels


LABELS = labels_by_sample()


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_there_is(query: str) -> None:
    query = query.replace("$__rate_interval", "5m")
    promql_parser.parse(query)
    bare = re.sub(r'"[^"]*"', "", query)
    asked = set(re.findall(r"\bctr[_:][a-z_:0-9]+", bare))
    assert asked
    assert asked <= LABELS.keys()
    known = set.union(*(LABELS[name] for name in asked))
    grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", bare) for name in names.split(",")}
    matched = set(re.findall(r"(\w+)=", query))
    assert grouped | matched <= known


def test_legends_name_labels_that_the_query_leaves() -> None:
    for panel in PANELS.values():
        for target in panel.get("targets", []):
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                names = set(re.findall(r"ctr[_:][a-z_:0-9]+", target["expr"]))
                assert label in set.union(*(LABELS[name] for name in names)), target


def test_every_panel_has_a_place_of_its_own_and_says_what_it_shows() -> None:
    assert len({panel["id"] for panel in PANELS.values()}) == len(PANELS) == len(DASHBOARD["panels"])
    places = [panel["gridPos"] for panel in PANELS.values()]
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert all(panel["description"] for panel in PANELS.values() if panel["type"] != "row")
