"""The page of docs/clients.md in a Chromium, from an origin that may call the service and from one that may not."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from prometheus_client.parser import text_string_to_metric_families

from app.features.loading.embedded_valkey import EmbeddedValkey
from app.registry.store.model_store import ModelStore
from tests import loopback
from tests.e2e.browser import PATIENCE_MS, chromium
from tests.e2e.conftest import Running, services
from tests.factories import MODEL_NAME, publish_tiny
from tests.pages import ROOT, blocks
from tests.waiting import until

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")
pytestmark = pytest.mark.slow

expect.set_options(timeout=PATIENCE_MS)
(SNIPPET,) = blocks((ROOT / "docs" / "clients.md").read_text(), "html")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Site:
    """A site of its own beside a service, whose pages may call it from one origin of two."""

    service: Running
    folder: Path
    allowed: str
    other: str
    """The same server by another name, which is another origin."""

    def write(self, name: str, html: str) -> None:
        (self.folder / name).write_text(
            f"<!doctype html><meta charset=utf-8><title>Shop</title><link rel=icon href='data:,'>{html}"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    store = ModelStore(folder / "model_store", MODEL_NAME)
    publish_tiny(store)
    (folder / "pages").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder / "pages")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origins = [f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost")]
    try:
        with EmbeddedValkey(folder / "valkey") as valkey, services(store, valkey.url, folder / "data") as start:
            service = start(
                EVENTS=str(folder / "events"), CORS_ORIGINS=f"https://shop.example,{origins[0]}", METRICS="open"
            )
            yield Site(service, folder / "pages", *origins)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def snippet_of(site: Site) -> str:
    text = SNIPPET.replace("https://ctr.example", site.service.url)
    return text.replace("timeout(1000)", f"timeout({PATIENCE_MS})")  # on a busy machine


def clicks(site: Site) -> float:
    """Return how many clicks the service has taken."""
    families = text_string_to_metric_families(loopback.get(f"{site.service.url}/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(
        sample.value for sample in samples if sample.name == "ctr_feedback_total" and sample.labels["type"] == "click"
    )


def test_the_page_of_the_documentation_ranks_and_sends_clicks(site: Site, page: Page) -> None:
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(error.message))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    site.write("shop.html", snippet_of(site))
    before = clicks(site)
    page.goto(f"{site.allowed}/shop.html")
    entries = page.locator("#ranking li")
    expect(entries).to_have_count(3)
    texts = entries.all_inner_texts()
    assert {text.split()[0] for text in texts} == {"50", "181", "172"}
    assert all(re.fullmatch(r"\d+ 0\.\d{3}", text) for text in texts)
    scores = [float(text.split()[1]) for text in texts]
    assert scores == sorted(scores, reverse=True)
    with page.expect_response(f"{site.service.url}/feedback") as sent:
        entries.first.click()
    assert sent.value.status == 202
    assert sent.value.json()["accepted"] == 1
    assert errors == []
    until(lambda: clicks(site) == before + 1)  # counted as it is written, after the answer: the next test counts too


def test_a_click_that_leaves_the_page_arrives(site: Site, page: Page) -> None:
    site.write("elsewhere.html", "")
    leave = "<script>addEventListener('click', () => { location.href = 'elsewhere.html'; });</script>"
    site.write("leaving.html", snippet_of(site) + leave)
    before = clicks(site)
    page.goto(f"{site.allowed}/leaving.html")
    expect(page.locator("#ranking li")).to_have_count(3)
    page.locator("#ranking li").first.click()
    page.wait_for_url("**/elsewhere.html")
    until(lambda: clicks(site) == before + 1)


def test_a_page_can_read_problems_and_headers_and_send_a_key(site: Site, page: Page) -> None:
    site.write("bare.html", "")
    page.goto(f"{site.allowed}/bare.html")
    read = page.evaluate(
        """async url => {
          const headers = { "Content-Type": "application/json", "X-API-Key": "a key", "X-Request-Timeout-Ms": "60000" };
          const send = body => fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
          const refused = await send({ item_ids: [] }), ranked = await send({ item_ids: ["1"], request_id: "mine" });
          return [refused.status, (await refused.json()).type, ranked.headers.get("X-Request-ID"),
            ranked.headers.get("X-Model-Version"), ranked.headers.get("Server-Timing")];
        }""",
        f"{site.service.url}/rank",
    )
    assert read[:2] == [422, "urn:ctr-serving:problem:invalid-request"]
    assert read[3] == "1"
    assert read[2]
    assert "score" in read[4]


def test_a_page_of_another_origin_reads_nothing(site: Site, page: Page) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    site.write("shop.html", snippet_of(site))
    with page.expect_event("pageerror") as failed:
        page.goto(f"{site.other}/shop.html")
    assert "Failed to fetch" in failed.value.message
    assert any("blocked by CORS policy" in error for error in errors), errors
    expect(page.locator("#ranking li")).to_have_count(0)
    forms = page.evaluate(
        """async url => {
          try { return (await fetch(url)).status; } catch (error) { return error.message; }
        }""",
        f"{site.service.url}/health",
    )
    assert forms == "Failed to fetch", "not even what needs no preflight"
