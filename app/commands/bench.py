"""`ctr bench rank`: puts load on a running service."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.output import AsJson, console, emit, show_table, warn
from app.commands.service_options import UNAUTHORIZED, ApiKey, address_and_key, key_advice


def rank(
    url: Annotated[str | None, typer.Option(help="The service.", show_default="that of CTR_HOST and CTR_PORT")] = None,
    candidates: Annotated[int, typer.Option(min=1, help="Item ids in a request.")] = 100,
    users: Annotated[int, typer.Option(min=1, help="User ids are drawn from 1 to this.")] = 943,
    items: Annotated[int, typer.Option(min=1, help="Item ids are drawn from 1 to this.")] = 1682,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="How long.")] = 10.0,
    concurrency: Annotated[int, typer.Option(min=1, max=1024, help="Requests at work at once (closed loop).")] = 8,
    rate: Annotated[float, typer.Option(min=0, help="Arrivals a second (open loop); 0 for the closed loop.")] = 0.0,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Send ranking requests to a running service and report rates, latencies and versions.

    Users and items are numbers, as those of the demo are; those of other services are unknown to them. A service that
    records its answers (CTR_EVENTS) records these too: measure one that does not, or that is not trained from.

    Exit status: 0 all requests were answered; 1 some failed.

    Example: ctr bench rank --candidates 500 --rate 200 --seconds 30
    """
    import asyncio

    import uvloop

    from app.loadgen.generator import LoadGenerator
    from app.loadgen.requests import rank_bodies

    url, api_key = address_and_key(url, api_key)
    bodies = rank_bodies([str(n) for n in range(1, users + 1)], [str(n) for n in range(1, items + 1)], candidates)
    generator = LoadGenerator(url, bodies, headers={"X-API-Key": api_key} if api_key else None)

    async def run() -> None:
        work = generator.open(rate, seconds) if rate else generator.closed(concurrency, seconds)
        task = asyncio.create_task(work)
        with console.status("sending") as status:
            while not task.done():
                await asyncio.wait([task], timeout=0.5)
                result = generator.result
                versions = ", ".join(str(version) for version in sorted(result.versions)) or "none"
                answered = result.statuses[200]
                status.update(f"{answered} answered, {result.failed} failed, versions seen: {versions}")
        await task

    uvloop.run(run())
    summary = generator.result.summary()
    if as_json:
        emit(summary)
    else:
        _show(summary)
    if generator.result.statuses[UNAUTHORIZED]:
        warn(f"{url} asks for an API key; {key_advice(api_key)}")
    if summary["failed"]:
        raise typer.Exit(1)


def _show(summary: dict[str, object]) -> None:
    from rich.table import Table

    table = Table("figure", "value")
    for name, value in summary.items():
        figures = value.items() if isinstance(value, dict) else [("", value)]
        for suffix, figure in figures:
            table.add_row(f"{name} {suffix}".strip(), str(figure))
    show_table(table)
