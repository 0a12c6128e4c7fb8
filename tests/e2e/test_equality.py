"""Fast is worth nothing if it is not the same: HTTP against `forward`, and updates against their own past."""

from __future__ import annotations

import random
import threading
import time

import httpx
import numpy as np
import redis

from app.features.slots import Slots
from app.registry.artifact import load
from app.registry.model_store import ModelStore
from tests.e2e.conftest import Serve
from tests.factories import publish_tiny, raw_item, raw_items, raw_user, raw_users, redis_text
from tests.ranking.conftest import expected

PAIRS, CANDIDATES, CATALOGUE = 10_000, 100, 1000
SEEN_WITHIN_S = 0.05
YEARS = range(1931, 2011, 10)


def test_ten_thousand_random_pairs_score_as_forward_scores_them(
    store: ModelStore, redis_client: redis.Redis, serve: Serve
) -> None:
    publish_tiny(store)
    artifact = load(store.path(1))
    users, items = raw_users(200), raw_items(CATALOGUE)
    with redis_client.pipeline() as pipeline:
        for kind, entities in (("user", users), ("item", items)):
            for number, raw in entities.items():
                pipeline.hset(f"ctr:v1:{kind}:{number}", mapping=redis_text(raw))
        pipeline.execute()
    service = serve()
    dice = random.Random(0)
    worst, compared = 0.0, 0
    with httpx.Client(base_url=service.url) as client:
        while compared < PAIRS:
            user, candidates = dice.choice(list(users)), dice.sample(list(items), CANDIDATES)
            answer = client.post("/rank", json={"user_id": user, "item_ids": candidates}).json()
            assert answer["degraded"] == []
            ranked = [item["item_id"] for item in answer["items"]]
            assert sorted(ranked) == sorted(candidates)
            encoded = artifact.item_encoder.encode_many([items[i] for i in ranked], ranked)
            wanted = artifact.reference(artifact.user_encoder.encode(users[user], user), Slots(*encoded)).numpy()
            scores = np.array([item["score"] for item in answer["items"]])
            worst = max(worst, float(np.abs(scores - wanted).max()))
            compared += len(ranked)
    assert worst <= 1e-5


def test_no_old_score_is_seen_once_an_update_is_acknowledged(
    store: ModelStore, loaded: redis.Redis, serve: Serve
) -> None:
    publish_tiny(store)
    artifact = load(store.path(1))
    ids = [str(number) for number in range(10)]
    by_year = {
        year: expected(artifact, "4", raw_user(4), {i: raw_item(int(i)) | {"year": year} for i in ids})
        for year in YEARS
    }
    dice = random.Random(1)
    history: dict[str, list[tuple[float, int]]] = {i: [] for i in ids}  # (acknowledged at, year)

    def write(item_id: str, year: int) -> None:
        loaded.hset(f"ctr:v1:item:{item_id}", mapping={"year": str(year)})
        history[item_id].append((time.monotonic(), year))

    for item_id in ids:
        write(item_id, dice.choice(YEARS))
    service = serve()
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            write(dice.choice(ids), dice.choice(YEARS))
            time.sleep(dice.random() * 0.004)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    seen_late = 0
    try:
        with httpx.Client(base_url=service.url) as client:
            for _ in range(400):
                asked = time.monotonic()
                known = {i: len(history[i]) for i in ids}
                answer = client.post("/rank", json={"user_id": "4", "item_ids": ids}).json()
                assert answer["degraded"] == []
                for item in answer["items"]:
                    item_id, score = item["item_id"], item["score"]
                    # Acceptable: what was current 50 ms before the request, and anything written since.
                    before = [n for n in range(known[item_id]) if history[item_id][n][0] <= asked - SEEN_WITHIN_S]
                    current = history[item_id][max(before[-1] if before else 0, 0) :]
                    acceptable = {year for _, year in current}
                    if not any(abs(by_year[year][item_id] - score) <= 1e-5 for year in acceptable):
                        time.sleep(0.01)  # a write under way when we asked may be acknowledged only now
                        acceptable = {year for _, year in history[item_id][max(before[-1] if before else 0, 0) :]}
                        assert any(abs(by_year[year][item_id] - score) <= 1e-5 for year in acceptable), (
                            item_id,
                            score,
                            acceptable,
                        )
                    latest = history[item_id][known[item_id] - 1][1]
                    seen_late += abs(by_year[latest][item_id] - score) > 1e-5
    finally:
        stop.set()
        writer.join()
    assert sum(len(writes) for writes in history.values()) > 200, "there were updates to miss"
    assert seen_late < 4000 * 0.2, "and nearly all were seen by the request after them"
