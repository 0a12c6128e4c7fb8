"""Measures what exploration adds to a request, in the process.

Requests of 500 cached candidates are ranked, recorded (50 items) and written as JSON, with exploration and without, in
turns within one run. A quick one of ten counts, as what else runs on the machine only adds to it. No policy is asked
twice for the same: a processor learns the branches by heart that a request takes which comes again and again.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from app.api.rank_response import encode_ranking
from app.events.event_queue import EventQueue
from app.events.item_references import ItemReferences
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.features.request_ids import RequestIds
from app.ranking.exploration import Explorer
from app.ranking.impressions import AT_ONCE, ImpressionLog
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.ranking_policy import parse_label_policies
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from benchmarks.figure import Figure
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_user

RECORDED = 50
POLICIES = ("", "softmax:0.05", "softmax:1", "epsilon:0.02")


async def measure(candidates: int, top_k: int | None, rounds: int) -> dict[str, float]:
    """Return the microseconds of a quick request by policy, of some that are recorded together each."""
    with tempfile.TemporaryDirectory() as folder:
        store = ModelStore(Path(folder), MODEL_NAME)
        artifact = load(store.path(publish_tiny(store, 0)))
        users = {str(number): raw_user(number) for number in range(AT_ONCE - 1)}
        features, cache = MemoryFeatureStore(users, raw_items(candidates)), ItemCache(2 * candidates)
        await features.start(cache)
        await cache.attach(artifact)
        queue = EventQueue(10**6)
        references = ItemReferences(cache, queue)
        log = ImpressionLog(queue, references, RECORDED)
        rankers = {
            policy: Ranker(
                features,
                cache,
                lambda: LiveSnapshot(stable=artifact),
                store_timeout_s=1.0,
                references=references,
                references_top=RECORDED,
                explorer=Explorer(parse_label_policies(policy), top=RECORDED) if policy else None,
            )
            for policy in POLICIES
        }
        dice, ids = random.Random(1), [str(number) for number in range(candidates)]
        answer_s, record_s = ({policy: [] for policy in POLICIES} for _ in range(2))  # type: ignore[var-annotated]
        for _ in range(rounds):
            orders = [RequestIds.from_strings(dice.sample(ids, candidates)) for _ in users]
            requests = [RankRequest(user, order, top_k=top_k) for user, order in zip(users, orders, strict=True)]
            for policy, ranker in rankers.items():
                for request in requests:
                    began = time.perf_counter()
                    ranking = await ranker.rank(request, began + 10)
                    log.on_ranked(request, ranking)
                    encode_ranking(ranking, "request")
                    answer_s[policy].append(time.perf_counter() - began)
                began = time.perf_counter()
                log.record_noted()
                record_s[policy].append((time.perf_counter() - began) / (AT_ONCE - 1))
                queue.take(10**6)
        return {
            policy: 1e6 * sum(statistics.quantiles(took_s, n=10)[0] for took_s in (answer_s[policy], record_s[policy]))
            for policy in POLICIES
        }


def cost_of_exploring(*, candidates: int = 500, rounds: int = 500) -> list[Figure]:
    """Measure what each policy adds to answers of the best 50 and of all candidates."""
    figures = []
    for top_k in (RECORDED, None):
        least = asyncio.run(measure(candidates, top_k, rounds))
        figures += [
            Figure(
                f"{policy} of {candidates} candidates, {top_k or candidates} answered",
                "at most",
                15.0,
                " us",
                reached=least[policy] - least[""],
                note=f"of {least['']:.0f} us without",
            )
            for policy in POLICIES[1:]
        ]
    return figures
