"""`MixedCatalogue`: users and items with numbers, lists and weights, and a published model that reads them."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import redis
import torch

from app.features.encoder import Encoder
from app.features.fields import Numeric, Side
from app.features.schema import parse_schema
from app.features.slots import EMPTY_KEY
from app.models.deepfm import DeepFM
from app.models.preprocessing import NumericStatistics, Preprocessing, numeric_key
from app.registry.artifact.export import write
from app.registry.artifact.manifest import GoldenRequest
from benchmarks.soak.versions import store_of
from benchmarks.testbed import ITEM_KEY, USER_KEY, Testbed

MODEL = "mixed"
SCHEMA = parse_schema("""\
version: 1
fields:
  - {name: gender, entity: user, type: categorical, default: unknown}
  - {name: age, entity: user, type: numeric, transforms: [standardise], buckets: 4}
  - {name: liked_genres, entity: user, type: multi_categorical, space: genre, weighted: true, max_length: 4}
  - {name: recent, entity: user, type: multi_categorical, max_length: 5}
  - {name: category, entity: item, type: categorical}
  - {name: genres, entity: item, type: multi_categorical, space: genre, max_length: 3}
  - {name: tags, entity: item, type: multi_categorical, weighted: true, pooling: sum, max_length: 3}
  - {name: year, entity: item, type: numeric, buckets: 3, default: 1990}
  - {name: popularity, entity: item, type: numeric, transforms: [log1p, standardise]}
""")
GENRES = ("Action", "Comedy", "Drama", "Sci-Fi", "Film-Noir", "Children's")
CORRUPT = {
    "age": ("12,5", "abc", "1e400"),
    "year": ("nineteen", "0x7c6", "$5"),
    "popularity": ("inf", "5%", "1 234"),
    "liked_genres": ('{"Drama": "much"}', '{"Drama": [1]}', '{"Drama": true}'),
    "tags": ('{"t1": "x"}', '{"t1": {}}', '{"t1": false}'),
    "recent": ("[[1]]", '["a", ["b"]]', '[{"a": 1}]'),
    "genres": ('[["Drama"]]', '[{"Drama": 1}]', '["Drama", []]'),
}
"""Field to texts that it refuses, as docs/values.md has them."""
Corruption = tuple[Side, int, str, str]
"""Side, number of the user or item, field, text."""


@dataclass(frozen=True)
class MixedCatalogue:
    """Users and items "0".."N-1" with every kind of field."""

    users: int
    items: int

    def raw(self, side: Side, number: int) -> dict[str, Any]:
        """Return the features of a user or an item, the same on every call."""
        dice = random.Random(f"{side} {number}")
        if side == "user":
            return {
                "gender": dice.choice("FM"),
                "age": dice.randint(14, 75),
                "liked_genres": {genre: round(dice.uniform(0.5, 9), 2) for genre in dice.sample(GENRES, 3)},
                "recent": [f"r{dice.randrange(50)}" for _ in range(4)],
            }
        return {
            "category": f"c{dice.randrange(20)}",
            "genres": dice.sample(GENRES, 2),
            "tags": {f"tag{dice.randrange(10)}": round(dice.uniform(-1, 1), 3)},
            "year": dice.randint(1950, 2020),
            "popularity": dice.randint(0, 14_616),
        }

    def load(self, client: redis.Redis) -> None:
        """Write all features to a store."""
        with client.pipeline(transaction=False) as pipeline:
            for side, count, key in (("user", self.users, USER_KEY), ("item", self.items, ITEM_KEY)):
                for number in range(count):
                    raw = self.raw(side, number)  # type: ignore[arg-type]
                    texts = {
                        name: v if isinstance(v, str) else msgspec.json.encode(v).decode() for name, v in raw.items()
                    }
                    pipeline.hset(key.key(str(number)), mapping=texts)
            pipeline.execute()

    def corruptions(self, share: float, seed: int = 1) -> Iterator[Corruption]:
        """Yield values to overwrite, this share of all that can be corrupted."""
        dice = random.Random(seed)
        for side, count in (("user", self.users), ("item", self.items)):
            names = [field.name for field in SCHEMA.fields if field.entity == side and field.name in CORRUPT]
            for number in range(count):
                for name in names:
                    if dice.random() < share:
                        yield side, number, name, dice.choice(CORRUPT[name])  # type: ignore[misc]

    def publish(self, testbed: Testbed) -> None:
        """Publish an untrained model that reads every field, and make it live."""
        sample = {side: [self.raw(side, number) for number in range(200)] for side in ("user", "item")}  # type: ignore[arg-type]
        model = DeepFM(_preprocessing(sample), 8, (32, 16), dropout=0.0, batch_norm=False)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3 / math.sqrt(tensor.shape[-1]))
        items = sample["item"][:5]
        golden = [GoldenRequest("0", sample["user"][0], [str(n) for n in range(5)], items, [])]
        store = store_of(testbed, MODEL)
        with store.staging() as staged:
            write(staged, model.eval().requires_grad_(False), SCHEMA, name=MODEL, golden=golden)
            store.update_pointer(stable=store.publish(staged))


def _preprocessing(sample: dict[str, list[dict[str, Any]]]) -> Preprocessing:
    keys: set[int] = set()
    for side, rows in sample.items():
        slots = Encoder(SCHEMA, side).encode_many(rows, [None] * len(rows))  # type: ignore[arg-type]
        keys |= {int(key) for key in slots.keys.ravel()}
    numerics = {}
    for field in SCHEMA.fields:
        if isinstance(field, Numeric):
            values = np.array([float(row[field.name]) for row in sample[field.entity]])
            values = np.log1p(values) if "log1p" in field.transforms else values
            borders = (
                np.unique(np.quantile(values, np.linspace(0, 1, field.buckets + 1)[1:-1])) if field.buckets else ()
            )
            numerics[field.name] = NumericStatistics(
                float(values.mean()), float(values.std()), tuple(float(border) for border in borders)
            )
            keys.add(numeric_key(field.name))
    return Preprocessing(SCHEMA, torch.tensor(sorted(keys - {EMPTY_KEY}), dtype=torch.int64), numerics)
