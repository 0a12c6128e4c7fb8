"""A catalogue and a model of any size out of a seed, for benchmarks and load tests.

Nothing is drawn from a random generator whose stream could differ between releases or processors: every feature and
weight is a hash of the seed and its place, turned into a number by operations that IEEE 754 fixes to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import redis
import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from app.errors import ConfigError, StoreError
from app.features.encoder import Encoder
from app.features.field_encoders import CategoricalEncoder
from app.features.fields import Categorical, Side
from app.features.key_template import KeyTemplate
from app.features.resp_commands import bulk_string
from app.features.schema import FeatureSchema
from app.models.deepfm import DeepFM
from app.models.side_input import Preprocessing
from app.registry.artifact.manifest import GoldenRequest

FIRST_ORDER, CROSSES, DEEP = 0.5, 1.25, 2.0
"""Deviations of the three parts of the logit: together about 1.8, so that probabilities fill (0.01, 0.99)."""
MAX_FIELDS = 1000
"""Of a schema."""
BIAS_STEP = 0.25
BIAS_PAIRS = 512
ROWS_AT_A_TIME = 1 << 16
BATCH = 500
"""Hashes on their way to the store at a time."""
GOLDEN_USERS, GOLDEN_ITEMS = 4, 20

Progress = Callable[[int], None]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """Users and items "0".."N-1", whose features are all categorical: user_f0.., item_f0.., values "0".."C-1".

    Values are uniform and independent; every field has a space of its own.
    """

    users: int = 1000
    items: int = 20_000
    user_fields: int = 12
    item_fields: int = 20
    cardinality: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        if min(self.users, self.items, self.user_fields, self.item_fields, self.cardinality) < 1:
            raise ConfigError("a synthetic catalogue needs at least one user, item, field a side and value a field")
        if self.user_fields + self.item_fields > MAX_FIELDS:
            raise ConfigError(f"{self.user_fields} + {self.item_fields} fields: a schema has at most {MAX_FIELDS}")

    @cached_property
    def schema(self) -> FeatureSchema:
        fields = [Categorical(name=name, entity="user") for name in self.names("user")]
        fields += [Categorical(name=name, entity="item") for name in self.names("item")]
        return FeatureSchema(fields=tuple(fields))

    def names(self, side: Side) -> list[str]:
        return [f"{side}_f{number}" for number in range(self.user_fields if side == "user" else self.item_fields)]

    def count(self, side: Side) -> int:
        return self.users if side == "user" else self.items

    def values(self, side: Side, start: int, stop: int) -> Numbers:
        """Values [stop - start, fields] of entities start..stop-1, each in 0..cardinality-1."""
        fields = len(self.names(side))
        drawn = hashed(self.seed, f"{side} features", start * fields, stop * fields) % np.uint64(self.cardinality)
        return drawn.astype(np.int64).reshape(-1, fields)

    def raw(self, side: Side, start: int, stop: int) -> list[dict[str, Any]]:
        """The same as raw features."""
        names = self.names(side)
        return [dict(zip(names, map(str, row), strict=True)) for row in self.values(side, start, stop).tolist()]

    def preprocessing(self) -> Preprocessing:
        """The vocabulary knows every value of every field."""
        encoders = [CategoricalEncoder(field) for field in self.schema.fields if isinstance(field, Categorical)]
        texts = [str(value) for value in range(self.cardinality)]
        keys = np.empty((len(encoders), self.cardinality), np.int64)
        for row, encoder in enumerate(encoders):
            keys[row] = np.fromiter(map(encoder.key, texts), np.int64, self.cardinality)
        return Preprocessing(self.schema, torch.from_numpy(np.unique(keys)), {})

    def golden(self) -> list[GoldenRequest]:
        """Requests without scores."""
        users = self.raw("user", 0, min(GOLDEN_USERS, self.users))
        items = self.raw("item", 0, min(GOLDEN_ITEMS, self.items))
        item_ids = [str(number) for number in range(len(items))]
        return [GoldenRequest(str(number), raw, item_ids, items, []) for number, raw in enumerate(users)]


def hashed(seed: int, stream: str, start: int, stop: int) -> npt.NDArray[np.uint64]:
    """64 bits for each place start..stop-1 of a named stream: splitmix64 (Steele et al. 2014) over a counter."""
    origin = np.uint64(xxh3_64_intdigest(f"{seed} {stream}".encode()))
    with np.errstate(over="ignore"):
        z = origin + np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fill(tensor: Tensor, deviation: float, seed: int, stream: str) -> None:
    """Fill a contiguous float32 tensor in place, uniform around 0 with this standard deviation."""
    flat = tensor.detach().view(-1).numpy()
    reach = np.float32(deviation * math.sqrt(3))
    for start in range(0, len(flat), ROWS_AT_A_TIME):
        stop = min(start + ROWS_AT_A_TIME, len(flat))
        # 24 bits make a float32 in [-1, 1) without rounding, and one product rounds the same everywhere.
        bits = (hashed(seed, stream, start, stop) >> np.uint64(40)).astype(np.float32)
        flat[start:stop] = (bits * np.float32(2**-23) - np.float32(1)) * reach


def build_model(catalogue: Catalogue, dim: int = 16, hidden: tuple[int, ...] = (256, 128, 64)) -> DeepFM:
    """An untrained DeepFM in evaluation mode whose probabilities spread over (0.01, 0.99). Raises ConfigError."""
    if dim < 1 or not hidden or min(hidden) < 1:
        raise ConfigError("--dim and every width of --hidden must be at least 1")
    model = DeepFM(catalogue.preprocessing(), dim, hidden, dropout=0.0, batch_norm=False).eval().requires_grad_(False)
    seed, fields = catalogue.seed, len(catalogue.schema.fields)
    pairs = max(fields * (fields - 1) / 2, 1.0)
    # F(F-1)/2 products of k terms then have deviation CROSSES. Square roots round alike everywhere, powers do not.
    embedding = math.sqrt(CROSSES / math.sqrt(pairs * dim))
    fill(model.table_RE, embedding, seed, "table_RE")
    model.table_RE[:, 0] *= FIRST_ORDER / math.sqrt(fields) / embedding
    gain = 1 / embedding
    for name, tensor in model.deep.named_parameters():
        if tensor.dim() == 2:
            last = tensor.shape[0] == 1 and name.startswith("output")
            # He et al. 2015, eq. 10, keeps the second moment from layer to layer.
            fill(tensor, (DEEP if last else math.sqrt(2) * gain) / math.sqrt(tensor.shape[1]), seed, name)
            gain = 1.0
        else:
            fill(tensor, 0.1, seed, name)
    _centre(model, catalogue)
    return model


def _centre(model: DeepFM, catalogue: Catalogue) -> None:
    """Move the mean logit near 0: a random ReLU net is far from it. In coarse steps, which rounding cannot upset."""
    users = catalogue.raw("user", 0, min(BIAS_PAIRS, catalogue.users))
    items = catalogue.raw("item", 0, min(BIAS_PAIRS, catalogue.items))
    user = Encoder(catalogue.schema, "user").encode_many(users, [None] * len(users))
    item = Encoder(catalogue.schema, "item").encode_many(items, [None] * len(items))
    n_B = np.arange(BIAS_PAIRS)
    slots = [array[n_B % len(array)] for array in (*user, *item)]
    mean = float(model(*map(torch.from_numpy, slots)).double().mean())
    model.bias.fill_(-round(mean / BIAS_STEP) * BIAS_STEP)


def load_features(client: redis.Redis, key: KeyTemplate, catalogue: Catalogue, side: Side, progress: Progress) -> None:
    """Write every user's or item's HASH; memory stays bounded, whatever the number.

    Args:
        progress: told how many more were written.

    Raises StoreError.
    """
    connection: Any = None
    try:
        connection = client.connection_pool.get_connection()
        due = 0
        for written, packed in _packed(catalogue, key, side):
            connection.send_packed_command([packed])
            _read(connection, due)  # of the batch before, so that the store never waits for the next one
            progress(due)
            due = written
        _read(connection, due)
        progress(due)
    except redis.RedisError as error:
        raise StoreError(f"Redis does not take the features: {error}") from error
    finally:
        if connection is not None:
            connection.disconnect()  # after an error replies may be outstanding
            client.connection_pool.release(connection)


def _read(connection: Any, replies: int) -> None:
    for _ in range(replies):
        connection.read_response()


def _packed(catalogue: Catalogue, key: KeyTemplate, side: Side) -> Iterator[tuple[int, bytes]]:
    """HSET commands in RESP, by the batch; a general client would spend ten times as long on packing as Redis works."""
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
