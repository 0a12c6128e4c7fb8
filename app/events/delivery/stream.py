"""`RedisStream`: an event log in a stream of Redis, which `ctr events drain` writes into a folder.

An entry is a finished file: `name` (that of the file in the log), `rows`, `data` (its bytes), `sender` and `number`. A
sender numbers its entries from 1 on, so that a reader notices those that were trimmed before it came to them.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import redis

from app.errors import StoreError
from app.events.delivery.log_destination import DeliveryError
from app.features.redis_client import open_client, store_errors

NAME, ROWS, DATA, SENDER, NUMBER = "name", "rows", "data", "sender", "number"


class RedisStream:
    """Adds files to a stream."""

    def __init__(self, url: str, stream: str, length: int) -> None:
        """
        Args:
            url: of the server, as `CTR_REDIS_URL` has it.
            length: about how many entries the stream keeps.
        """
        self._url = url
        self._stream = stream
        self._length = length
        self._client: redis.Redis | None = None
        self._sender = os.urandom(8).hex()
        self._number = 0

    def deliver(self, name: str, path: Path) -> None:
        """Add a file to the stream; one that was added and not answered is added again. Raises DeliveryError."""
        data = path.read_bytes()
        entry: dict[Any, Any] = {
            NAME: name,
            ROWS: rows_of(data),
            DATA: data,
            SENDER: self._sender,
            NUMBER: self._number + 1,
        }
        try:
            if self._client is None:
                self._client = open_client(self._url)
            with store_errors():
                self._client.xadd(self._stream, entry, maxlen=self._length, approximate=True)
        except StoreError as error:
            raise DeliveryError(str(error)) from error
        self._number += 1

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            with contextlib.suppress(redis.RedisError):
                self._client.close()
            self._client = None


def rows_of(data: bytes) -> int:
    """Return the records of a file; 0 for one that holds none."""
    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except pa.ArrowInvalid:
        return 0
