"""A Chromium for the tests of the page, and what has to hold of whatever it shows."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 60_000
"""A busy machine takes its time; what a page never shows is waited for so long."""
SERIOUS = ("serious", "critical")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium that the machine has, or skip the test."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium here: none of {', '.join(NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, *, width: int = 1200, dark: bool = False, refused: int = 0) -> Iterator[Page]:
    """Open a page. At the end nothing has gone wrong in it, and it has asked nobody but its own service.

    Args:
        refused: how many answers of 4xx and 5xx, which a browser's console tells of, are meant.
    """
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    hosts: set[str] = set()
    page.on("pageerror", lambda error: errors.append(f"{error.name}: {error.message}"))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: hosts.add(request.url.split("?")[0]))
    try:
        page.goto(url)
        yield page
        meant = [error for error in errors if "Failed to load resource" in error and re.search(" [45]..", error)]
        assert len(meant) <= refused, errors
        assert [error for error in errors if error not in meant] == []
        origin = "/".join(url.split("/")[:3])
        assert all(host.startswith((origin, "data:", "blob:")) for host in hosts), hosts
    finally:
        page.close()


def assert_accessible(page: Page) -> None:
    """Check what axe-core finds on the page as it is now."""
    found = Axe().run(page).response["violations"]
    serious = [
        f"{violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]
    assert not serious, "\n".join(serious)
