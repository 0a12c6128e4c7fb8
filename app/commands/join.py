"""`ctr join`: makes rows to train on of the event log, each answer with what became of its items."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from app.commands.event_options import TIME_FORMATS, EventsOption, files_from, in_utc, named_log
from app.commands.options import interval_seconds
from app.commands.output import AsJson, console, emit, figures_table, notify, show_table, warn

SHOWN = "%Y-%m-%d %H:%M:%S"
WORDS = {
    "answers": "answers",
    "impressions": "impressions",
    "positives": "of them positive",
    "duplicates": "feedback sent again",
    "late": "feedback after the window",
    "orphans": "feedback on unknown answers",
    "not_recorded": "feedback on items that were not recorded",
    "without_slots": "answers left out for items that the log lacks",
    "other_types": "feedback of types that are no label",
}


def join(
    out: Annotated[Path, typer.Option(help="Folder of the rows; another run goes on in it.")],
    events: EventsOption = None,
    window: Annotated[str, typer.Option(help="How long after an answer feedback counts, as 30m, 12h or 2d.")] = "30m",
    every: Annotated[str, typer.Option(help="Length of the spans that are joined, each once it is over.")] = "1h",
    label: Annotated[str, typer.Option(help="Type of feedback that makes an item's label 1.")] = "click",
    until: Annotated[
        datetime | None,
        typer.Option(help="Take the log as it was then, in UTC.", show_default="now", formats=TIME_FORMATS),
    ] = None,
    lag: Annotated[
        str | None,
        typer.Option(help="How long records take to be in the log.", show_default="5s for a folder, 15m for a bucket"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Join answers with the clicks on their items into rows for `ctr train --dataset served`.

    Every answer becomes rows after the same wait, clicked or not: rows of the newest answers come with a later run. Run
    it again, from cron say: it goes on where it ended, and what it wrote stays as it is.

    Example: ctr join --events events --out joined --window 30m
    """
    from app.events.delivery.open_log import open_log
    from app.events.joining.join import join as join_events
    from app.events.joining.join import joined_until

    place = named_log(events)
    waits = timedelta(seconds=interval_seconds(window, "--window"))
    late = interval_seconds(lag or ("5s" if place.kind == "folder" else "15m"), "--lag")
    joined = joined_until(out)
    with (
        console.status("reading the log") as status,
        open_log(place, since=files_from(joined and joined - waits), report=status.update) as folder,
    ):
        result = join_events(
            folder,
            out,
            window=waits,
            every=timedelta(seconds=interval_seconds(every)),
            label=label,
            until=in_utc(until) or datetime.now(UTC) - timedelta(seconds=late),
            report=lambda start, stop: status.update(f"joining {start:{SHOWN}} of what is over by {stop:{SHOWN}}"),
        )
    counts = asdict(result.counts)
    if as_json:
        until_text = result.joined_until.isoformat() if result.joined_until else None
        emit({"joined_until": until_text, "spans": result.spans, **counts})
        return
    if not result.spans:
        if result.next_at is None:
            notify(f"nothing to join yet: {place} has no answers")
        else:
            at = result.next_at if until else result.next_at + timedelta(seconds=late)
            when = f"give --until {at:{SHOWN}} or later" if until else f"the next one from {at:{SHOWN}} UTC on"
            notify(
                f"nothing to join yet: a span of {every} is joined {window} after its end, {when}; "
                "a shorter --window and --every give rows sooner, into another --out"
            )
        return
    table = figures_table(f"joined until {result.joined_until:{SHOWN}} UTC", "", "in this run")
    for name, words in WORDS.items():
        if counts[name] or name in ("answers", "impressions", "positives"):
            table.add_row(words, f"{counts[name]:,}")
    show_table(table)
    if counts["other_types"] and not counts["positives"]:
        warn(
            f"no item is positive by feedback of the type {label!r}, and {counts['other_types']:,} records are of "
            f"other types: if one of those is meant, name it by --label, and join into another folder than {out}"
        )
