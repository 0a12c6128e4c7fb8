"""GET / and GET /docs: the page to try the service with and the page about its routes, without outside resources.

Their scripts and styles are files of `app/web`, so that the policy of their content allows none in the pages.
"""

from __future__ import annotations

import hashlib
from html import escape
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from app.api.problems import documented_problems
from app.api.service_state import ServiceState, service_of
from app.errors import NotFound
from app.runtime.durable_file import read_regular_file
from app.runtime.thread_priority import on_background_thread

WEB = Path(__file__).parent.parent / "web"
PAGES = {"/": "index.html", "/docs": "docs.html", "/redoc": "docs.html"}
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
FILES = {f"/web/{file.name}": file for file in sorted(WEB.iterdir()) if file.suffix in TYPES}
"""Path to the file that is served there."""
LINK_TO_DOCS, LINK_TO_METRICS = '<a href="docs">API</a>', '<a href="metrics">Metrics</a>'
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
REPORT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""A report is a page of a version, which holds its own style; no script of it runs."""
NO_REPORT = documented_problems({404: "The version has no report"})
MAX_REPORT_BYTES = 20_000_000


def router(root_path: str = "", *, docs: bool = True, metrics: bool = True, admin: bool = False) -> APIRouter:
    """Return the routes of the pages.

    Args:
        root_path: the sub-path below which a proxy shows them. Their links are relative, so they work behind a proxy
            that nobody told the service about; with a `<base>` also where the path has no slash at its end.
        docs: show the page about the routes.
        metrics: whether there are metrics to link to.
        admin: whether the port has the admin's routes, so that the page offers to promote and to roll back.
    """
    routes = APIRouter()
    for path, name in PAGES.items():
        if not docs and path != "/":
            continue
        text = (WEB / name).read_text(encoding="utf-8")
        if not docs:
            text = text.replace(LINK_TO_DOCS, "")
        if not metrics:
            text = text.replace(LINK_TO_METRICS, "")
        if admin:
            text = text.replace("<html ", "<html data-admin ", 1)
        if root_path:
            text = text.replace("<head>", f'<head>\n<base href="{escape(root_path)}/">', 1)
        _serve(routes, path, text.encode(), "text/html; charset=utf-8")
    for path, file in FILES.items():
        _serve(routes, path, file.read_bytes(), TYPES[file.suffix])

    @routes.get("/models/{version}/report", response_class=HTMLResponse, tags=["models"], responses=NO_REPORT)
    async def training_report(service: Annotated[ServiceState, Depends(service_of)], version: int) -> Response:
        """Answer with the report of a version's training, as `ctr train` wrote it."""
        path = service.model_store.path(version) / "report.html"
        try:
            page = await on_background_thread(read_regular_file, path, MAX_REPORT_BYTES)
        except OSError:
            raise NotFound(f"version {version} has no report here") from None
        return HTMLResponse(page, headers=REPORT_HEADERS)

    return routes


def _serve(routes: APIRouter, path: str, body: bytes, media_type: str) -> None:
    """Add a route that answers with the bytes, or says to a browser that has them that they are still the same."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    async def answer(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    routes.add_api_route(path, answer, methods=["GET"], include_in_schema=False)
