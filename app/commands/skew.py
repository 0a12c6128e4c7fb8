"""`ctr skew`: compares what was served with what a table says of the same users and items at the same time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.event_options import EventsOption, Since, Until, files_from, in_utc, named_log
from app.commands.options import QuoteEscape
from app.commands.output import AsJson, console, emit, figures_table, notify, show_error, show_table, warn

if TYPE_CHECKING:
    from app.training.skew.causes import SkewCause
    from app.training.skew.skew import Skew

SKEWED = 1
"""Exit status where more rows differ than are tolerated."""
WORDS = {
    "missing_online": "missing where it was served",
    "missing_offline": "missing in the table",
    "default_online": "served as a default",
    "default_offline": "a default in the table",
    "stale": "served late",
    "ahead": "served before the table has it",
    "encoding": "written in another way",
    "truncated": "cut off",
    "other": "other values",
}


def skew(
    data: Annotated[
        Path, typer.Option(help="CSV, TSV, JSON lines or Parquet: ids of users or items, or both, and their features.")
    ],
    events: EventsOption = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="Column that says from when on a row holds.", show_default="none: the last row of each id holds always"
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the rows that may differ in a field.")
    ] = 0.01,
    max_bad: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of unreadable rows above which it stops.")
    ] = 0.0,
    quote_escape: QuoteEscape = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was served with what a table says of the same users and items at the same time, field by field.

    The table is encoded as the service encodes, and the slots are compared with those that were recorded. Of each field
    that differs in more rows than are tolerated the likely cause is said: missing on one side, late and by how much,
    written in another way, cut off, or a default. Features of the request alone (`entity: context`) are not compared.

    Exit status: 0 no field differs beyond the tolerance; 1 some field does, or an error.

    Example: ctr skew --events events --data features.parquet --at updated_at
    """
    from app.events.delivery.open_log import open_log
    from app.training.skew.skew import find_skew

    place, since = named_log(events), in_utc(since)
    with (
        console.status("reading the table") as status,
        open_log(place, since=files_from(since), report=status.update) as folder,
    ):
        found = find_skew(
            folder,
            data,
            at=at,
            since=since,
            until=in_utc(until),
            tolerance=tolerance,
            escape=quote_escape,
            max_bad=max_bad,
            report=status.update,
        )
    if as_json:
        emit(
            {
                "schema_hash": found.schema_hash,
                "tolerance": tolerance,
                "sides": [asdict(side) for side in found.sides],
                "fields": [{**asdict(one), "share": one.share} for one in found.fields],
                "skewed": [one.field for one in found.skewed],
                "not_compared": found.not_compared,
                "other_schemas": found.other_schemas,
                "bad": found.bad.count,
            }
        )
    else:
        _show(found)
    if found.is_skewed:
        named = [f"{one.field} ({said(one.causes[0])})" for one in found.skewed]
        named += [
            f"all of the {side.side} ({WORDS['missing_online']})"
            for side in found.sides
            if side.share_missing > tolerance
        ]
        show_error(f"served otherwise than {data} says: {', '.join(named)}")
        raise typer.Exit(SKEWED)


def said(cause: SkewCause) -> str:
    """Say a cause in words."""
    return f"{WORDS[cause.cause]}: {cause.detail}" if cause.detail else WORDS[cause.cause]


def _show(found: Skew) -> None:
    table = figures_table("served and offline", "field", "side", "rows", "differ", "likely cause")
    for one in sorted(found.fields, key=lambda one: -one.share):
        causes = "; ".join(f"{said(cause)} ({cause.share:.0%})" for cause in one.causes)
        table.add_row(one.field, one.side, f"{one.rows:,}", f"{one.share:.2%}", causes)
    show_table(table)
    for one in found.skewed:
        notify(f"{one.field}: as of {one.side if one.side == 'item' else 'answer'} {one.example}: {one.offline!r}")
    for side in found.sides:
        if side.missing_online:
            warn(f"{side.missing_online:,} rows were served without any {side.side} features, which the table has")
        if side.without_row:
            warn(f"of {side.without_row:,} rows the table says nothing about the {side.side} at that time")
        if side.repeated:
            warn(f"{side.repeated:,} {side.side} rows are older than another of the same id; --at says when each holds")
    for name, why in found.not_compared.items():
        warn(f"{name}: not compared, {why}")
    if found.other_schemas:
        warn(f"{found.other_schemas:,} answers by another schema were not compared")
    if found.bad.count:
        warn(str(found.bad))
