"""The whole application, without a network: what it makes of methods, paths, sub-paths and origins."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.api import admin
from app.api.middleware import OPEN_PATHS
from app.api.plain_requests import plain_path
from app.features.memory_store import MemoryFeatureStore
from app.header_keys import hashed
from app.main import Application, create_app
from app.registry.store.model_store import ModelStore
from app.settings import Settings
from tests.api.fakes import client

pytestmark = pytest.mark.anyio

Make = Callable[..., Application]
BODY = {"user_id": "1", "item_ids": ["1"]}
SHOP = "https://shop.example"
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,x-api-key",
}


@pytest.fixture
def make(store: ModelStore) -> Make:
    def make(**settings: Any) -> Application:
        return create_app(
            Settings(_env_file=None, model_store=store.folder.parent, model=store.name, **settings),
            store=MemoryFeatureStore(),
        )

    return make


def reached_rank(response: httpx.Response) -> bool:
    """Whether POST /rank answered: nothing is live, which no other route says so."""
    return response.status_code == 503 and response.json()["type"].endswith(":no-model")


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_head_is_get_without_the_body(make: Make, path: str) -> None:
    async with client(make()) as http:
        whole, head = await http.get(path), await http.head(path)
    assert head.status_code == whole.status_code
    assert head.content == b""
    assert whole.content
    names = ("content-type", "content-length", "cache-control", "content-security-policy")
    if path == "/metrics":
        names = ("content-type",)
    assert [head.headers.get(name) for name in names] == [whole.headers.get(name) for name in names]


async def test_a_method_that_a_route_does_not_take_is_named_with_those_that_it_takes(make: Make) -> None:
    async with client(make(admin_key="key")) as http:
        for method, path, allowed in (
            ("GET", "/rank", "POST"),
            ("HEAD", "/rank", "POST"),
            ("PUT", "/rank", "POST"),
            ("OPTIONS", "/rank", "POST"),
            ("POST", "/health", "GET, HEAD"),
            ("DELETE", "/", "GET, HEAD"),
            ("GET", "/admin/promote", "POST"),
        ):
            response = await http.request(method, path)
            assert (response.status_code, response.headers["allow"]) == (405, allowed), (method, path)
            if method != "HEAD":
                assert f"takes {allowed}" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/rank", "/rank/", "//rank", "///rank//", "/rank?a=1", "/r%61nk/?b"])
async def test_slashes_that_are_too_many_do_not_matter_and_nothing_is_redirected(make: Make, path: str) -> None:
    async with client(make()) as http:
        headers = {"X-Forwarded-Proto": "https"}
        assert reached_rank(await http.post("http://service" + path, json=BODY, headers=headers))


async def test_no_route_is_redirected(make: Make) -> None:
    async with client(make(admin_key="key")) as http:
        for path in [*OPEN_PATHS, "/models"]:
            plain = await http.get(path)
            for form in (path + "/", "/" + path, path.replace("/", "//") + "//"):
                response = await http.get(f"http://service{form}")
                assert response.status_code == plain.status_code, form
                assert response.headers["content-type"] == plain.headers["content-type"]
        assert (await http.post("/admin/refuse/")).status_code == 401
        for path in ("/ranks", "/rank/1", "/health/x/", "/.env"):
            response = await http.get(path)
            assert response.status_code == 404, path
            assert "location" not in response.headers


async def test_a_slash_opens_nothing_that_needs_a_key(make: Make) -> None:
    async with client(make(api_keys="key", root_path="/ctr")) as http:
        for path in ("/rank/", "//rank", "/models/", "/ctr/models", "/ctr//models/"):
            assert (await http.get(f"http://service{path}")).status_code == 401, path
        for path in ("/health/", "//metrics", "/ctr/health/live", "/ctr"):
            assert (await http.get(f"http://service{path}")).status_code in (200, 503), path


@pytest.mark.parametrize("root_path", ["", "/ctr", "/a/b"])
@pytest.mark.parametrize("passed_on", [True, False])
async def test_a_sub_path_that_the_proxy_passes_on_or_cuts_off(make: Make, root_path: str, passed_on: bool) -> None:
    prefix = root_path if passed_on else ""
    async with client(make(root_path=root_path)) as http:
        assert reached_rank(await http.post(f"{prefix}/rank", json=BODY))
        document = (await http.get(f"{prefix}/openapi.json")).json()
        assert document.get("servers") == ([{"url": root_path}] if root_path else None)
        for path in ("/", "/docs", "/redoc"):
            page = (await http.get(f"{prefix}{path}")).text
            assert (f'<base href="{root_path}/">' in page) == bool(root_path)
            assert not re.findall(r"""(?:href=|src=|fetch\()["']/(?!/)(?!ctr/|a/b/)""", page), "all links are relative"
        assert (await http.get(f"{root_path}x/health/live")).status_code == 404


def test_the_plain_form_of_a_path() -> None:
    for path, root_path, plain in (
        ("/rank/", "", "/rank"),
        ("/", "", "/"),
        ("//", "", "/"),
        ("", "", "/"),
        ("/ctr", "/ctr", "/"),
        ("/ctr/", "/ctr", "/"),
        ("//ctr//rank", "/ctr", "/rank"),
        ("/ctrl/rank", "/ctr", "/ctrl/rank"),
        ("/ctr/ctr/rank", "/ctr", "/ctr/rank"),
    ):
        assert plain_path(path, root_path) == plain


@pytest.mark.parametrize("keys", ["", "first,second"])
async def test_a_preflight_needs_no_key(make: Make, keys: str) -> None:
    async with client(make(cors_origins=f"{SHOP}/, http://localhost:3000", api_keys=keys)) as http:
        for path in ("/rank", "/rank/", "/models"):
            allowed = await http.options(path, headers=PREFLIGHT)
            assert allowed.status_code == 200
            assert allowed.headers["access-control-allow-origin"] == SHOP
            assert "POST" in allowed.headers["access-control-allow-methods"]
            assert {"content-type", "x-api-key"} <= set(
                re.split(", *", allowed.headers["access-control-allow-headers"].lower())
            )
        other = await http.options("/rank", headers={**PREFLIGHT, "Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        answer = await http.post("/rank", json=BODY, headers={"Origin": SHOP, "X-API-Key": "second"})
        assert reached_rank(answer)
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        if keys:
            refused = await http.post("/rank", json=BODY, headers={"Origin": SHOP})
            assert refused.status_code == 401
            assert refused.headers["access-control-allow-origin"] == SHOP, "the page can read why"
        large = await http.post("/rank", content=b"x" * 700_000, headers={"Origin": SHOP, "X-API-Key": "first"})
        assert large.status_code == 413
        assert large.headers["access-control-allow-origin"] == SHOP


async def test_every_origin(make: Make) -> None:
    async with client(make(cors_origins="*")) as http:
        assert (await http.options("/rank", headers=PREFLIGHT)).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("keys", ["", "first"])
async def test_without_origins_no_page_elsewhere_is_allowed(make: Make, keys: str) -> None:
    async with client(make(api_keys=keys)) as http:
        response = await http.options("/rank", headers=PREFLIGHT)
        assert response.status_code == 405, "with a key or without"
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert (await http.options("/models")).headers["allow"] == "GET, HEAD"


async def test_the_pages_need_nothing_from_outside(make: Make) -> None:
    async with client(make()) as http:
        for path in ("/", "/docs", "/redoc"):
            response = await http.get(path)
            assert response.headers["content-type"] == "text/html; charset=utf-8"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            assert not re.findall(r"""(?:src|href)=["'](?:https?:|//)[^"']*|@import|url\(""", response.text), path
            assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", response.text), path


async def test_the_pages_about_the_routes_can_be_left_out(make: Make) -> None:
    async with client(make(docs=False)) as http:
        for path in ("/docs", "/redoc", "/openapi.json"):
            response = await http.get(path)
            assert response.status_code == 404
            assert "/docs" not in response.json()["detail"]
        page = await http.get("/")
        assert page.status_code == 200
        assert 'href="docs"' not in page.text
    async with client(make()) as http:
        assert 'href="docs"' in (await http.get("/")).text, "the link that is left out above"


@pytest.mark.parametrize(("metrics", "without", "with_key"), [("open", 200, 200), ("key", 401, 200), ("off", 404, 404)])
async def test_the_metrics_are_for_all_for_keys_or_for_nobody(
    make: Make, metrics: str, without: int, with_key: int
) -> None:
    app = make(metrics=metrics, api_keys="secret", docs=True)
    async with client(app) as http:
        if metrics == "off":
            assert (await http.get("/metrics")).status_code == without
        else:
            assert (await http.get("/metrics")).status_code == without
            assert (await http.get("/metrics", headers={"X-API-Key": "secret"})).status_code == with_key
        paths = (await http.get("/openapi.json")).json()["paths"]
    assert ("/metrics" in paths) == (metrics != "off")
    if metrics != "off":
        assert ("security" in paths["/metrics"]["get"]) == (metrics == "key")


async def test_the_openapi_document_is_made_once_and_beside_the_loop(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, made_on = make(), []
    document = app.fastapi.openapi
    monkeypatch.setattr(app.fastapi, "openapi", lambda: (made_on.append(threading.current_thread()), document())[1])
    async with client(app) as http:
        first = await http.get("/openapi.json")
        assert threading.main_thread() not in made_on
        monkeypatch.setattr(app.fastapi, "openapi", lambda: pytest.fail("made again"))
        assert (await http.get("/openapi.json")).content == first.content


async def test_the_admin_is_on_a_port_of_its_own_and_on_no_other(make: Make) -> None:
    app = make(admin_key=hashed("key", "operator"), admin_port=9001, api_keys="callers")
    headers = {"X-Admin-Key": "key", "X-API-Key": "callers"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service:8000", headers=headers) as callers:
        assert reached_rank(await callers.post("/rank", json=BODY))
        for path in admin.PATHS:
            answer = await callers.post(path, json={"version": 1})
            assert (answer.status_code, answer.json()["type"]) == (404, "urn:ctr-serving:problem:not-found")
    async with httpx.AsyncClient(transport=transport, base_url="http://service:9001", headers=headers) as operators:
        for path in admin.PATHS:
            answer = await operators.post(path, json={"version": 1})
            assert answer.json()["type"].endswith((":action-failed", ":not-found")), answer.text
            assert answer.json()["detail"] != "this port does not serve it", "the action itself says what is wrong"
        refused = await operators.post("/admin/promote", json={"version": 1}, headers={"X-Admin-Key": "another"})
        assert refused.status_code == 401
        for path in ("/rank", "/models", "/metrics", "/"):
            answer = await operators.request("POST" if path == "/rank" else "GET", path)
            assert (answer.status_code, answer.json()["detail"]) == (404, "this port does not serve it")


async def test_all_but_ranking_and_probes_wait_for_a_turn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    app, waited = make(), 0

    async def next_turn() -> None:
        nonlocal waited
        waited += 1

    monkeypatch.setattr(app.service.turns, "next", next_turn)
    async with client(app) as http:
        for path in ("/health/live", "/health/ready"):
            await http.get(path)
        assert reached_rank(await http.post("/rank", json=BODY))
        assert waited == 0
        for path in ("/health", "/metrics", "/models", "/docs", "/openapi.json", "/"):
            assert (await http.get(path)).status_code in (200, 503)
            assert (await http.head(path)).status_code in (200, 503)
    assert waited == 12


async def test_pages_that_are_asked_for_too_often_are_refused_and_probes_and_health_are_not(make: Make) -> None:
    app = make()
    app._spaced_open._next_at = time.monotonic() + 1000
    async with client(app) as http:
        for path in ("/metrics", "/docs", "/"):
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["status"]) == (503, 503)
            assert int(refused.headers["Retry-After"]) >= 1
        for path in ("/health/live", "/health", "/health/ready", "/models"):
            answer = await http.get(path)
            assert "more often" not in answer.text
        assert reached_rank(await http.post("/rank", json=BODY))
