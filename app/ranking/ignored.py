"""`ignored_features`: what a request sent that no field of the version reads, so that a typo is not silent.

It is named and not refused: versions differ in their fields, and a caller does not know which of them will answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from app.features.store import RawFeatures
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.runtime.loop_pacer import SliceTurns

MAX_NAMED, MAX_NAME = 20, 120
SLICE = 512
"""Items of a request in slices that are gone through at a time: a tenth of a millisecond."""


async def ignored_features(artifact: Artifact, request: RankRequest, turns: SliceTurns) -> list[str]:
    """Return the places in the request, such as `context.huor`, of what the version did not read; at most MAX_NAMED.

    Args:
        turns: others have a turn before each slice of the items of a request in slices.
    """
    of_user, of_item = artifact.user_encoder.overridable, artifact.item_encoder.overridable
    named = [f"context.{name}" for name in request.context if name not in of_user]
    named += [f"user_features.{name}" for name in request.user_features if name not in of_user]
    if request.item_features:
        candidates = frozenset(request.item_ids)
        sent = iter(request.item_features.items())
        at_once = SLICE if request.in_slices else len(request.item_features)
        while len(named) < MAX_NAMED and (some := dict(islice(sent, at_once))):
            if request.in_slices:
                await turns.next()
            named += islice(_ignored_of_items(of_item, candidates, some), MAX_NAMED)
    return [place[:MAX_NAME] for place in named[:MAX_NAMED]]


def _ignored_of_items(
    of_item: frozenset[str], candidates: frozenset[str], sent: Mapping[str, RawFeatures]
) -> Iterator[str]:
    if candidates.issuperset(sent) and of_item.issuperset(chain.from_iterable(sent.values())):
        return  # as nearly always, found out in a third of the time
    for item_id, features in sent.items():
        if item_id not in candidates:
            yield f"item_features.{item_id}"
        elif not of_item.issuperset(features):
            yield from (f"item_features.{item_id}.{name}" for name in features if name not in of_item)
