"""Which event log a command is about, wherever that is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.events.delivery.log_place import LogPlace

EventsOption = Annotated[
    str | None,
    typer.Option("--events", help="Folder of the event log, or s3://BUCKET/PREFIX.", show_default="CTR_EVENTS"),
]
TIME_FORMATS = ["%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"]
Since = Annotated[
    datetime | None,
    typer.Option("--since", help="Answers from then on, in UTC.", show_default="all", formats=TIME_FORMATS),
]
Until = Annotated[
    datetime | None,
    typer.Option("--until", help="Answers before then, in UTC.", show_default="now", formats=TIME_FORMATS),
]


def in_utc(option: datetime | None) -> datetime | None:
    """Return the time that an option names, which has no time zone, as one in UTC."""
    return None if option is None else option.replace(tzinfo=UTC)


def named_log(events: str | None) -> LogPlace:
    """Return the log that is named, or that of CTR_EVENTS. Raises ConfigError."""
    from app.errors import ConfigError
    from app.events.delivery.log_place import log_place
    from app.settings import load_settings

    named = events or load_settings().events
    if not named:
        raise ConfigError("which log? Give --events DIR, or set CTR_EVENTS as the service has it")
    return log_place(named)


def files_from(since: datetime | None) -> datetime | None:
    """Return from which hour on files of the log are needed for answers from a time on."""
    from app.events.delivery.open_log import FILES_BEFORE

    return None if since is None else since - FILES_BEFORE
