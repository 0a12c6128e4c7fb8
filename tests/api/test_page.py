"""GET / and the files of the page: what a browser is allowed, told and sent again."""

from __future__ import annotations

import re

import pytest

from app.api.page import FILES, PAGES, WEB
from app.features.memory_store import MemoryFeatureStore
from app.main import create_app
from app.registry.store.model_store import ModelStore
from app.settings import Settings
from tests.api.fakes import FakeService, application, client
from tests.factories import publish_files, written

pytestmark = pytest.mark.anyio


async def test_pages_hold_no_scripts_and_no_styles_and_their_policy_allows_none(store: ModelStore) -> None:
    async with client(application(FakeService(store))) as http:
        for path in PAGES:
            response = await http.get(path)
            policy = response.headers["content-security-policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert not re.findall(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", response.text)


async def test_all_files_that_pages_name_are_served_and_none_other(store: ModelStore) -> None:
    texts = [file.read_text() for file in WEB.iterdir()]
    named = {name for text in texts for name in re.findall(r'(?:web/|from "\./)([\w.]+)"', text)}
    assert {f"/web/{name}" for name in named} == set(FILES)
    async with client(application(FakeService(store))) as http:
        for path, file in FILES.items():
            response = await http.get(path)
            assert response.content == file.read_bytes()
            kept = await http.get(path, headers={"If-None-Match": response.headers["etag"]})
            assert (kept.status_code, kept.content) == (304, b"")
        assert (await http.get("/web/index.html")).status_code == 404


@pytest.mark.parametrize("settings", [{}, {"admin_key": "k"}, {"admin_key": "k", "admin_port": 9001}])
async def test_the_page_offers_the_admins_actions_where_its_port_has_them(settings: dict[str, object]) -> None:
    app = create_app(Settings(_env_file=None, **settings), store=MemoryFeatureStore())
    async with client(app) as http:
        page = (await http.get("/")).text
    assert ("<html data-admin" in page) == (settings.keys() == {"admin_key"})


@pytest.mark.parametrize("metrics", ["open", "off"])
async def test_the_page_links_to_metrics_where_there_are_some(metrics: str) -> None:
    async with client(create_app(Settings(_env_file=None, metrics=metrics), store=MemoryFeatureStore())) as http:
        assert ('href="metrics"' in (await http.get("/")).text) == (metrics == "open")


async def test_a_report_is_shown_and_none_of_its_scripts_may_run(store: ModelStore) -> None:
    version = publish_files(store, {**written(0, "deepfm"), "report.html": b"<title>r</title><script>1</script>"})
    without = publish_files(store, written(1, "deepfm"))
    async with client(application(FakeService(store))) as http:
        report = await http.get(f"/models/{version}/report")
        assert (report.status_code, report.text[:16]) == (200, "<title>r</title>")
        assert "sandbox" in report.headers["content-security-policy"]
        assert "script-src" not in report.headers["content-security-policy"]
        for path in (f"/models/{without}/report", "/models/99/report", "/models/-1/report", "/models/0/report"):
            assert (await http.get(path)).status_code == 404
        assert (await http.get("/models/x/report")).status_code == 422
