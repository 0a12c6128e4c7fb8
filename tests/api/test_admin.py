"""Tests of the admin routes: who may call them, what they accept, and what they do."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.api import admin
from app.api.admin import OptionalVersionBody, VersionBody, parse_body
from app.api.admin_actions import Admin
from app.errors import ActionFailed, ArtifactError, ConfigError, InvalidRequest, RequestError
from app.features.memory_store import MemoryFeatureStore
from app.main import create_app
from app.publishing.promote import Promotion
from app.publishing.refuse import BY_OPERATOR
from app.publishing.rollback import Rollback
from app.registry.artifact.manifest_file import read_manifest_bytes
from app.registry.gate.gate_report import GateCheck, read_report, write_refusal
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer, Pointer
from app.settings import Settings
from tests.api.fakes import FakeService, application, client
from tests.factories import publish_tiny
from tests.waiting import HELD_S

pytestmark = pytest.mark.anyio

KEY = "correct horse"
HEADERS = {"X-Admin-Key": KEY}
ACTIONS = ("promote", "rollback", "refuse")


class FakeActions:
    """Promotions and rollbacks without a process: writes the pointer as they do, after `before`."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.calls: list[tuple[str, ...]] = []
        self.before: Callable[[], Any] = lambda: None

    def promote(self, version: int) -> Promotion:
        self.calls.append(("promote", str(version)))
        self.before()
        self.store.promote(version)
        return Promotion(self.store.name, version, "stable", None, Pointer(version))

    def roll_back(self, version: int | None = None) -> Rollback:
        self.calls.append(("rollback",) if version is None else ("rollback", str(version)))
        self.before()
        version = version or self.store.rollback_candidates(self.store.pointer().stable)[0]
        self.store.promote(version)
        return Rollback(self.store.name, "stable", version, [], Pointer(version))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    store = ModelStore(tmp_path_factory.mktemp("store"), "deepfm")
    for seed in range(2):
        publish_tiny(store, seed)
    publish_tiny(store, 2, labels=("canary", "shadow"))
    return store


@pytest.fixture
def actions(store: ModelStore, published: ModelStore) -> FakeActions:
    shutil.copytree(published.folder, store.folder)
    return FakeActions(store)


@pytest.fixture
def service(store: ModelStore, actions: FakeActions) -> FakeService:
    service = FakeService(store)
    service.admin = Admin(KEY, store, actions, service.metrics)  # type: ignore[attr-defined]
    return service


@pytest.fixture
def app(service: FakeService) -> FastAPI:
    app = application(service)
    app.include_router(admin.router)
    return app


