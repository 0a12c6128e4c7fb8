"""`Bucket`: an event log in an object store, below a prefix, with the names that a folder has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, S3Store

from app.errors import ConfigError
from app.events.delivery.log_destination import DeliveryError

CONNECT_TIMEOUT, TIMEOUT = "5s", "60s"
RETRY_S = 5.0
"""What is tried again at once; `Shipper` tries again later what fails for longer."""
CHUNK_BYTES = 8 << 20


class StoredFile(NamedTuple):
    """A file as the store lists it."""

    name: str
    size: int
    modified: datetime


class Bucket:
    """Files in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        """Args: store: with the prefix of the log in it."""
        self._store = store

    @classmethod
    def open(cls, url: str) -> Bucket:
        """Return the log at a URL. Keys, region and endpoint are those of the environment, as AWS names them.

        Raises ConfigError if these have no meaning.
        """
        plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
        try:
            store = S3Store.from_url(
                url,
                client_options={"connect_timeout": CONNECT_TIMEOUT, "timeout": TIMEOUT, "allow_http": plain},
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=RETRY_S)},
            )
        except (BaseError, ValueError) as error:
            raise ConfigError(f"{url}: {error}") from error
        return cls(store)

    def deliver(self, name: str, path: Path) -> None:
        """Upload a file; a reader sees it whole or not at all. Raises DeliveryError."""
        try:
            obstore.put(self._store, name, path)
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise DeliveryError(first_line(error)) from error

    def files(self, prefix: str) -> Iterator[StoredFile]:
        """Yield the files whose names begin with a folder. Raises DeliveryError."""
        try:
            for part in obstore.list(self._store, prefix):
                for meta in part:
                    yield StoredFile(meta["path"], meta["size"], meta["last_modified"])
        except (BaseError, OSError) as error:
            raise DeliveryError(first_line(error)) from error

    def fetch(self, name: str, path: Path) -> None:
        """Download a file. Raises DeliveryError."""
        try:
            with path.open("wb") as file:
                for chunk in obstore.get(self._store, name).stream(min_chunk_size=CHUNK_BYTES):
                    file.write(chunk)
        except (BaseError, OSError) as error:
            raise DeliveryError(first_line(error)) from error

    def delete(self, name: str) -> None:
        """Delete a file. Raises DeliveryError."""
        try:
            obstore.delete(self._store, name)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise DeliveryError(first_line(error)) from error

    def close(self) -> None:
        """Do nothing: the store keeps no connection that has to be ended."""


def first_line(error: Exception) -> str:
    """Return what an error says, without the lines of what it was made of."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
