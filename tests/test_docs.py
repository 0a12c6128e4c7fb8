"""The documents name what the code has: every setting, metric, problem, degraded word, command and route."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from app.api.problems import BY_STATUS, TYPES
from app.cli import COMMANDS
from app.features.memory_store import MemoryFeatureStore
from app.main import create_app
from app.models import MODELS
from app.observability.metrics import Metrics
from app.publishing.promote import Promotion
from app.publishing.publish import Publication
from app.publishing.rollback import Rollback
from app.ranking.degraded import DEGRADED
from app.registry.lifecycle.swap_log import WARNINGS
from app.settings import Settings
from tests.pages import PAGES, ROOT, anchors, blocks, links

REFERENCE = (ROOT / "docs" / "reference.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_setting_is_in_the_table_with_its_default_and_advice() -> None:
    for name, field in Settings.model_fields.items():
        line = next((line for line in REFERENCE.splitlines() if line.startswith(f"| `CTR_{name.upper()}` |")), None)
        assert line is not None, name
        assert field.description, name
        assert field.description in line, name
        default = {"": "empty", "()": "empty", "None": "unset"}.get(str(field.default), str(field.default))
        assert f"| {default} |" in line, (name, default)
    assert len(re.findall(r"^\| `CTR_", REFERENCE, re.MULTILINE)) == len(Settings.model_fields), "no setting that was"


def test_every_metric_problem_and_degraded_word_is_there() -> None:
    for metric in Metrics()._registry.collect():
        assert f"`{metric.name}{'_total' if metric.type == 'counter' else ''}`" in REFERENCE
    for word in {*TYPES.values(), *BY_STATUS.values(), *DEGRADED}:
        assert f"`{word}`" in REFERENCE


@cache
def logged() -> set[str]:
    """Return the events that some code logs as a warning or an error, those of swaps by their outcomes."""
    events = {f"model_{outcome}" for outcome in WARNINGS}
    for source in (file.read_text() for file in (ROOT / "app").rglob("*.py")):
        for node in ast.walk(ast.parse(source if "log." in source else "")):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="log"), attr="warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(event))],
                ):
                    events.add(event)
    return events


def test_every_warning_and_error_of_the_log_is_there_and_no_other() -> None:
    page = (ROOT / "docs" / "logs.md").read_text()
    first_cells = "".join(re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE))
    assert len(logged()) > 30
    assert set(re.findall(r"`(\w+)`", first_cells)) - {"event"} == logged()


def test_every_reason_to_refuse_a_version_is_explained() -> None:
    reasons = set()
    for file in (ROOT / "app" / "registry").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="ArtifactError"), args=[ast.Constant(value=str(reason)), *_]):
                    reasons.add(reason)
                case ast.Call(func=ast.Name(id="GateCheck"), args=[_, _, ast.Constant(value=str(reason)), *_]):
                    reasons.add(reason)
    table = (
        (ROOT / "docs" / "operations.md")
        .read_text()
        .partition("### Why a version is refused")[2]
        .partition("\n### ")[0]
    )
    explained = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE))))
    assert {"hash", "golden", "timeout"} <= reasons
    assert reasons <= explained


def test_every_key_that_a_command_prints_as_json_is_there() -> None:
    printed: set[str] = set()
    for file in (ROOT / "app" / "commands").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            is_emitted = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "emit"
            if is_emitted or (isinstance(node, ast.FunctionDef) and node.name.endswith("_document")):
                documents = (part for part in ast.walk(node) if isinstance(part, ast.Dict))
                keys = (key for document in documents for key in document.keys)
                printed |= {str(key.value) for key in keys if isinstance(key, ast.Constant)}
    for struct in (Publication, Promotion, Rollback):
        printed |= set(struct.__struct_fields__)
    table = REFERENCE.partition("## What `--json` prints")[2]
    assert {"version_dir", "left_out", "passed_over"} <= printed
    assert {key for key in printed if f"`{key}`" not in table} == set()


def test_the_readme_names_every_command() -> None:
    for command in COMMANDS:
        assert f"ctr {command}" in README, command


@cache
def listed_routes() -> frozenset[str]:
    """Return the routes in the table of the reference, as `GET /health`."""
    table = REFERENCE.partition("## Routes")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    return frozenset(route for cell in cells for route in cell.split("`, `"))


def test_every_route_is_there_and_no_other(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, model_store=tmp_path, admin_key="a-key")  # type: ignore[call-arg,arg-type]
    document = create_app(settings, store=MemoryFeatureStore()).fastapi.openapi()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert {"POST /rank", "GET /health", "GET /metrics"} <= routes
    assert listed_routes() == routes | {"GET /", "GET /docs", "GET /openapi.json"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_curl_asks_for_exists(page: Path) -> None:
    paths = {route.split()[1] for route in listed_routes()}
    for block in blocks(page.read_text(), "sh"):
        for line in block.splitlines():
            for path in re.findall(r"https?://[^/\s\"']+(/[a-z/.]*)", line) if "curl" in line else ():
                assert path in paths, line


def test_every_model_is_described() -> None:
    models = (ROOT / "docs" / "models.md").read_text()
    for name in MODELS:
        assert f"| `{name}`" in models


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_documents_hold(page: Path) -> None:
    for link in links(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        target, _, heading = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), (page.name, link)
        assert not heading or heading in anchors(file), (page.name, link)


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/adr/*.md")), ids=lambda page: page.name)
def test_a_decision_fits_on_a_page(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= 42


def test_exit_statuses_that_a_command_has_of_its_own_are_those_of_its_help() -> None:
    table = REFERENCE.partition("## Exit statuses")[2]
    documented = {
        name: set(re.findall(r"(?:^|; )(\d+) ", statuses))
        for name, statuses in re.findall(r"^\| `ctr ([a-z ]+)` \| (.+) \|$", table, re.MULTILINE)
    }
    told = {}
    for name, target in COMMANDS.items():
        module, function = target.split(":")
        help_text = " ".join(getattr(import_module(module), function).__doc__.split())
        if statuses := re.search(r"Exit status: (.+?) Example:", help_text):
            told[name] = set(re.findall(r"(?:^|; )(\d+) ", statuses[1]))
    assert told == documented
