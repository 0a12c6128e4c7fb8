"""`ctr audience`: simulated people click on what the demo ranks, and the service learns from it while you watch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.demo import RUN_CTR
from app.commands.output import AsJson, emit, notify
from app.errors import ConfigError, CtrError

if TYPE_CHECKING:
    import httpx

    from app.loadgen.audience import Audience, Visits
    from app.settings import Settings

WINDOW_S, EVERY_S, LAG_S = 5, 5, 6
"""The audience clicks at once, so what became of an answer is known seconds later; otherwise it takes half an hour."""
NEW_VERSION_S = 60.0


def audience(
    url: Annotated[str, typer.Option(help="The demo's service.")] = "http://127.0.0.1:8000",
    clicks: Annotated[int, typer.Option(min=10, help="Clicks before and after the new version.")] = 500,
    seed: Annotated[int, typer.Option(help="Of what the audience likes.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate an audience of the demo: rank, click, join, retrain, and compare before and after.

    Nobody real clicks: the audience likes what viewers of MovieLens like, and some genres more than they do and others
    less, as drawn from the seed. The service runs with
    CTR_EVENTS, as `ctr demo` sets it; the commands that are run for you are printed.

    Example: ctr audience --url http://127.0.0.1:8000
    """
    import httpx

    from app.settings import load_settings

    settings = load_settings()
    if not settings.events:
        raise ConfigError("CTR_EVENTS is not set: what the audience does is learned from the event log")
    began = time.perf_counter()
    with httpx.Client(base_url=url) as http:
        crowd = _audience(settings, http, seed)
        notify(f"[audience] simulated users ask {url}, and click by a taste of their own; nobody real does")
        before = _visit(crowd, clicks)
        _say(before, "before")
        joined = settings.data_dir / "joined"
        spans = ["--window", f"{WINDOW_S}s", "--every", f"{EVERY_S}s"]
        _run(["join", "--events", settings.events, "--out", str(joined), *spans], WINDOW_S + EVERY_S + LAG_S)
        _run(["retrain", "--dataset", "served", "--data", str(joined), "--warm"])
        _wait_for_other(http, before)
        seconds = time.perf_counter() - began
        notify(
            f"[audience] the version that learned from these clicks is live, {seconds:.0f} s after the first of them"
        )
        after = _visit(crowd, clicks)
        _say(after, "after")
    if as_json:
        copc = {"before": round(before.copc, 4), "after": round(after.copc, 4)}
        emit({"copc": copc, "versions": [*before.versions, *after.versions], "seconds": round(seconds, 1)})


def _audience(settings: Settings, http: httpx.Client, seed: int) -> Audience:
    from app.loadgen.audience import USUAL_SHARE, Audience, Film
    from app.publishing.demo_features import exported_by_demo

    folder = exported_by_demo(settings)
    try:
        users = [json.loads(line)["id"] for line in (folder / "users.jsonl").read_text().splitlines()]
        items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    except (OSError, ValueError, KeyError) as error:
        raise CtrError(
            f"{folder}: the demo's users and items cannot be read ({error}); run `ctr demo` first"
        ) from error
    films = {item["id"]: Film(item.get("genres") or [], item.get("item_like_share") or USUAL_SHARE) for item in items}
    return Audience(http, users, films, seed)


def _visit(crowd: Audience, clicks: int) -> Visits:
    import httpx

    try:
        return crowd.visit(clicks)
    except httpx.HTTPError as error:
        raise CtrError(f"the service does not answer as it should: {error}") from error


def _say(visits: Visits, when: str) -> None:
    versions = ", ".join(map(str, visits.versions))
    notify(
        f"[audience] {when}: {visits.clicks:,} clicks on {visits.shown:,} films that version {versions} scored, which "
        f"expected {visits.predicted:,.0f}: {visits.copc:.2f} clicks for each one expected"
    )


def _run(arguments: list[str], wait_s: float = 0.0) -> None:
    """Run a command of this program, after it was printed. Raises CtrError if it fails."""
    notify(f"[audience] ctr {' '.join(arguments)}")
    time.sleep(wait_s)
    ended = subprocess.run(
        [sys.executable, "-c", RUN_CTR, *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise CtrError(f"ctr {arguments[0]} ended with status {ended.returncode}: {last}")


def _wait_for_other(http: httpx.Client, before: Visits) -> None:
    """Wait until another version answers than those before. Raises CtrError if none does."""
    due = time.perf_counter() + NEW_VERSION_S
    while time.perf_counter() < due:
        live = http.get("models").json()["live"].get("stable")
        if live is not None and live not in before.versions:
            return
        time.sleep(0.2)
    raise CtrError("the new version did not go live; `ctr models` says why")
