"""The OpenAPI document, as validators and generators of clients read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api.openapi_schemas import REF, references, referred
from app.api.schemas import RankBody
from app.features.memory_store import MemoryFeatureStore
from app.features.values import UINT64_MAX
from app.main import create_app
from app.settings import Settings

OPERATIONS = {"health", "live", "ready", "models", "training_report", "feedback", "metrics", "rank"}
OPERATIONS |= {"catalogue_summary", "search_catalogue", "stored_user"}
ADMIN = {"promote", "rollback", "refuse"}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "with keys": {"api_keys": "a-key", "admin_key": "another"},
    "below a sub-path": {"root_path": "/ctr", "metrics": "off"},
}


def document_of(folder: Path, **settings: Any) -> dict[str, Any]:
    known = Settings(_env_file=None, model_store=folder, **settings)  # type: ignore[call-arg]
    return create_app(known, store=MemoryFeatureStore()).fastapi.openapi()


@pytest.fixture(params=VARIANTS)
def document(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return document_of(tmp_path, **VARIANTS[request.param])


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, Any]:
    """Return the document with all routes."""
    return document_of(tmp_path, **VARIANTS["with keys"])


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for methods in document["paths"].values() for operation in methods.values()]


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_a_document_that_is_none_is_found_out(whole: dict[str, Any]) -> None:
    whole["paths"]["/rank"]["post"]["responses"]["200"].pop("description")
    assert list(OpenAPIV31SpecValidator(whole).iter_errors())


def test_operations_are_called_as_one_would_call_them(whole: dict[str, Any], tmp_path: Path) -> None:
    assert {operation["operationId"] for operation in operations(whole)} == OPERATIONS | ADMIN
    without = document_of(tmp_path, metrics="off")
    assert {operation["operationId"] for operation in operations(without)} == OPERATIONS - {"metrics"}


def test_every_schema_is_there_and_referred_to(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(references(document)) == set(schemas), "those that only others refer to are in these"
    assert referred(document) == schemas
    assert ("VersionBody" in schemas) == any("admin" in path for path in document["paths"])


def test_what_generators_make_types_of_has_a_name(whole: dict[str, Any]) -> None:
    """An object that is spelt out where it is used becomes a type with a name of the generator's own."""

    def unnamed(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            if "properties" in part:
                yield part
            for value in part.values():
                yield from unnamed(value)
        elif isinstance(part, list):
            for value in part:
                yield from unnamed(value)

    assert list(unnamed(whole["paths"])) == []
    for name, schema in whole["components"]["schemas"].items():
        assert list(unnamed(schema.get("properties", {}))) == [], name
        assert schema["title"] == name


def test_patterns_are_those_of_any_engine(whole: dict[str, Any]) -> None:
    text = json.dumps(whole)
    assert '"pattern"' in text
    assert "(?" not in "".join(re.findall(r'"pattern": "(.*?)"', text)), "assertions are no part of RE2"


def test_bounds_of_integers_are_exact(whole: dict[str, Any]) -> None:
    """A double cannot hold the greatest integer of 64 bits."""
    bounds = re.findall(r'"(?:maximum|minimum|exclusiveMaximum)": ([-+.\de]+)', json.dumps(whole))
    assert str(UINT64_MAX) in bounds
    assert not [bound for bound in bounds if "e" in bound]


def test_every_field_of_an_answer_is_promised(whole: dict[str, Any]) -> None:
    schemas = whole["components"]["schemas"]
    for name in ("Health", "Readiness", "Liveness", "Models", "Version", "AdminResult", "FeedbackResult"):
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]), name
    assert {"$ref": REF + "Features"} in schemas["RankRequest"]["properties"]["context"]["anyOf"]
    assert set(schemas["RankRequest"]["properties"]) == set(RankBody.__struct_fields__)


def test_any_other_status_is_a_problem(document: dict[str, Any]) -> None:
    problem = {"application/problem+json": {"schema": {"$ref": REF + "Problem"}}}
    for operation in operations(document):
        assert operation["responses"]["default"]["content"] == problem
        for status, response in operation["responses"].items():
            if status in ("429", "503") and response["content"] == problem:
                assert "Retry-After" in response["headers"]


@pytest.mark.parametrize("item", ["181", 181, 181.0, UINT64_MAX])
def test_records_of_feedback_fit_with_the_ids_that_rank_takes(item: object, whole: dict[str, Any]) -> None:
    record = {"request_id": "a", "item_id": item, "type": "click"}
    for schema in ("FeedbackRecord", "RankRequest"):
        validator = jsonschema.Draft202012Validator({"$ref": REF + schema, "components": whole["components"]})
        assert validator.is_valid(record if schema == "FeedbackRecord" else {"item_ids": [item]})
