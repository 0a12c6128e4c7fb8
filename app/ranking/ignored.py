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


async def ignored_features(artifact: Artifact, request: RankRequest, turns: SliceTurns, due: float) -> list[str]:
    """Return the places in the request, such as `context.huor`, of what the version did not read; at most MAX_NAMED.

    Args:
        turns: others have a turn before each slice of the items of a request in slices.

    Raises DeadlinePassed if `time.perf_counter()` is at `due` when such a turn comes.
    """
    named = list(islice(_ignored_of_user(artifact.user_encoder.overridable, request), MAX_NAMED))
    sent = request.item_features
    if sent:
        fields, candidates = artifact.item_encoder.overridable, frozenset(request.item_ids)
        if not request.in_slices:
            named += islice(_ignored_of_items(fields, candidates, sent), MAX_NAMED)
        else:
            unseen = iter(sent.items())
            while len(named) < MAX_NAMED and (some := dict(islice(unseen, SLICE))):
                await turns.next_before(due, "the fields that nothing reads were named")
                named += islice(_ignored_of_items(fields, candidates, some), MAX_NAMED)
    return [place[:MAX_NAME] for place in named[:MAX_NAMED]]


def _ignored_of_user(fields: frozenset[str], request: RankRequest) -> Iterator[str]:
    """Yield the places of the context and of the user's values that no field reads."""
    yield from (f"context.{name}" for name in request.context if name not in fields)
    yield from (f"user_features.{name}" for name in request.user_features if name not in fields)


def _ignored_of_items(
    fields: frozenset[str], candidates: frozenset[str], sent: Mapping[str, RawFeatures]
) -> Iterator[str]:
    """Yield the places of values sent for items that are no candidates, and of those that no field reads."""
    if candidates.issuperset(sent) and fields.issuperset(chain.from_iterable(sent.values())):
        return  # as nearly always, found out in a third of the time
    for item_id, features in sent.items():
        if item_id not in candidates:
            yield f"item_features.{item_id}"
        elif not fields.issuperset(features):
            yield from (f"item_features.{item_id}.{name}" for name in features if name not in fields)
