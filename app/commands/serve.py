"""`ctr serve`: runs the service."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.completion import published_models
from app.commands.feature_store import with_redis_url
from app.commands.output import AsJson, emit, notify

APPLICATION = "app.main:create_app"
"""Makes the served application; a string, so that only processes that serve import it, and torch with it."""


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [CTR_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [CTR_PORT]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; one per free core. [CTR_WORKERS]")] = None,
    model: Annotated[
        str | None, typer.Option(help="Model in the model store. [CTR_MODEL]", autocompletion=published_models)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve POST /rank until interrupted.

    Features come from CTR_REDIS_URL, or from an embedded Valkey where that is empty. --json prints the address once it
    listens.

    Example: ctr serve --port 8000 --workers 2
    """
    from app.runtime.processes.serve import serve as run
    from app.settings import load_settings

    settings = load_settings(host=host, port=port, workers=workers, model=model)
    embedded = not settings.redis_url
    with with_redis_url(settings) as settings:
        if embedded:
            notify(f"features come from an embedded Valkey in {settings.data_dir / 'valkey'}")

        def announce(url: str) -> None:
            notify(f"serving {settings.model} on {url}")
            if as_json:
                emit({"model": settings.model, "url": url})

        run(settings, APPLICATION, announce)
