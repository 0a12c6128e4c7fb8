"""`open_log`: a log wherever it is, as a folder on this machine, for commands that read it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from app.errors import ConfigError, DataError
from app.events.delivery.log_destination import DeliveryError, open_bucket
from app.events.delivery.log_place import LogPlace
from app.events.records import FEEDBACK

FILES_BEFORE = timedelta(days=3)
"""What belongs to an answer may be in a file of so many days before: its items' slots are recorded on the day before at
the earliest, and a file may hold a day."""
COPIES = Path(".ctr/events-copies")


@contextlib.contextmanager
def open_log(
    place: LogPlace,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    copies: Path = COPIES,
    report: Callable[[str], None] = lambda what: None,
) -> Iterator[Path]:
    """Yield the folder of a log, or a copy of what is in a bucket.

    Args:
        since, until: as for `bucket_copy`.
        copies: folder of copies.
        report: told what is being fetched.

    Raises:
        ConfigError: a package is not installed, or the place is a stream.
        DataError: it cannot be read.
    """
    if place.kind == "folder":
        yield place.folder
    elif place.kind == "bucket":
        from app.events.delivery.bucket_copy import bucket_copy

        with bucket_copy(open_bucket(place), place.url, copies, since, until, report) as folder:
            yield folder
    else:
        raise ConfigError(
            f"{place} is read once: have `ctr events drain --out DIR` write it into a folder, and name that"
        )


@contextlib.contextmanager
def open_log_to_change(
    place: LogPlace, *, copies: Path = COPIES, report: Callable[[str], None] = lambda what: None
) -> Iterator[Path]:
    """Yield the folder of a log, or a copy of a bucket whose changed files are brought back there.

    Raises as `open_log`, and DataError if the changes cannot be brought back: a second time finds them again.
    """
    with open_log(place, copies=copies, report=report) as folder:
        if place.kind == "folder":
            yield folder
            return
        from app.events.delivery.bucket_copy import changed_files, file_times

        before = file_times(folder)
        yield folder
        bucket = open_bucket(place)
        written, gone = changed_files(folder, before)
        try:
            # Feedback first, which is found by its answers: if it fails between them, another time finds it again.
            for name in sorted([*written, *gone], key=lambda name: not name.startswith(FEEDBACK)):
                if name in gone:
                    bucket.delete(name)
                else:
                    bucket.deliver(name, folder / name)
        except (DeliveryError, OSError) as error:
            for name in written:  # the next copy has what is in the bucket
                (folder / name).unlink(missing_ok=True)
            raise DataError(f"{place}: cannot be changed: {error}; run it again") from error
