"""Makes the pictures of the page that the documentation shows, of a service that runs with a catalogue.

ctr demo &
python -m tests.e2e.page_pictures http://127.0.0.1:8000 docs/images
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.e2e.browser import chromium, opened

VIEWS = ("rank", "compare", "versions", "live")


def take_pictures(browser: Browser, url: str, folder: Path) -> list[Path]:
    """Take a picture of each view, and of why an item came first."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("page.png", "page-why.png", *(f"page-{view}.png" for view in VIEWS[1:]))
    pictures = [folder / name for name in names]
    with opened(browser, url) as page:
        page.locator("#add-all").click()
        page.get_by_role("button", name="Rank", exact=True).click()
        expect(page.locator("#rows tr").first).to_be_visible()
        page.get_by_text("what if they were others").click()
        page.get_by_label("hour").fill("21")
        expect(page.locator("#what-if")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=pictures[0])
        page.locator("#rows button").first.click()
        expect(page.locator(".explanation")).to_be_visible()
        page.locator("section[aria-labelledby=answer-title]").screenshot(path=pictures[1])
        for view, picture in zip(VIEWS[1:], pictures[2:], strict=True):
            page.locator(f"nav a[href='#{view}']").click()
            if view == "compare":
                page.get_by_role("button", name="Compare", exact=True).click()
                expect(page.locator("#compare-table")).to_be_visible()
            if view == "versions":
                expect(page.get_by_role("article").first).to_be_visible()
            if view == "live":
                expect(page.locator(".tile").first).to_be_visible()
            page.screenshot(path=picture)
    return pictures


if __name__ == "__main__":
    with chromium() as started:
        for path in take_pictures(started, sys.argv[1], Path(sys.argv[2])):
            print(path)
