"""Tests of problem+json: one type per error, small bodies, and nothing internal in them."""

from __future__ import annotations

import json
import re

import pytest
from fastapi import FastAPI, HTTPException
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from structlog.testing import capture_logs

from app import errors
from app.api import problems
from app.api.middleware import Edge
from app.api.problems import MAX_BYTES, TYPES, install_problem_handlers, internal_problem, problem_response
from app.errors import EncodingError, InvalidRequest, NoModel, NotJson, Overloaded, RequestError, Unauthorized
from tests.api.fakes import client

pytestmark = pytest.mark.anyio

any_text = st.text(st.characters(exclude_categories=()), max_size=2000)


def subclasses(kind: type[RequestError]) -> set[type[RequestError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def document(response: Response) -> dict:
    assert response.media_type == "application/problem+json"
    assert len(response.body) <= MAX_BYTES
    problem: dict = json.loads(response.body)
    assert problem["status"] == response.status_code
    return problem


def test_every_request_error_of_the_project_has_its_own_type() -> None:
    ours = {kind for kind in subclasses(RequestError) if kind.__module__ == errors.__name__} - {RequestError}
    assert ours == set(TYPES)
    assert len(set(TYPES.values())) == len(TYPES)


def test_the_table_in_the_docs_is_true() -> None:
    table = dict(re.findall(r"^    ([a-z-]+) +(\d{3})", problems.__doc__ or "", re.MULTILINE))
    documented = {name: int(status) for name, status in table.items()}
    expected = {name: kind.status for kind, name in TYPES.items()}
    assert documented == {**expected, "method-not-allowed": 405, "internal-error": 500}


def test_a_problem_has_the_members_of_the_contract() -> None:
    error = InvalidRequest("item_ids: too many", errors=[("item_ids", "too many")])
    assert document(problem_response(error, "abc")) == {
        "type": "urn:ctr-serving:problem:invalid-request",
        "title": "The request is not valid",
        "status": 422,
        "detail": "item_ids: too many",
        "request_id": "abc",
        "errors": [{"location": "item_ids", "message": "too many"}],
    }


def test_errors_are_left_out_where_there_are_none() -> None:
    assert "errors" not in document(problem_response(NotJson(), "abc"))


def test_a_subclass_added_later_has_the_type_of_its_parent() -> None:
    class Odd(EncodingError):
        pass

    assert document(problem_response(Odd("age", "odd"), "a"))["type"].endswith(":unencodable-value")


@pytest.mark.parametrize("error", [Overloaded(), NoModel()])
def test_a_503_says_when_to_come_back(error: RequestError) -> None:
    assert int(problem_response(error, "a").headers["Retry-After"]) >= 1


def test_a_401_names_the_scheme() -> None:
    assert "X-API-Key" in problem_response(Unauthorized(), "a").headers["WWW-Authenticate"]


@given(any_text, st.lists(st.tuples(any_text, any_text), max_size=20), st.sampled_from(sorted(TYPES.values())))
def test_no_problem_is_larger_than_4_kb(detail: str, complaints: list[tuple[str, str]], name: str) -> None:
    kind = next(kind for kind in TYPES if TYPES[kind] == name)
    error = (
        kind(detail, complaints[0][1] if complaints else "")
        if kind is EncodingError
        else kind(detail, errors=complaints)
    )
    found = document(problem_response(error, "r" * 128))
    assert len(found.get("errors", [])) <= 10


def test_the_worst_text_still_fits() -> None:
    worst = "\x01" * 5000
    found = document(problem_response(InvalidRequest(worst, errors=[(worst, worst)] * 50), "r" * 128))
    assert found["detail"].startswith("\x01")


def test_an_internal_error_says_nothing() -> None:
    assert document(internal_problem("abc"))["type"] == "urn:ctr-serving:problem:internal-error"


def faulty() -> FastAPI:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret of ours")

    @app.get("/overloaded")
    async def overloaded() -> None:
        raise Overloaded

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout", {"X-Tea": "green"})

    @app.get("/number/{number}")
    async def number(number: int) -> int:
        return number

    return app


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nowhere", 404, "urn:ctr-serving:problem:not-found"),
        ("POST", "/overloaded", 405, "urn:ctr-serving:problem:method-not-allowed"),
        ("GET", "/overloaded", 503, "urn:ctr-serving:problem:overloaded"),
        ("GET", "/number/canary-secret", 422, "urn:ctr-serving:problem:invalid-request"),
        ("GET", "/teapot", 418, "about:blank"),
    ],
)
async def test_errors_of_the_framework_are_problems(method: str, path: str, status: int, name: str) -> None:
    async with client(faulty()) as http:
        response = await http.request(method, path)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"], response.json()["type"]) == (status, status, name)
    assert "canary-secret" not in response.text


async def test_headers_of_the_framework_are_kept() -> None:
    async with client(faulty()) as http:
        assert (await http.post("/overloaded")).headers["Allow"] == "GET, HEAD"
        assert (await http.get("/teapot")).headers["X-Tea"] == "green"


async def test_a_bug_is_answered_without_its_text_and_logged_once() -> None:
    with capture_logs() as logs:
        # The transport raises what is let out.
        async with client(Edge(faulty(), max_body_bytes=1000, body_timeout_s=5)) as http:
            response = await http.get("/bug")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "ZeroDivision" not in response.text
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("unexpected_error", "error")]
    assert isinstance(logs[0]["exc_info"], ZeroDivisionError)
