"""A sample of the live feature store, for the gate to compare a version's vocabulary with."""

from __future__ import annotations

import contextlib

import redis

from app.errors import CtrError
from app.features.key_template import KeyTemplate
from app.features.loading.embedded_valkey import EmbeddedValkey
from app.features.redis_client import open_client
from app.publishing.reporter import Reporter
from app.registry.gate.gate_task import FeatureSample
from app.settings import Settings

USERS, ITEMS = 32, 256
SCAN_COUNT, MAX_SCANS = 1000, 100


def read_feature_sample(settings: Settings, reporter: Reporter) -> FeatureSample | None:
    """Read some users and items; None if no feature store is configured, it cannot be read, or it holds neither.

    An embedded Valkey is started only if one was used before.
    """
    folder = settings.data_dir / "valkey"
    if not settings.redis_url and not any((folder / name).exists() for name in ("server.json", "features.rdb")):
        return None
    try:
        with contextlib.ExitStack() as stack:
            url = settings.redis_url or stack.enter_context(EmbeddedValkey(folder)).url
            client = stack.enter_context(open_client(url))
            users = _read_hashes(client, settings.user_key, USERS)
            items = _read_hashes(client, settings.item_key, ITEMS)
    except (redis.RedisError, CtrError) as error:
        reporter.notify(f"not compared with the feature store: {error}")
        return None
    return FeatureSample(users, items) if users or items else None


def _read_hashes(client: redis.Redis, template: str, count: int) -> dict[str, dict[str, str]]:
    """Read up to `count` hashes by id; the scan is cut short where such keys are rare among others."""
    key_template = KeyTemplate(template)
    keys: list[bytes | str] = []
    cursor = 0
    for _ in range(MAX_SCANS):
        cursor, page = client.scan(cursor, match=key_template.pattern, count=SCAN_COUNT, _type="HASH")
        keys += page
        if not cursor or len(keys) >= count:
            break
    pipeline = client.pipeline(transaction=False)
    for key in keys[:count]:
        pipeline.hgetall(key)
    hashes = {}
    for key, raw in zip(keys, pipeline.execute(), strict=False):
        entity = key_template.id(_text(key))
        if entity is not None:
            hashes[entity] = {_text(name): _text(value) for name, value in raw.items()}
    return hashes


def _text(raw: bytes | str) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
