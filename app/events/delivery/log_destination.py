"""`LogDestination`: where finished files of the event log are delivered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from app.errors import ConfigError, CtrError
from app.events.delivery.log_place import LogPlace

if TYPE_CHECKING:
    from app.events.delivery.bucket import Bucket


class DeliveryError(CtrError):
    """A file could not be delivered, or fetched; it is worth trying again."""


class LogDestination(Protocol):
    """Takes files of the log by their names in it. What is delivered twice is there once."""

    def deliver(self, name: str, path: Path) -> None:
        """Deliver a file, and return once it is there for good. Raises DeliveryError."""

    def close(self) -> None:
        """End the connection, if there is one."""


def open_destination(place: LogPlace, stream_length: int) -> LogDestination:
    """Return where files of a log go that is in no folder; nothing is connected yet.

    Args:
        stream_length: how many files a stream keeps.

    Raises ConfigError if a package is not installed, or the place has no meaning.
    """
    if place.kind == "bucket":
        return open_bucket(place)
    from app.events.delivery.stream import RedisStream

    return RedisStream(place.url, place.stream, stream_length)


def open_bucket(place: LogPlace) -> Bucket:
    """Return a log in a bucket. Raises ConfigError if a package is not installed, or the place has no meaning."""
    try:
        from app.events.delivery.bucket import Bucket
    except ImportError as error:
        raise ConfigError(f"{place}: needs `pip install ctr-serving[events-s3]`") from error
    return Bucket.open(place.url)
