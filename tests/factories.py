"""Small real things for tests: a schema with every kind of field, raw features, fitted models, published versions.

Nothing here is a mock: a version from `publish_tiny` went through the code a trained one goes through.
"""

from __future__ import annotations

import functools
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from app.features.encoder import Encoder
from app.features.fields import Numeric
from app.features.schema import FeatureSchema, parse_schema
from app.features.slots import EMPTY_KEY
from app.models import MODELS
from app.models.base import CtrModel
from app.models.preprocessing import NumericStatistics, Preprocessing, numeric_key
from app.registry.artifact.export import write
from app.registry.artifact.manifest import GoldenRequest, Manifest
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import expand
from app.training.preprocessing.target_statistics import TargetStatisticsFit
from tests.users import allow_changes

SCHEMA_YAML = """\
version: 1
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: gender, entity: user, type: categorical, default: unknown}
  - {name: age, entity: user, type: numeric, transforms: [standardise], buckets: 4}
  - {name: age_group, entity: user, type: categorical, source: age}
  - {name: liked_genres, entity: user, type: multi_categorical, space: genre, weighted: true, max_length: 4}
  - {name: hour, entity: context, type: categorical}
  - {name: session_length, entity: context, type: numeric, transforms: [log1p, standardise]}
  - {name: item_id, entity: item, type: categorical, id: true}
  - {name: genres, entity: item, type: multi_categorical, space: genre, max_length: 3, separator: "|"}
  - {name: tags, entity: item, type: multi_categorical, weighted: true, pooling: sum, max_length: 3}
  - {name: year, entity: item, type: numeric, buckets: 3, default: 1990}
  - {name: popularity, entity: item, type: numeric, transforms: [log1p, standardise]}
  - {name: rating, entity: item, type: numeric, transforms: []}
"""
GENRES = ("Action", "Comedy", "Drama", "Sci-Fi", "Film-Noir", "Children's")
MODEL_NAME = "deepfm"
USERS, ITEMS = 40, 60


@functools.cache
def small_schema() -> FeatureSchema:
    """Return the schema of SCHEMA_YAML; it is frozen, so that all may have the same."""
    return parse_schema(SCHEMA_YAML)


def raw_user(number: int) -> dict[str, Any]:
    """Stored features of user `str(number)`, the same on every call, some of them missing."""
    dice = random.Random(number)
    raw: dict[str, Any] = {
        "gender": dice.choice(["F", "M"]),
        "age": dice.randint(14, 75),
        "liked_genres": {genre: round(dice.uniform(0.5, 9), 2) for genre in dice.sample(GENRES, dice.randint(1, 5))},
    }
    if number % 7 == 3:
        del raw["age"]
    return raw


def raw_context(number: int) -> dict[str, Any]:
    """Return request-time fields."""
    return {"hour": number % 24, "session_length": number * 3.5}


def raw_item(number: int) -> dict[str, Any]:
    """Stored features of item `str(number)`, the same on every call, some of them missing."""
    dice = random.Random(10_000 + number)
    raw: dict[str, Any] = {
        "genres": dice.sample(GENRES, dice.randint(1, 4)),
        "tags": {f"tag{dice.randint(0, 9)}": round(dice.uniform(-1, 1), 3)},
        "year": dice.randint(1950, 2020),
        "popularity": dice.randint(0, 14_616),
        "rating": round(dice.uniform(1, 5), 2),
    }
    if number % 5 == 2:
        del raw["year"], raw["tags"]
    return raw


def raw_users(count: int = USERS) -> dict[str, dict[str, Any]]:
    """Return id to stored features."""
    return {str(number): raw_user(number) for number in range(count)}


def raw_items(count: int = ITEMS) -> dict[str, dict[str, Any]]:
    """Return id to stored features."""
    return {str(number): raw_item(number) for number in range(count)}


def redis_text(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return features as the HASH in Redis holds them: numbers and strings as text, lists and objects as JSON."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in raw.items()
    }


def fitted(schema: FeatureSchema | None = None, users: int = USERS, items: int = ITEMS) -> Preprocessing:
    """Vocabulary and statistics as a trainer learns them from these users and items; higher numbers stay unseen."""
    return _fitted_to_small_schema(users, items) if schema is None else _fitted(schema, users, items)


@functools.cache
def _fitted_to_small_schema(users: int, items: int) -> Preprocessing:
    return _fitted(small_schema(), users, items)


