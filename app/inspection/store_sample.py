"""A sample of one side's hashes in the feature store, those of given ids among them, and the forms of other keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import redis

from app.features.key_template import KeyTemplate
from app.features.redis_client import CLIENT_ERRORS, nodes_of, reply_text

SCAN_COUNT, MAX_SCANS = 1000, 200
OTHER_KEYS = 1000
"""Keys that are looked at, to say what is there instead, where no key fits the template."""


@dataclass
class StoreSample:
    """What was read of the users or of the items."""

    template: str
    hashes: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fields as they are stored, by id."""
    asked: int = 0
    """How many of the ids that were asked for were looked up."""
    found: int = 0
    """How many of these have a hash."""
    wrong_type: list[str] = field(default_factory=list)
    """Keys that fit the template and hold something else than a hash."""
    others: list[tuple[str, int]] = field(default_factory=list)
    """Where no key fits: the forms of the keys that are there instead, `user:N`, with their number."""
    can_scan: bool = True


def sample_store(client: redis.Redis, template: str, count: int, ids: Sequence[str] = ()) -> StoreSample:
    """Read up to `count` hashes: those of these ids, and others.

    Raises what `app.features.redis_client.store_errors` makes the project's errors.
    """
    sample, keys = StoreSample(template), KeyTemplate(template)
    asked = list(dict.fromkeys(ids))[:count]
    sample.asked = len(asked)
    _read(client, keys, asked, sample)
    sample.found = len(sample.hashes)
    try:
        others = list(_scan(client, keys, count))
    except redis.ResponseError:  # a user or a proxy may lack SCAN; the named ones say something too
        sample.can_scan = False
        return sample
    unread = [one for one in others if one not in sample.hashes and one not in asked]
    _read(client, keys, unread[: max(count - len(sample.hashes), 0)], sample)
    if not others and not sample.hashes:
        sample.others = _forms(client)
    return sample


def _read(client: redis.Redis, keys: KeyTemplate, ids: Sequence[str], sample: StoreSample) -> None:
    pipeline = client.pipeline(transaction=False)
    for one in ids:
        pipeline.hgetall(keys.key(one))
    for one, raw in zip(ids, pipeline.execute(raise_on_error=False) if ids else (), strict=True):
        if isinstance(raw, CLIENT_ERRORS):
            if not str(raw).startswith("WRONGTYPE"):
                raise raw
            sample.wrong_type.append(keys.key(one))
        elif raw:
            sample.hashes[one] = {reply_text(name): reply_text(value) for name, value in raw.items()}


def _scan(client: redis.Redis, keys: KeyTemplate, count: int) -> Iterator[str]:
    """Yield ids of keys that fit the template, of all servers; the scan is cut short where they are rare."""
    for node in nodes_of(client):
        cursor, seen = 0, 0
        for _ in range(MAX_SCANS):
            cursor, page = node.scan(cursor, match=keys.pattern, count=SCAN_COUNT)
            for key in page:
                one = keys.id(reply_text(key))
                if one is not None:
                    seen += 1
                    yield one
            if not cursor or seen >= count:
                break


def _forms(client: redis.Redis) -> list[tuple[str, int]]:
    """Return the most frequent forms of the keys that are there."""
    forms: Counter[str] = Counter()
    for node in nodes_of(client):
        cursor = 0
        for _ in range(MAX_SCANS):
            cursor, page = node.scan(cursor, count=SCAN_COUNT)
            forms.update(re.sub(r"\d+", "N", reply_text(key)[:80]) for key in page)
            if not cursor or forms.total() >= OTHER_KEYS:
                break
    return forms.most_common(3)
