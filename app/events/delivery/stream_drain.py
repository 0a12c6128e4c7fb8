"""`StreamDrain`: writes what a stream has of an event log into a folder, which is then a log as any other.

It reads by a consumer group, and acknowledges an entry once its file is on the disk. An entry that is read twice is the
same file under the same name.

    <folder>/.drain.json    the last number of each sender, by which trimmed entries are noticed
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import redis

from app.errors import ConfigError, DataError, StoreError
from app.events.delivery.log_place import LogPlace
from app.events.delivery.stream import DATA, NAME, NUMBER, SENDER, rows_of
from app.events.records import KINDS
from app.events.segment import parse_segment_name
from app.features.redis_client import open_client, store_errors
from app.runtime.durable_file import replace_file
from app.runtime.file_lock import locked

STATE, LOCK = ".drain.json", ".drain.lock"
CONSUMER = "drain"
AT_ONCE = 8
"""Entries that are read at once; each has up to some megabytes."""
MOST_SENDERS = 1000
WAIT_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
"""After a failure of the server; each pause is twice the one before."""
SCHEMA_NAME = re.compile(r"schemas/[0-9a-f]{64}\.json")

Entry = tuple[bytes, Mapping[bytes, bytes]]


class DrainCounts(msgspec.Struct):
    """What was drained."""

    files: int = 0
    records: int = 0
    trimmed: int = 0
    """Files that the stream dropped before they were read."""
    foreign: int = 0
    """Entries that are no file of an event log."""


def drain_stream(
    place: LogPlace,
    folder: Path,
    counts: DrainCounts,
    *,
    group: str,
    follow: bool = False,
    report: Callable[[str], None] = lambda problem: None,
) -> None:
    """Write what a stream has into a folder.

    Args:
        counts: added to.
        follow: go on for ever, and through failures of the server.
        report: told that some were written, or of a problem.

    Raises:
        ConfigError: another drain is at work in the folder.
        DataError: the folder cannot be written.
        StoreError: of the server, unless it follows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pause_s = FIRST_PAUSE_S
    try:
        with locked(folder / LOCK, blocking=False):
            while True:
                try:
                    with contextlib.closing(open_client(place.url)) as client:
                        drain = StreamDrain(client, place.stream, folder, group, counts)
                        while drain.take(WAIT_S if follow else 0.0) or follow:
                            pause_s = FIRST_PAUSE_S
                            report("")
                    return
                except StoreError as error:
                    if not follow:
                        raise
                    report(str(error))
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    except BlockingIOError as error:
        raise ConfigError(f"{folder}: another `ctr events drain` is at work there") from error


class StreamDrain:
    """Writes entries of a stream below a folder. One per group: it takes what another has read and not written."""

    def __init__(self, client: redis.Redis, stream: str, folder: Path, group: str, counts: DrainCounts) -> None:
        """Create the group where it is not there, from the first entry of the stream on. Raises StoreError."""
        self.counts = counts
        self._client: Any = client
        self._stream = stream
        self._folder = folder
        self._group = group
        self._last = _read_state(folder)
        self._is_new = not self._last
        self._was_read = "0"
        """Behind which of the entries that were given to this group before, and not acknowledged, it has come."""
        with store_errors():
            try:
                self._client.xgroup_create(stream, group, id="0", mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    def take(self, wait_s: float = 0.0) -> int:
        """Write some entries, and return how many there were; 0 where there are no more.

        Args:
            wait_s: how long to wait for one.

        Raises StoreError of the server, and DataError if the folder cannot be written.
        """
        if self._was_read:
            entries = self._read(self._was_read, None)
            self._was_read = entries[-1][0].decode() if entries else ""
            if entries:
                return self._write(entries)
        return self._write(self._read(">", int(wait_s * 1000) or None))

    def _read(self, after: str, block_ms: int | None) -> list[Entry]:
        with store_errors():
            found = self._client.xreadgroup(self._group, CONSUMER, {self._stream: after}, AT_ONCE, block_ms)
        return list(found[0][1]) if found else []

    def _write(self, entries: Sequence[Entry]) -> int:
        if not entries:
            return 0
        try:
            for _, fields in entries:
                self._write_one({name.decode(): value for name, value in (fields or {}).items()})
            recent = dict(list(self._last.items())[-MOST_SENDERS:])
            replace_file(self._folder / STATE, msgspec.json.encode(recent))
        except OSError as error:
            raise DataError(f"{self._folder}: cannot be written ({error.strerror})") from error
        with store_errors():
            self._client.xack(self._stream, self._group, *(entry for entry, _ in entries))
        return len(entries)

    def _write_one(self, fields: Mapping[str, bytes]) -> None:
        if not fields:  # it was trimmed after it had been given to this group
            self.counts.trimmed += 1
            return
        name, data = fields.get(NAME, b"").decode(errors="replace"), fields.get(DATA, b"")
        rows = rows_of(data)
        segment = parse_segment_name(name)
        if not SCHEMA_NAME.fullmatch(name) and (segment is None or segment.kind not in KINDS or not rows):
            self.counts.foreign += 1
            return
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data)
        self.counts.files += 1
        self.counts.records += rows
        self._count_trimmed(fields.get(SENDER, b"").decode(errors="replace"), fields.get(NUMBER, b""))

    def _count_trimmed(self, sender: str, number_text: bytes) -> None:
        if not number_text.isdigit():
            return
        number = int(number_text)
        # A folder that begins when the stream has long been written lacks what was before, and not by mistake.
        last = self._last.pop(sender, number - 1 if self._is_new else 0)
        self.counts.trimmed += max(0, number - last - 1)
        self._last[sender] = max(number, last)


def _read_state(folder: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{folder / STATE}: cannot be read ({error}); delete it to go on without it") from error
