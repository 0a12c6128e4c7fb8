"""The features that `ctr demo` loaded: found in the store, and removed from it again for somebody's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import redis

from app.errors import CtrError
from app.features.key_template import KeyTemplate
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_text
from app.features.redis_client import reply_text, store_errors
from app.registry.gate.gate_task import FeatureSample
from app.settings import Settings

DATASET = "movielens"
Entity = Literal["users", "items"]
ENTITIES: tuple[Entity, ...] = ("users", "items")
CLEAR = "ctr demo --clear"
"""The command that removes what the demo loaded."""
BATCH = 100


def exported_by_demo(settings: Settings) -> Path:
    """Return the folder of the files that the demo loads."""
    return settings.data_dir / "features" / DATASET


def demo_files(settings: Settings) -> dict[Entity, Path]:
    """Return the files that the demo loads, by entity; a demo that was never run here has not written them."""
    return {entity: exported_by_demo(settings) / f"{entity}.jsonl" for entity in ENTITIES}


def is_of_demo(sample: FeatureSample, settings: Settings) -> bool:
    """Tell whether users or items of a sample of the store are those of the demo."""
    try:
        return any(
            stored.get(entity_id) == fields
            for entity, stored in zip(ENTITIES, (sample.users, sample.items), strict=True)
            for entity_id, fields in _demo_entities(settings, entity)
        )
    except CtrError:  # a hint must not stand in the way of the message that it is for
        return False


def remove_demo(client: redis.Redis, settings: Settings) -> dict[str, int]:
    """Remove the users and items that are in the store as the demo loaded them; return how many of each.

    Whoever has other features by now stays.

    Raises:
        DataError: the demo's files cannot be read.
        StoreError: Redis does not answer or refuses.
    """
    removed: dict[str, int] = {}
    for entity, template in zip(ENTITIES, (settings.user_key, settings.item_key), strict=True):
        key = KeyTemplate(template)
        removed[entity] = 0
        entities = _demo_entities(settings, entity)
        while batch := list(islice(entities, BATCH)):
            with store_errors():
                pipeline = client.pipeline(transaction=False)
                for entity_id, _ in batch:
                    pipeline.hgetall(key.key(entity_id))
                keys = [
                    key.key(entity_id)
                    for (entity_id, fields), stored in zip(batch, pipeline.execute(), strict=True)
                    if {reply_text(name): reply_text(value) for name, value in stored.items()} == fields
                ]
                removed[entity] += int(client.delete(*keys)) if keys else 0
    return removed


def _demo_entities(settings: Settings, entity: Entity) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the ids and stored fields of the demo's file; none where there is no such file."""
    file = demo_files(settings)[entity]
    if not file.is_file():
        return
    for record in RecordFile(file):
        fields = {name: text for name, raw in record.values.items() if (text := stored_text(raw, name)) is not None}
        entity_id = fields.pop("id", None)
        if entity_id is not None and fields:
            yield entity_id, fields
