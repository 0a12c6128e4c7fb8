"""`ignored_features`: what a request sent that no field of the version reads, so that a typo is not silent.

It is named and not refused: versions differ in their fields, and a caller does not know which of them will answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact

MAX_NAMED, MAX_NAME = 20, 120


def ignored_features(artifact: Artifact, request: RankRequest) -> list[str]:
    """Return the places in the request, such as `context.huor`, of what the version did not read; at most MAX_NAMED."""
    named: list[str] = []
    for place in _ignored(artifact, request):
        if len(named) == MAX_NAMED:
            break
        named.append(place[:MAX_NAME])
    return named


def _ignored(artifact: Artifact, request: RankRequest) -> Iterator[str]:
    of_user, of_item = artifact.user_encoder.overridable, artifact.item_encoder.overridable
    yield from (f"context.{name}" for name in request.context if name not in of_user)
    yield from (f"user_features.{name}" for name in request.user_features if name not in of_user)
    sent = request.item_features
    if not sent:
        return
    candidates = frozenset(request.item_ids)
    if candidates.issuperset(sent) and of_item.issuperset(chain.from_iterable(sent.values())):
        return  # as nearly always, found out in a third of the time
    for item_id, features in sent.items():
        if item_id not in candidates:
            yield f"item_features.{item_id}"
        elif not of_item.issuperset(features):
            yield from (f"item_features.{item_id}.{name}" for name in features if name not in of_item)