async def post(app: FastAPI, action: str, body: Any = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    async with client(app) as http:
        return await http.post(f"/admin/{action}", content=content, headers=headers or HEADERS)


def count(service: FakeService, name: str) -> float:
    line = next((line for line in service.metrics.render()[0].decode().splitlines() if line.startswith(name)), "x 0")
    return float(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("key", [None, "", "correct horse ", "correct hors", "x" * 5000, "\xff\xe9"])
async def test_without_the_right_key_nothing_is_done_or_even_read(
    app: FastAPI, service: FakeService, actions: FakeActions, action: str, key: str | None
) -> None:
    headers = {"accept": "*/*"} if key is None else {"X-Admin-Key": key}
    before = service.model_store.pointer()
    with capture_logs() as logs:
        async with client(app) as http:
            response = await http.post(
                f"/admin/{action}", content=b"not JSON", headers={n: v.encode("latin-1") for n, v in headers.items()}
            )
    assert response.status_code == 401
    assert response.json()["type"] == "urn:ctr-serving:problem:unauthorized"
    assert count(service, "ctr_admin_keys_refused_total") == 1
    assert [line["event"] for line in logs] == ["admin_key_refused"]
    assert KEY not in str(logs)
    assert not key or key not in str(logs)
    assert (actions.calls, service.model_store.pointer()) == ([], before)


async def test_the_key_may_be_in_either_header(app: FastAPI, actions: FakeActions) -> None:
    assert (await post(app, "promote", {"version": 1}, **{"X-API-Key": KEY})).status_code == 200
    wrong_first = {"X-Admin-Key": "wrong", "X-API-Key": KEY}
    assert (await post(app, "promote", {"version": 1}, **wrong_first)).status_code == 401


def test_a_key_may_hold_any_text(store: ModelStore, actions: FakeActions, service: FakeService) -> None:
    ours = Admin("clé ✓", store, actions, service.metrics)
    assert ours.knows("clé ✓".encode().decode("latin-1")), "as a header arrives"
    assert not ours.knows("cl? ?")
    assert not ours.knows("\u2713\ud800")


@given(st.binary(max_size=200) | st.recursive(st.integers() | st.text() | st.floats() | st.none() | st.booleans(),
       lambda inner: st.lists(inner) | st.dictionaries(st.just("version") | st.text(), inner)).map(
       lambda value: json.dumps(value).encode()), st.sampled_from([VersionBody, OptionalVersionBody]))  # fmt: skip
def test_whatever_is_sent_is_a_version_or_a_problem(raw: bytes, body: type[VersionBody]) -> None:
    refused: RequestError | None = None
    version: int | None = None
    try:
        version = parse_body(raw, body).version
    except RequestError as error:
        refused = error
    if refused is not None:
        assert refused.status in (400, 413, 422)
        assert len(str(refused)) <= 300
    else:
        assert (version is None and body is OptionalVersionBody) or (type(version) is int and 1 <= version < 10**15)


async def test_promote_runs_the_command_and_leaves_a_line(
    app: FastAPI, service: FakeService, actions: FakeActions
) -> None:
    with capture_logs() as logs:
        response = await post(app, "promote", {"version": 3})
    assert response.status_code == 200
    assert response.json() == {
        "model": "deepfm", "version": 3, "labels": ["stable"], "serving": {"stable": 3}, "gate": None,
    }  # fmt: skip
    assert actions.calls == [("promote", "3")]
    assert [(line["event"], line["action"], line["version"], line["outcome"]) for line in logs] == [
        ("admin_action", "promote", 3, "done")
    ]
    assert count(service, 'ctr_admin_actions_total{action="promote",outcome="done"}') == 1


async def test_rollback_takes_a_version_or_none(app: FastAPI, actions: FakeActions) -> None:
    assert (await post(app, "rollback")).json()["version"] == 1
    assert (await post(app, "rollback", {})).json()["version"] == 2
    assert (await post(app, "rollback", {"version": 1})).json()["version"] == 1
    assert actions.calls == [("rollback",), ("rollback",), ("rollback", "1")]


async def test_refuse_takes_the_labels_away_and_stays(app: FastAPI, store: ModelStore) -> None:
    assert store.pointer() == Pointer(2, CanaryPointer(3, 0.05), 3)
    response = await post(app, "refuse", {"version": 3})
    assert response.status_code == 200
    assert response.json()["labels"] == ["canary", "shadow"]
    assert response.json()["serving"] == {"stable": 2}
    assert store.pointer() == Pointer(2)
    with pytest.raises(ArtifactError, match="an operator refused it"):
        store.load(3)
    assert (await post(app, "refuse", {"version": 3})).json()["labels"] == [], "again is no error"
    report = read_report(store.path(3))
    assert report is not None
    assert [check.name for check in report.checks].count(BY_OPERATOR.name) == 1
    stable = await post(app, "refuse", {"version": 2})
    assert (stable.status_code, stable.json()["type"]) == (409, "urn:ctr-serving:problem:conflict")
    assert store.pointer() == Pointer(2)


BAD: dict[str, tuple[bytes, int]] = {
    "not JSON": (b"{", 400),
    "not UTF-8": (b'{"version": "\xff"}', 400),
    "NaN": (b'{"version": NaN}', 400),
    "deep": (b"[" * 900, 400),
    "two documents": (b'{"version": 1} {"version": 1}', 400),
    "a list": (b"[1]", 422),
    "text": (b'{"version": "1"}', 422),
    "a path": (b'{"version": "../../etc"}', 422),
    "a fraction": (b'{"version": 1.5}', 422),
    "a boolean": (b'{"version": true}', 422),
    "nothing": (b'{"version": 0}', 422),
    "less": (b'{"version": -1}', 422),
    "2**70": (b'{"version": 1180591620717411303424}', 422),
    "a label too": (b'{"version": 1, "label": "canary"}', 422),
    "a path too": (b'{"version": 1, "path": "/tmp"}', 422),
    "force": (b'{"version": 1, "force": true}', 422),
    "large": (b" " * 1001, 413),
    "unknown": (b'{"version": 99}', 404),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", BAD)
async def test_a_version_number_and_nothing_else(app: FastAPI, actions: FakeActions, action: str, name: str) -> None:
    body, status = BAD[name]
    before = actions.store.pointer()
    response = await post(app, action, body)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 1000
    assert (actions.calls, actions.store.pointer()) == ([], before)


def test_a_version_is_an_integer_as_json_schema_has_it() -> None:
    for raw in (b'{"version": 3}', b'{"version": 3.0}', b'{"version": 3e0}'):
        assert parse_body(raw, VersionBody).version == 3
        assert parse_body(raw, OptionalVersionBody).version == 3
    for raw in (
        b'{"version": 3.5}',
        b'{"version": "3"}',
        b'{"version": true}',
        b'{"version": 1e16}',
        b'{"version": 0.0}',
    ):
        with pytest.raises(InvalidRequest):
            parse_body(raw, VersionBody)


async def test_a_gzip_body_is_read_here_too(app: FastAPI, actions: FakeActions) -> None:
    async with client(app) as http:
        body = gzip.compress(b'{"version": 3}')
        coded = await http.post("/admin/promote", content=body, headers={**HEADERS, "Content-Encoding": "gzip"})
        bomb = gzip.compress(b" " * 10_000_000)
        large = await http.post("/admin/promote", content=bomb, headers={**HEADERS, "Content-Encoding": "gzip"})
    assert (coded.status_code, large.status_code) == (200, 413)
    assert actions.calls == [("promote", "3")]


@pytest.mark.parametrize("action", ["promote", "refuse"])
async def test_these_need_a_version(app: FastAPI, action: str) -> None:
    assert (await post(app, action)).status_code == 400
    assert (await post(app, action, {})).status_code == 422


async def test_a_second_action_is_refused_at_once_and_the_loop_turns(
    app: FastAPI, store: ModelStore, service: FakeService, actions: FakeActions
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert go_on.wait(HELD_S)

    actions.before = wait
    first = asyncio.create_task(post(app, "promote", {"version": 3}))
    assert await asyncio.to_thread(begun.wait, HELD_S)
    other_worker = FakeService(ModelStore(store.folder.parent, store.name))
    other_worker.admin = Admin(KEY, other_worker.model_store, actions, other_worker.metrics)  # type: ignore[attr-defined]
    elsewhere = application(other_worker)
    elsewhere.include_router(admin.router)
    for service in (app, elsewhere):
        for action in ACTIONS:
            second = await post(service, action, {"version": 1})
            assert (second.status_code, second.json()["type"]) == (409, "urn:ctr-serving:problem:conflict")
    assert not first.done()
    go_on.set()
    assert (await first).status_code == 200
    assert (await post(app, "promote", {"version": 1})).status_code == 200
    assert len(actions.calls) == 2


async def test_what_the_gate_refuses_is_named_and_the_rest_is_not_our_fault(
    app: FastAPI, store: ModelStore, service: FakeService, actions: FakeActions
) -> None:
    def fail(error: Exception) -> None:
        def raises() -> None:
            raise error

        actions.before = raises

    fail(ArtifactError("file", "cannot write to the store: Read-only file system"))
    broken = await post(app, "promote", {"version": 3})
    assert (broken.status_code, broken.json()["type"]) == (503, "urn:ctr-serving:problem:action-failed")
    fail(ActionFailed("ctr promote did not end in time"))
    assert (await post(app, "promote", {"version": 3})).status_code == 503
    fail(ConfigError("deepfm 2 is stable and there is no earlier version to return to"))
    assert (await post(app, "rollback")).status_code == 409
    shifted = GateCheck("shift", False, "shift", "its mean score is 3.00 times that of version 2", comparison=True)

    def judged() -> None:
        write_refusal(store.path(3), 3, read_manifest_bytes(store.path(3)), shifted, 2)
        raise ArtifactError("shift", "version 3 is refused")

    actions.before = judged
    for calls in (4, 4):
        refused = await post(app, "promote", {"version": 3})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:ctr-serving:problem:version-refused")
        assert refused.json()["errors"] == [{"location": "shift", "message": f"shift: {shifted.detail}"}]
        assert len(actions.calls) == calls, "the second time it is known"
    (store.path(3) / "gate.json").unlink()
    fail(RuntimeError("a bug"))
    with capture_logs() as logs, pytest.raises(RuntimeError):
        await post(app, "promote", {"version": 3})
    assert ("admin_action", "internal-error") in [(line["event"], line.get("outcome")) for line in logs]
    actions.before = lambda: None
    assert (await post(app, "promote", {"version": 3})).status_code == 200, "the turn was given back each time"


async def test_a_store_that_is_not_there_is_said_so(app: FastAPI, store: ModelStore) -> None:
    store.folder.rename(store.folder.with_name("elsewhere"))
    gone = await post(app, "promote", {"version": 3})
    assert (gone.status_code, gone.json()["type"]) == (503, "urn:ctr-serving:problem:action-failed")


async def test_openapi_knows_the_routes(app: FastAPI, service: FakeService) -> None:
    async with client(app) as http:
        document = (await http.get("/openapi.json")).json()
        assert (await http.get("/admin/promote")).status_code == 405
    async with client(application(service)) as http:
        assert (await http.post("/admin/promote", headers=HEADERS)).status_code == 404, "off without a key"
        assert not any("admin" in path for path in (await http.get("/openapi.json")).json()["paths"])
    for action in ACTIONS:
        operation = document["paths"][f"/admin/{action}"]["post"]
        assert operation["requestBody"]["required"] is (action != "rollback")
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        named = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        assert list(named["properties"]) == ["version"]
        assert named["additionalProperties"] is False
        assert {"401", "404", "409", "422", "503"} <= set(operation["responses"])
        assert operation["security"]
    assert document["components"]["securitySchemes"]["AdminKey"]["name"] == "X-Admin-Key"


async def test_a_service_with_keys_for_callers_asks_an_admin_for_the_admins_only(
    store: ModelStore, actions: FakeActions, tmp_path: Path
) -> None:
    store_settings = {
        "model_store": store.folder.parent,
        "model": store.name,
        "data_dir": tmp_path,
        "redis_url": "unix:///none",
    }
    for admin_key, statuses in ((KEY, (401, 401, 200)), ("", (401, 404, 401)), (None, (401, 404, 401))):
        service = create_app(
            Settings(**store_settings, api_keys="callers", admin_key=admin_key),  # type: ignore[arg-type]
            store=MemoryFeatureStore(),
        )
        async with client(service) as http:
            answers = [
                await http.post("/admin/refuse", content=b'{"version": 3}', headers=headers)
                for headers in ({}, {"X-API-Key": "callers"}, HEADERS)
            ]
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/models", headers=HEADERS)).status_code == 401, "it opens nothing else"
        assert tuple(answer.status_code for answer in answers) == statuses
        assert all(answer.headers["x-request-id"] for answer in answers)
