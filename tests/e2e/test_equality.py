"""Tests that answers over HTTP are those of `forward`, and that no old score is seen after an update."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass

import numpy as np

from app.features.slots import Slots
from tests import loopback
from tests.e2e.conftest import SHARED_ITEMS, SHARED_USERS, Shared, fill
from tests.factories import raw_item, raw_items, raw_user, raw_users
from tests.ranking.conftest import expected

PAIRS, CANDIDATES = 10_000, 100
SEEN_WITHIN_S = 0.05
REQUESTS, WRITES = 400, 200
YEARS = range(1931, 2011, 10)


def test_ten_thousand_random_pairs_score_as_forward_scores_them(shared: Shared) -> None:
    artifact = shared.artifact
    users, items = raw_users(SHARED_USERS), raw_items(SHARED_ITEMS)
    dice = random.Random(0)
    worst, compared = 0.0, 0
    with loopback.http_client(base_url=shared.service.url) as client:
        while compared < PAIRS:
            user, candidates = dice.choice(list(users)), dice.sample(list(items), CANDIDATES)
            answer = client.post("/rank", json={"user_id": user, "item_ids": candidates}).json()
            assert answer["degraded"] == []
            ranked = [item["item_id"] for item in answer["items"]]
            assert sorted(ranked) == sorted(candidates)
            encoded = artifact.item_encoder.encode_many([items[i] for i in ranked], ranked)
            expected_scores = artifact.score_by_forward(
                artifact.user_encoder.encode(users[user], user), Slots(*encoded)
            ).numpy()
            scores = np.array([item["score"] for item in answer["items"]])
            worst = max(worst, float(np.abs(scores - expected_scores).max()))
            compared += len(ranked)
    assert worst <= 1e-5


@dataclass
class Write:
    year: int
    acknowledged_at: float = float("inf")


def test_no_old_score_is_seen_once_an_update_is_acknowledged(shared: Shared) -> None:
    ids = [str(SHARED_ITEMS + number) for number in range(10)]  # no other test's
    by_year = {
        year: expected(shared.artifact, "4", raw_user(4), {i: raw_item(int(i)) | {"year": year} for i in ids})
        for year in YEARS
    }
    fill(shared.features, {}, {i: raw_item(int(i)) for i in ids})
    dice = random.Random(1)
    history: dict[str, list[Write]] = {i: [] for i in ids}

    def write(item_id: str, year: int) -> None:
        written = Write(year)
        history[item_id].append(written)
        shared.features.hset(f"ctr:v1:item:{item_id}", mapping={"year": str(year)})
        # The store sends invalidations at the end of a turn: this is answered in a later one.
        shared.features.ping()
        written.acknowledged_at = time.monotonic()

    def is_current_since(item_id: str, score: float, since_s: float) -> bool:
        """Return whether the score is of the item as it was then, or as it was written since."""
        writes = list(history[item_id])
        current = max((n for n, written in enumerate(writes) if written.acknowledged_at <= since_s), default=0)
        return any(abs(by_year[written.year][item_id] - score) <= 1e-5 for written in writes[current:])

    for item_id in ids:
        write(item_id, dice.choice(YEARS))
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            write(dice.choice(ids), dice.choice(YEARS))
            time.sleep(dice.random() * 0.004)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    requests = seen_late = 0
    try:
        with loopback.http_client(base_url=shared.service.url) as client:
            while requests < REQUESTS or sum(map(len, history.values())) <= WRITES:
                requested_at = time.monotonic()
                answer = client.post("/rank", json={"user_id": "4", "item_ids": ids}).json()
                assert answer["degraded"] == []
                for item in answer["items"]:
                    item_id, score = item["item_id"], item["score"]
                    assert is_current_since(item_id, score, requested_at - SEEN_WITHIN_S), (
                        item_id,
                        score,
                        history[item_id],
                    )
                    seen_late += not is_current_since(item_id, score, requested_at)
                requests += 1
                assert writer.is_alive()
    finally:
        stop.set()
        writer.join()
    assert seen_late < requests * len(ids) * 0.2, "nearly all were seen by the request after them"