def _fitted(schema: FeatureSchema, users: int, items: int) -> Preprocessing:
    request_rows = [raw_user(n) | raw_context(n) for n in range(users)]
    item_rows = [raw_item(n) for n in range(items)]
    user_slots = Encoder(schema, "user").encode_many(request_rows, [str(n) for n in range(users)])
    item_slots = Encoder(schema, "item").encode_many(item_rows, [str(n) for n in range(items)])
    fixed = {numeric_key(field.name) for field in schema.fields if isinstance(field, Numeric)}
    seen = {int(key) for slots in (user_slots, item_slots) for key in slots.keys.ravel()} | fixed
    numerics = {}
    for field in schema.fields:
        if not isinstance(field, Numeric):
            continue
        rows = item_rows if field.entity == "item" else request_rows
        raw = np.array([float(row[field.raw_name]) for row in rows if row.get(field.raw_name) is not None])
        reached = np.log1p(raw) if "log1p" in field.transforms else raw
        borders = np.unique(np.quantile(raw, np.linspace(0, 1, field.buckets + 1)[1:-1])) if field.buckets else ()
        numerics[field.name] = NumericStatistics(
            float(reached.mean()), float(reached.std()), tuple(float(border) for border in borders)
        )
    vocabulary_V = torch.tensor(sorted(seen - {EMPTY_KEY}), dtype=torch.int64)
    return Preprocessing(schema, vocabulary_V, numerics)


STATISTICS = (
    ("user_id", "user_id"),
    ("gender", "age"),
    ("item_id", "item_id"),
    ("item_id", "year"),
    ("user_id", "item_id"),
    ("age", "item_id"),
    ("gender", "year"),
)
"""Pairs of fields, within and across sides, whose target statistics `with_statistics` learns."""


@functools.cache
def with_statistics() -> Preprocessing:
    """`fitted`, and target statistics learned of rows with every user and most items, but not every pair."""
    preprocessing = fitted()
    users = [n % USERS for n in range(600)]
    items = [(n * n + n // 7) % ITEMS for n in range(600)]
    sides = {
        "user": Encoder(preprocessing.schema, "user").encode_many(
            [raw_user(n) | raw_context(n) for n in users], [str(n) for n in users]
        ),
        "item": Encoder(preprocessing.schema, "item").encode_many(
            [raw_item(n) for n in items], [str(n) for n in items]
        ),
    }
    labels_N = np.array([(u * 3 + i) % 4 == 0 for u, i in zip(users, items, strict=True)], np.float32)
    rows = expand(preprocessing, EncodedRows(sides["user"], sides["item"], labels_N, {}))
    return TargetStatisticsFit(known=STATISTICS).extend(preprocessing, {"train": rows})[0]


def tiny_model(seed: int = 0, architecture: str = MODEL_NAME, preprocessing: Preprocessing | None = None) -> CtrModel:
    """A model in evaluation mode whose every weight and running statistic is away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    model = MODELS[architecture](preprocessing or fitted())
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            scale = 0.3 if name == "table_RE" else 1 / math.sqrt(tensor.shape[-1])
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(0.2 + 3 * torch.rand(module.running_var.shape, generator=generator))
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
        model.calibration_2.copy_(torch.tensor([0.7, -0.4]))
    return model.eval()


def golden(count: int = 3, candidates: int = 5) -> list[GoldenRequest]:
    """Requests without scores; `write` adds them. The last names a user and items no training row had."""
    return [
        GoldenRequest(
            str(number),
            raw_user(number) | raw_context(number),
            [str(item) for item in range(number, number + candidates)],
            [raw_item(item) for item in range(number, number + candidates)],
            [],
        )
        for number in [*range(count - 1), 10_000]
    ]


def write_tiny(folder: Path, seed: int = 0, architecture: str = MODEL_NAME, **details: Any) -> Manifest:
    """Write an unnumbered version into an existing folder, as a trainer leaves it."""
    model = tiny_model(seed, architecture)
    details = {"metrics": {"test": {"auc": 0.75, "log_loss": 0.55}}, **details}
    return write(folder, model, small_schema(), name=MODEL_NAME, golden=golden(), **details)


@functools.cache
def written(seed: int, architecture: str) -> dict[str, bytes]:
    """Return the files that `write_tiny` writes, cached: many tests publish the same few versions."""
    return files_left(lambda folder: write_tiny(folder, seed, architecture))


def files_left(write_to: Callable[[Path], object]) -> dict[str, bytes]:
    """Return name to content of the files that a function writes to a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write_to(Path(folder))
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def publish_files(store: ModelStore, files: Mapping[str, bytes]) -> int:
    """Publish a version of these files, which tests may damage, and return its number."""
    with store.staging() as staged:
        for name, content in files.items():
            (staged / name).write_bytes(content)
        version = store.publish(staged)
    allow_changes(store.path(version))
    return version


def publish_tiny(
    store: ModelStore,
    seed: int = 0,
    *,
    labels: Sequence[str] = ("stable",),
    share: float = 0.05,
    architecture: str = MODEL_NAME,
) -> int:
    """Publish a version and point these labels at it; `labels=()` only publishes. Returns its number."""
    version = publish_files(store, written(seed, architecture))
    pointers: dict[str, Any] = {
        label: CanaryPointer(version, share) if label == "canary" else version for label in labels
    }
    if pointers:
        store.update_pointer(**pointers)
    return version
