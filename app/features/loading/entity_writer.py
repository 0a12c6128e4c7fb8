"""`EntityWriter`: writes hashes of features into Redis and removes them, some at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import redis

from app.errors import StoreError
from app.features.key_template import KeyTemplate
from app.features.redis_client import CLIENT_ERRORS, reply_text, store_error

StoredFields = dict[Any, str]
"""The content of a hash, text by name. The client declares more types of names, hence Any."""


class StoredEntity(NamedTuple):
    """One user or item as it is to be stored."""

    id: str
    fields: StoredFields
    empty: list[str]
    """The columns without a value, and that of the id where it is not stored."""


class EntityWriter:
    """Replaces hashes whole, or merges into them, and counts what was written and what was lost by it."""

    def __init__(
        self,
        client: redis.Redis,
        key: KeyTemplate,
        *,
        merge: bool = False,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """
        Args:
            merge: keep what is stored of the fields that an entity does not name; one that it names and leaves empty
                is removed.
            on_note: called with a line on what the server cannot do, and what follows.
        """
        self._client = client
        self._key = key
        self._merge = merge
        self._on_note = on_note
        self._transactions = True
        untyped: Any = client
        self._in_cluster = isinstance(untyped, redis.RedisCluster)
        self.written = 0
        """Entities written so far."""
        self.lost: Counter[str] = Counter()
        """How many entities had a field before that they do not have any more, by field."""

    def find_out_transactions(self) -> None:
        """Find out whether the server knows MULTI, which some proxies do not. Raises StoreError without an answer."""
        if self._in_cluster:  # each of its nodes does
            return
        try:
            untyped: Any = self._client
            untyped.execute_command("MULTI")
            untyped.execute_command("EXEC")
        except redis.exceptions.AuthenticationError as error:
            raise store_error(error) from error
        except (redis.ResponseError, redis.ConnectionError) as error:  # some close the connection instead
            self._run(lambda: self._client.exists(self._key.key("")))
            self._on_note(
                "the server takes no transactions (MULTI): an entity is without features for a moment while it is "
                f"replaced ({store_error(error)})"
            )
            self._transactions = False

    def write(self, entities: Sequence[StoredEntity]) -> None:
        """Write entities in one transaction, or one each in a cluster, where one may have keys of one slot alone.

        Raises StoreError, which says how many rows were written before.
        """
        for together in [[entity] for entity in entities] if self._in_cluster else [entities]:
            self._write(together)

    def _write(self, entities: Sequence[StoredEntity]) -> None:
        # In a transaction no reader sees an entity without its features, and no old field stays.
        with self._client.pipeline(transaction=self._transactions) as pipeline:
            for entity_id, fields, empty in entities:
                key = self._key.key(entity_id)
                pipeline.hkeys(key)
                if not self._merge:
                    pipeline.delete(key)
                elif empty:
                    pipeline.hdel(key, *empty)
                if fields:
                    pipeline.hset(key, mapping=fields)
            replies: Iterator[Any] = iter(self._run(lambda: self._executed(pipeline)))
            for _, fields, empty in entities:
                before = set(map(reply_text, next(replies)))
                if not self._merge or empty:
                    next(replies)
                if fields:
                    next(replies)
                self.lost.update(before.intersection(empty) if self._merge else before.difference(fields))
        self.written += len(entities)

    def remove(self, ids: Sequence[str]) -> int:
        """Remove entities and return how many of them there were. Raises StoreError."""
        return int(self._run(lambda: self._client.delete(*map(self._key.key, ids)))) if ids else 0

    def _executed(self, pipeline: Any) -> list[Any]:
        """Return the pipeline's replies; a key of another type than a hash, which is replaced, had no fields."""
        replies = pipeline.execute(raise_on_error=False)
        for number, reply in enumerate(replies):
            if isinstance(reply, CLIENT_ERRORS):
                if self._merge or not str(reply).startswith("WRONGTYPE"):
                    raise reply
                replies[number] = []
        return list(replies)

    def _run(self, command: Callable[[], Any]) -> Any:
        """Return the reply to a command. Raises StoreError if that fails."""
        try:
            return command()
        except CLIENT_ERRORS as error:
            so_far = f"; {self.written} rows were written, loading again is safe" if self.written else ""
            raise StoreError(f"{store_error(error)}{so_far}") from error
