"""A sample of the live feature store, for the gate to compare a version's vocabulary with."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence

import redis

from app.errors import CtrError
from app.features.key_template import KeyTemplate
from app.features.loading.embedded_valkey import EmbeddedValkey, was_used
from app.features.redis_client import CLIENT_ERRORS, nodes_of, open_client, reply_text, store_error
from app.publishing.reporter import Reporter
from app.registry.artifact.manifest import GoldenRequest
from app.registry.gate.gate_task import FeatureSample
from app.settings import Settings

USERS, ITEMS = 32, 256
MAX_NAMED = 1000
SCAN_COUNT, MAX_SCANS = 1000, 100


def read_feature_sample(
    settings: Settings, reporter: Reporter, golden: Sequence[GoldenRequest] = ()
) -> FeatureSample | None:
    """Read some users and items; None if no feature store is configured, it cannot be read, or it holds neither.

    Args:
        golden: requests whose users and items are read too, as far as they are there.

    An embedded Valkey is started only if one was used before.
    """
    folder = settings.data_dir / "valkey"
    if not settings.redis_url and not was_used(folder):
        return None
    try:
        with contextlib.ExitStack() as stack:
            url = settings.redis_url or stack.enter_context(EmbeddedValkey(folder)).url
            client = stack.enter_context(open_client(url))
            named_users = {request.user_id for request in golden}
            named_items = {item_id for request in golden for item_id in request.item_ids}
            users = _read_hashes(client, settings.user_key, USERS, named_users)
            items = _read_hashes(client, settings.item_key, ITEMS, named_items)
    except (*CLIENT_ERRORS, CtrError) as error:
        reason = error if isinstance(error, CtrError) else store_error(error)
        reporter.notify(f"not compared with the feature store: {reason}")
        return None
    return FeatureSample(users, items) if users or items else None


def _scan(node: redis.Redis, key_template: KeyTemplate, count: int) -> list[bytes | str]:
    """Return at least `count` keys of one server, fewer where such keys are rare."""
    keys: list[bytes | str] = []
    cursor = 0
    for _ in range(MAX_SCANS):
        cursor, page = node.scan(cursor, match=key_template.pattern, count=SCAN_COUNT)
        keys += page
        if not cursor or len(keys) >= count:
            break
    return keys[:count]


def _read_hashes(client: redis.Redis, template: str, count: int, named: Collection[str]) -> dict[str, dict[str, str]]:
    """Read the named hashes and up to `count` others by id; the scan is cut short where such keys are rare."""
    key_template = KeyTemplate(template)
    keys: list[bytes | str] = []
    with contextlib.suppress(redis.ResponseError):  # a user or a proxy may lack SCAN; the named ones say something too
        nodes = nodes_of(client)
        for number, node in enumerate(nodes, 1):
            keys += _scan(node, key_template, count * number // len(nodes) - len(keys))
    ids = {key_template.id(reply_text(key)): key for key in keys} | {
        name: key_template.key(name) for name in sorted(named)[:MAX_NAMED]
    }
    pipeline = client.pipeline(transaction=False)
    for key in ids.values():
        pipeline.hgetall(key)
    hashes = {}
    for entity, raw in zip(ids, pipeline.execute(raise_on_error=False), strict=True):
        if isinstance(raw, CLIENT_ERRORS):
            if not str(raw).startswith("WRONGTYPE"):
                raise raw
        elif entity is not None and raw:
            hashes[entity] = {reply_text(name): reply_text(value) for name, value in raw.items()}
    return hashes
