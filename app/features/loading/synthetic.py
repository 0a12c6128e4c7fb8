"""A catalogue of any size out of a seed, for benchmarks and load tests.

Nothing is drawn from a random generator whose stream could differ between releases or processors: every feature is a
hash of the seed and its index, made a number by operations that IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import redis
from xxhash import xxh3_64_intdigest

from app.errors import ConfigError
from app.features.fields import Categorical, Side
from app.features.key_template import KeyTemplate
from app.features.redis_client import store_errors
from app.features.resp_commands import bulk_string
from app.features.schema import FeatureSchema

MAX_FIELDS = 1000
"""The most fields that a schema has."""
BATCH = 500
"""Hashes sent to the store at a time."""


@dataclass(frozen=True)
class SyntheticCatalogue:
    """Users and items "0".."N-1", whose features are all categorical: user_f0.., item_f0.., values "0".."C-1".

    Values are uniform and independent; every field has a space of its own. Raises ConfigError for sizes that make no
    schema.
    """

    users: int = 1000
    items: int = 20_000
    user_fields: int = 12
    item_fields: int = 20
    cardinality: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.users, self.items, self.user_fields, self.item_fields, self.cardinality) < 1:
            raise ConfigError("a synthetic catalogue needs at least one user, item, field a side and value a field")
        if self.user_fields + self.item_fields > MAX_FIELDS:
            raise ConfigError(f"{self.user_fields} + {self.item_fields} fields: a schema has at most {MAX_FIELDS}")

    @cached_property
    def schema(self) -> FeatureSchema:
        """The schema of both sides."""
        fields = [Categorical(name=name, entity="user") for name in self.names("user")]
        fields += [Categorical(name=name, entity="item") for name in self.names("item")]
        return FeatureSchema(fields=tuple(fields))

    def names(self, side: Side) -> list[str]:
        """Return the names of a side's fields."""
        return [f"{side}_f{number}" for number in range(self.user_fields if side == "user" else self.item_fields)]

    def count(self, side: Side) -> int:
        """Return the number of users or items."""
        return self.users if side == "user" else self.items

    def values(self, side: Side, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the values [stop - start, fields] of entities start..stop-1, each in 0..cardinality-1."""
        fields = len(self.names(side))
        bits = splitmix64(self.seed, f"{side} features", start * fields, stop * fields) % np.uint64(self.cardinality)
        return bits.astype(np.int64).reshape(-1, fields)

    def raw(self, side: Side, start: int, stop: int) -> list[dict[str, Any]]:
        """Return the values of entities start..stop-1 as raw features."""
        names = self.names(side)
        return [dict(zip(names, map(str, row), strict=True)) for row in self.values(side, start, stop).tolist()]


def splitmix64(seed: int, stream: str, start: int, stop: int) -> npt.NDArray[np.uint64]:
    """Return 64 bits for each index start..stop-1 of a named stream: splitmix64 (Steele et al. 2014) over a counter."""
    origin = np.uint64(xxh3_64_intdigest(f"{seed} {stream}".encode()))
    with np.errstate(over="ignore"):
        z = origin + np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def load_features(
    client: redis.Redis, key: KeyTemplate, catalogue: SyntheticCatalogue, side: Side, on_progress: Callable[[int], None]
) -> None:
    """Write every user's or item's HASH; memory stays bounded, whatever the number.

    Args:
        on_progress: called with the number of entities written since the call before.

    Raises:
        StoreError: Redis does not answer or refuses.
    """
    untyped: Any = client
    load = _load_cluster if isinstance(untyped, redis.RedisCluster) else _load_server
    with store_errors():
        load(untyped, key, catalogue, side, on_progress)


def _load_server(
    client: redis.Redis, key: KeyTemplate, catalogue: SyntheticCatalogue, side: Side, on_progress: Callable[[int], None]
) -> None:
    """Write every HASH on one connection, a batch while the server works on the one before."""
    connection: Any = None
    try:
        connection = client.connection_pool.get_connection()
        pending = 0
        for written, packed in _packed_commands(catalogue, key, side):
            connection.send_packed_command([packed])
            _read_replies(connection, pending)  # of the batch before, so that the store never waits for the next one
            on_progress(pending)
            pending = written
        _read_replies(connection, pending)
        on_progress(pending)
    finally:
        if connection is not None:
            connection.disconnect()  # after an error replies may be outstanding
            client.connection_pool.release(connection)


def _load_cluster(
    client: Any, key: KeyTemplate, catalogue: SyntheticCatalogue, side: Side, on_progress: Callable[[int], None]
) -> None:
    """Write every HASH to the node that has its key, by redis-py, which knows the nodes."""
    for start in range(0, catalogue.count(side), BATCH):
        stop = min(start + BATCH, catalogue.count(side))
        pipeline = client.pipeline(transaction=False)
        for number, raw in enumerate(catalogue.raw(side, start, stop), start):
            pipeline.hset(key.key(str(number)), mapping=raw)
        pipeline.execute()
        on_progress(stop - start)


def _read_replies(connection: Any, count: int) -> None:
    for _ in range(count):
        connection.read_response()


def _packed_commands(catalogue: SyntheticCatalogue, key: KeyTemplate, side: Side) -> Iterator[tuple[int, bytes]]:
    """Yield batches of HSET commands in RESP: their number and their bytes.

    A general client would spend ten times as long on packing as Redis works.
    """
    names = catalogue.names(side)
    head = b"*%d\r\n$4\r\nHSET\r\n" % (2 + 2 * len(names))
    fields = [bulk_string(name.encode()) for name in names]
    for start in range(0, catalogue.count(side), BATCH):
        stop = min(start + BATCH, catalogue.count(side))
        parts: list[bytes] = []
        for number, row in enumerate(catalogue.values(side, start, stop).tolist(), start):
            parts += (head, bulk_string(key.key(str(number)).encode()))
            for field, value in zip(fields, row, strict=True):
                parts += (field, bulk_string(b"%d" % value))
        yield stop - start, b"".join(parts)
