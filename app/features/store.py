"""`FeatureStore`: where raw features are read from, and `Listener`: who hears what was read and what has changed since.

`app.features.redis_store` reads Redis or Valkey; `app.features.memory_store` keeps everything in the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

RawFeatures = Mapping[str, object]
"""Field name to value, as stored, or None where there is none; empty for an entity that the store does not know."""


class Listener(Protocol):
    """A cache of items. It is called synchronously, in the order in which things happened in the store."""

    def on_items(
        self, item_ids: Sequence[str], items: Sequence[RawFeatures], hash_slots: Sequence[int] | None = None
    ) -> None:
        """Take in the features of items that were just read; `hash_slots` are those of their keys, in a cluster."""

    def on_invalidate(self, item_ids: Sequence[str] | None) -> None:
        """Mark items as written since they were read; None means that any item may have been."""

    def on_hash_slots_lost(self, hash_slots: Sequence[int]) -> None:
        """Mark the items of these hash slots as possibly out of date: another node has them, or their node is lost."""

    def on_disconnect(self) -> None:
        """Mark everything as possibly out of date, because changes may have been missed."""


@dataclass(frozen=True)
class StoreStatus:
    """The state of a store, for people and for `/health`."""

    connected: bool
    tracking: bool
    """The store reports changes; without that what is cached has to be aged."""
    detail: str
    problem: str = ""
    """Why nothing, or not everything, can be read though it is connected; empty if all is well."""


class Fetched(NamedTuple):
    """The features that one round trip read, as far as they could be read."""

    user: RawFeatures | None
    """The features of the user; empty if no user was asked for, None if it could not be read."""
    items: Sequence[RawFeatures | None]
    """The features of each item, in the order of the ids; None for one that could not be read."""


class FeatureStore(Protocol):
    """Raw features of users and items, one round trip a request."""

    @property
    def tracking(self) -> bool:
        """Whether the store reports changes, as in `status()`; every request asks."""

    async def start(self, listener: Listener) -> None:
        """Connect, and from now on call the listener."""

    async def stop(self) -> None:
        """Disconnect, and end background tasks."""

    def select_fields(self, user: Sequence[str], item: Sequence[str]) -> None:
        """Read these fields of users and items from now on; the listener is told to read items again if theirs change.

        Before this is called no field is read, and an entity is known or unknown.
        """

    async def fetch(self, user_id: str | None, item_ids: Sequence[str], timeout_s: float) -> Fetched:
        """Read a user, unless the id is None, and items in one round trip.

        The listener is given the items first, in order with the changes that the store reports. Before this returns,
        the listener may have replaced, invalidated or dropped what it was given.

        Raises StoreError if nothing could be read: the store is not connected, does not answer in time, or answers with
        an error.
        """

    def scan(self) -> AsyncIterator[list[str]]:
        """Iterate over the ids of all items, in batches, in no order, some perhaps twice. Raises StoreError."""

    def status(self) -> StoreStatus:
        """Return the state of the connection."""
