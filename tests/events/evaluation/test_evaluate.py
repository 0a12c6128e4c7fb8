"""A log with exploration tells what other orders and versions would have brought; one without says that it cannot."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

from app.errors import DataError
from app.events.evaluation.evaluate import Evaluation, evaluate
from app.events.evaluation.recorded_answers import Period, joined_answers, logged_answers
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from app.events.item_references import ItemReferences
from app.events.joining.join import join
from app.events.records import Feedback
from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.exploration import Explorer
from app.ranking.impressions import ImpressionLog
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.ranking_policy import parse_label_policies, parse_policy
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, publish_tiny, raw_items, raw_users

TOP, PLACES, EXPLORED, PLAIN = 15, 3, 600, 20
IDS = [str(number) for number in range(12)]
WINDOW = timedelta(minutes=30)
LATER = timedelta(hours=3)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    store = ModelStore(tmp_path_factory.mktemp("store"), MODEL_NAME)
    return [load(store.path(publish_tiny(store, seed))) for seed in range(2)]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, versions: list[Artifact]) -> Path:
    """A log of two hours ago: of some users the orders were drawn, of others not; every item of even id is clicked."""
    return write(tmp_path_factory.mktemp("events"), versions[0], "softmax:3", EXPLORED)


def write(folder: Path, artifact: Artifact, policy: str, explored: int) -> Path:
    async def serve() -> None:
        features, cache = MemoryFeatureStore(raw_users(), raw_items()), ItemCache(capacity=256)
        queue = EventQueue(10**6)
        writer = EventWriter(queue, folder)
        writer.start()
        await features.start(cache)
        await cache.attach(artifact)
        references = ItemReferences(cache, queue)
        log = ImpressionLog(queue, references, TOP)
        cache.before_change = log.record_noted
        rankers = [
            Ranker(
                features,
                cache,
                lambda: LiveSnapshot(stable=artifact),
                store_timeout_s=1.0,
                references=references,
                references_top=TOP,
                explorer=explorer,
            )
            for explorer in (Explorer(parse_label_policies(policy)), None)
        ]
        for number in range(explored + PLAIN):
            request = RankRequest(str(number % 40), IDS, context={"hour": number % 24})
            ranking = await rankers[number >= explored].rank(request, time.perf_counter() + 10)
            log.on_ranked(request, ranking)
            assert ranking.impression_id is not None
            at_us = time.time_ns() // 1000
            for item_id in ranking.item_ids[:PLACES]:
                if int(item_id) % 2 == 0:
                    queue.put(Feedback(ranking.impression_id, item_id, "click", at_us, at_us, None, None))
        log.record_noted()
        writer.stop()

    asyncio.run(serve())
    return folder


@pytest.fixture(scope="module")
def joined(events: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joined")
    join(events, out, window=WINDOW, until=datetime.now(UTC) + LATER)
    return out


def found_in(joined: Path, policy: str, artifact: Artifact | None = None) -> Evaluation:
    return evaluate(joined_answers(joined, Period()), parse_policy(policy), PLACES, artifact=artifact)


def test_what_was_shown_is_the_mean_of_the_clicks_and_answers_without_propensities_are_left_out(
    joined: Path,
) -> None:
    found = found_in(joined, "greedy")
    answers = pl.concat(pl.read_parquet(path) for path in (joined / "answers").glob("*.parquet"))
    drawn = answers.filter(pl.col("policy") == "softmax")
    clicks = [sum(label == 1 for label in labels[:PLACES]) for labels in drawn["labels"].to_list()]
    assert (found.sums.answers, found.left_out) == (EXPLORED, PLAIN)
    assert found.sums.logged().value == pytest.approx(np.mean(clicks))
    assert found.policies == {"softmax:3": EXPLORED}
    assert found.complete == EXPLORED


def test_the_same_policy_by_the_same_version_gains_nothing(joined: Path, versions: list[Artifact]) -> None:
    for artifact in (None, versions[0]):
        found = found_in(joined, "softmax:3", artifact)
        assert found.sums.gain() == pytest.approx((0.0, 0.0), abs=1e-4)
        assert found.sums.mean_weights == pytest.approx([1.0] * PLACES, abs=1e-4)


def test_another_version_is_evaluated_as_it_would_order(joined: Path, versions: list[Artifact]) -> None:
    """What it would bring is known: all candidates are recorded, and clicks follow from ids alone."""
    found = evaluate(joined_answers(joined, Period()), parse_policy("greedy"), 1, artifact=versions[1])
    estimate = found.sums.snips()
    best = asyncio.run(best_items(versions[1]))
    true = np.mean([int(item_id) % 2 == 0 for item_id in best])
    assert abs(estimate.value - true) < 5 * estimate.error + 0.02
    by_logged = evaluate(joined_answers(joined, Period()), parse_policy("greedy"), 1)
    assert by_logged.sums.snips().value != estimate.value


async def best_items(artifact: Artifact) -> list[str]:
    """Return the items that a version puts first for the requests of the log."""
    features, cache = MemoryFeatureStore(raw_users(), raw_items()), ItemCache(capacity=256)
    await features.start(cache)
    await cache.attach(artifact)
    ranker = Ranker(features, cache, lambda: LiveSnapshot(stable=artifact), store_timeout_s=1.0)
    requests = [RankRequest(str(number % 40), IDS, context={"hour": number % 24}) for number in range(120)]
    return [(await ranker.rank(request, time.perf_counter() + 10)).item_ids[0] for request in requests]


def test_the_log_itself_says_the_same_once_the_window_is_over(events: Path, joined: Path) -> None:
    early = logged_answers(events, Period(), window=WINDOW, label="click")
    with pytest.raises(DataError, match="once the window after them is over"):
        evaluate(early, parse_policy("greedy"), PLACES)
    source = logged_answers(events, Period(), window=timedelta(microseconds=1) - timedelta(hours=1), label="none")
    assert evaluate(source, parse_policy("greedy"), PLACES).sums.answers == EXPLORED


def test_a_period_bounds_the_answers(joined: Path) -> None:
    at = pl.concat(pl.read_parquet(path) for path in (joined / "answers").glob("*.parquet"))["at"].sort()
    middle = at[100]
    first = evaluate(joined_answers(joined, Period(until=middle)), parse_policy("greedy"), 1)
    second = evaluate(joined_answers(joined, Period(since=middle)), parse_policy("greedy"), 1)
    assert first.sums.answers + second.sums.answers == EXPLORED
    with pytest.raises(DataError, match="no answers are recorded in that time"):
        evaluate(joined_answers(joined, Period(since=at[-1] + LATER)), parse_policy("greedy"), 1)


def test_a_log_of_descending_scores_is_refused(tmp_path: Path, versions: list[Artifact]) -> None:
    write(tmp_path / "events", versions[0], "softmax:1", 0)
    join(tmp_path / "events", tmp_path / "joined", window=WINDOW, until=datetime.now(UTC) + LATER)
    with pytest.raises(DataError, match=r"none of the 20 answers has propensities.*CTR_EXPLORE=softmax:0\.05"):
        found_in(tmp_path / "joined", "greedy")


def test_a_folder_without_rows_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`ctr join --events DIR --out"):
        found_in(tmp_path, "greedy")
