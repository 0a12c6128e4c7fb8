"""Answers of the sample and clicks on them are counted by score: what is exported says how wrong which scores are."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.events.impression_id import ImpressionIds, now_ms
from app.events.records import Feedback
from app.features.request_ids import RequestIds
from app.observability.metrics import Metrics
from app.ranking.calibration_buckets import BUCKET_NAMES, BUCKETS, LOGITS, SPAN_S, CalibrationBuckets
from app.ranking.metric_exporters import CalibrationExporter

TOP = 5
REQUEST: Any = None


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Traffic:
    def __init__(self, remembered: int = 1000) -> None:
        self.clock = Clock()
        self.buckets = CalibrationBuckets(TOP, self.clock, remembered=remembered)
        self._ids = ImpressionIds()

    def answer(self, logits: list[float], label: str = "stable") -> Any:
        """Rank as many items, whose ids are the places in the request, best first."""
        probabilities = (1 / (1 + np.exp(-np.array(logits)))).astype(np.float32)
        order = np.argsort(-probabilities, kind="stable")
        ranking = SimpleNamespace(
            impression_id=self._ids.next(now_ms(), 7, label),
            label=label,
            candidates=RequestIds.from_strings([str(place) for place in range(len(logits))]),
            order=order,
            scores=probabilities[order],
        )
        self.buckets.on_ranked(REQUEST, ranking)  # type: ignore[arg-type]
        return ranking

    def click(self, ranking: Any, item_id: str, type_: str = "click") -> None:
        self.buckets.add([Feedback(ranking.impression_id, item_id, type_, 1, 1, None, None)])


def test_items_and_clicks_are_counted_under_the_score_that_they_had() -> None:
    traffic = Traffic()
    ranking = traffic.answer([-0.2, 3.0, -9.0, 0.2, -0.3, -4.1, -4.2])
    canary = traffic.answer([1.2], "canary")
    for item in ("2", "3", "0", "5", "nothing"):  # items 2 and 6 are not among the five best
        traffic.click(ranking, item)
    traffic.click(ranking, "1", "shown")
    traffic.click(canary, "0")
    totals = traffic.buckets.totals()
    assert named(totals["stable"].impressions) == {"-4": 1, "0": 2, "0.5": 1, "+Inf": 1}
    assert named(totals["stable"].clicks) == {"-4": 1, "0": 1, "0.5": 1}
    best = 1 / (1 + np.exp(-np.array([-0.2, 3, 0.2, -0.3, -4.1])))
    assert totals["stable"].expected.sum() == pytest.approx(best.sum())
    assert named(totals["canary"].clicks) == {"1.5": 1}


def named(counts: np.ndarray[Any, Any]) -> dict[str, int]:
    return {BUCKET_NAMES[bucket]: int(counts[bucket]) for bucket in np.flatnonzero(counts)}


def test_every_score_has_its_bucket() -> None:
    traffic = Traffic()
    middles = [LOGITS[0] - 0.25, *(logit + 0.25 for logit in LOGITS)]
    for logit in middles:
        traffic.answer([logit])
    traffic.buckets.add([])
    assert traffic.buckets.totals()["stable"].impressions.tolist() == [1] * BUCKETS
    assert len(BUCKET_NAMES) == BUCKETS == 20


def test_the_answers_before_are_forgotten_where_there_are_more() -> None:
    traffic = Traffic(remembered=4)
    answers = []
    for _ in range(6):
        answers.append(traffic.answer([0.7]))
        traffic.buckets.add([])
        traffic.clock.now_s += SPAN_S  # so that each answer is one of the sample
    for ranking in answers:
        traffic.click(ranking, "0")
    assert traffic.buckets.totals()["stable"].clicks.sum() == 4


def test_of_much_traffic_as_much_is_a_sample_as_fits_half_an_hour() -> None:
    traffic = Traffic(remembered=100)
    for _ in range(20_000):
        traffic.clock.now_s += 0.9  # 2,000 answers in half an hour: one of twenty
        traffic.answer([0.7])
        traffic.buckets.add([])
    sampled = traffic.buckets.totals()["stable"].impressions.sum()
    assert 20_000 / 22 < sampled < 20_000 / 18 + 200
    for _ in range(20_000):
        traffic.clock.now_s += 90.0  # every answer, once as few came
        traffic.answer([0.7])
        traffic.buckets.add([])
    assert traffic.buckets.totals()["stable"].impressions.sum() - sampled > 15_000


def test_what_is_exported_gives_the_error_of_each_score() -> None:
    """Low scores are true and high ones twice too high; half of the clicks came to another process (seed 41)."""
    rng = np.random.default_rng(41)
    traffic, metrics = Traffic(remembered=50_000), Metrics()
    CalibrationExporter(traffic.buckets, metrics)
    all_clicks = 0
    for _ in range(6_000):
        ranking = traffic.answer(rng.choice([-2.2, -0.2], 5).tolist())
        clicked = rng.random(5) < np.where(ranking.scores > 0.3, ranking.scores / 2, ranking.scores)
        all_clicks += int(clicked.sum())
        for item in ranking.order[clicked & (rng.random(5) < 0.5)].tolist():
            traffic.click(ranking, str(item))
    for _ in range(2):
        text = metrics.render()[0].decode()
    counted = {
        (name, bucket): float(value)
        for name, bucket, value in re.findall(
            r'ctr_calibration_(\w+)_total\{bucket="([^"]+)",label="stable"\} (\S+)', text
        )
    }
    assert {bucket for _, bucket in counted} == {"-2", "0"}
    placed = sum(value for (name, _), value in counted.items() if name == "clicks") / all_clicks
    assert placed == pytest.approx(0.5, abs=0.03)
    for bucket, ratio in (("-2", 1.0), ("0", 0.5)):
        assert counted["clicks", bucket] / placed / counted["expected_clicks", bucket] == pytest.approx(ratio, rel=0.1)
