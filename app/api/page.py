"""GET / and GET /docs: the page to try the service with and the page about its routes, without outside resources."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from html import escape
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse

WEB = Path(__file__).parent.parent / "web"
PAGES = {"/": "index.html", "/docs": "docs.html", "/redoc": "docs.html"}
LINK_TO_DOCS = '<a href="docs">API</a>'
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def router(root_path: str = "", *, docs: bool = True) -> APIRouter:
    """Return the routes of the pages.

    Args:
        docs: show the page about the routes.
        root_path: the sub-path below which a proxy shows them. Their links are relative, so they work behind a proxy
            that nobody told the service about; with a `<base>` also where the path has no slash at its end.
    """
    routes = APIRouter()
    for path, name in PAGES.items():
        if not docs and path != "/":
            continue
        text = (WEB / name).read_text(encoding="utf-8")
        if not docs:
            text = text.replace(LINK_TO_DOCS, "")
        if root_path:
            text = text.replace("<head>", f'<head>\n<base href="{escape(root_path)}/">', 1)
        routes.add_api_route(path, _page(text), methods=["GET"], include_in_schema=False)
    return routes


def _page(text: str) -> Callable[[], Awaitable[HTMLResponse]]:
    async def page() -> HTMLResponse:
        """Answer with the page."""
        return HTMLResponse(text, headers=HEADERS)

    return page
