"""Which event log a command is about, wherever that is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from app.events.delivery.log_place import LogPlace

EventsOption = Annotated[
    str | None,
    typer.Option("--events", help="Folder of the event log, or s3://BUCKET/PREFIX.", show_default="CTR_EVENTS"),
]


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
