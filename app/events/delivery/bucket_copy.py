"""`bucket_copy`: the files of a log in a bucket, as a folder on this machine, for what reads logs.

Files are fetched once, and deleted here when they are no longer in the bucket or no longer asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from app.errors import DataError
from app.events.delivery.bucket import Bucket, StoredFile
from app.events.delivery.log_destination import DeliveryError
from app.events.logged_schema import SCHEMAS
from app.events.records import FEEDBACK, KINDS
from app.events.segment import TEMPORARY, parse_segment_name
from app.runtime.file_lock import locked

LOCK = ".lock"
HOUR = timedelta(hours=1)


@contextlib.contextmanager
def bucket_copy(
    bucket: Bucket,
    url: str,
    cache: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    report: Callable[[str], None] = lambda what: None,
) -> Iterator[Path]:
    """Yield a folder with the files of a log in a bucket; another process that wants it waits.

    Args:
        cache: folder of such copies.
        since, until: files of earlier and of later hours are left out, but no later feedback, which may be on what was
            shown before.
        report: told what is being fetched.

    Raises DataError if they cannot be fetched.
    """
    folder = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK):
        try:
            _fetch(bucket, folder, since, until, report)
        except (DeliveryError, OSError) as error:
            raise DataError(f"{url}: cannot be read: {error}") from error
        yield folder


def changed_files(folder: Path, before: dict[str, int]) -> tuple[list[str], list[str]]:
    """Return which files of a copy were written anew since, and which are gone.

    Args:
        before: what `file_times` was.
    """
    now = file_times(folder)
    return [name for name, time in now.items() if before.get(name) != time], [
        name for name in before if name not in now
    ]


def file_times(folder: Path) -> dict[str, int]:
    """Return when each finished file of a copy was written, in nanoseconds."""
    paths = (path for kind in KINDS for path in (folder / kind).rglob("*.parquet"))
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


def _fetch(
    bucket: Bucket, folder: Path, since: datetime | None, until: datetime | None, report: Callable[[str], None]
) -> None:
    wanted: dict[str, StoredFile] = {}
    for kind in KINDS:
        for file in bucket.files(kind):
            name = parse_segment_name(file.name)
            if name is None or (since and name.hour + HOUR <= since):
                continue
            if until is None or name.hour <= until or kind == FEEDBACK:
                wanted[file.name] = file
    for file in bucket.files(SCHEMAS):
        if file.name.endswith(".json") and file.name.count("/") == 1:
            wanted[file.name] = file
    for unwanted in file_times(folder).keys() - wanted.keys():
        (folder / unwanted).unlink()
    lacking = [file for file in wanted.values() if not _is_copied(folder / file.name, file)]
    size = sum(file.size for file in lacking) / 2**20
    for number, file in enumerate(lacking, 1):
        report(f"fetching file {number:,} of {len(lacking):,}, {size:,.0f} MB in all")
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{path.stem}")
        try:
            bucket.fetch(file.name, temporary)
            # The time of the file in the bucket: what is rewritten here, or there, is fetched again.
            os.utime(temporary, ns=(_time_ns(file), _time_ns(file)))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _is_copied(path: Path, file: StoredFile) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.size, _time_ns(file))


def _time_ns(file: StoredFile) -> int:
    return int(file.modified.timestamp() * 1e6) * 1000
