"""What was shown, expected and clicked is counted for the version that answered, each record once."""

from __future__ import annotations

import pytest

from app.events.impression_id import ImpressionIds
from app.events.outcome_counts import UNKNOWN, OutcomeCounts
from app.events.records import Feedback, Record
from tests.events.records import block, blocks, impression, item


def feedback(request_id: str, item_id: str = "1", type_: str = "click", name: str | None = None) -> Feedback:
    return Feedback(request_id, item_id, type_, 1, 1, None, name)


def test_clicks_and_expected_clicks_are_of_the_version_that_answered() -> None:
    ids, counts = ImpressionIds(), OutcomeCounts()
    shown: list[Record] = [*blocks(impression(number, items=3) for number in range(4))]
    shown.append(block(impression(5)._replace(version=8, label="canary")))
    counts.add([*shown, item(1)])
    counts.add([feedback(ids.next(1, 7, "stable"), type_=kind) for kind in ("click", "click", "shown")])
    counts.add([feedback(ids.next(1, 8, "canary")), feedback("own-1")])
    totals = counts.totals()
    assert totals.impressions == {("7", "stable"): 12, ("8", "canary"): 3}
    assert totals.expected == {("7", "stable"): pytest.approx(6), ("8", "canary"): pytest.approx(1.5)}
    assert totals.feedback == {
        ("7", "stable", "click"): 2,
        ("7", "stable", "shown"): 1,
        ("8", "canary", "click"): 1,
        (*UNKNOWN, "click"): 1,
    }


def test_what_is_sent_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.events.outcome_counts.REMEMBERED", 3)
    counts, request_id = OutcomeCounts(), ImpressionIds().next(1, 7, "stable")
    for _ in range(2):
        counts.add([feedback(request_id, name="a"), feedback(request_id, "2"), feedback(request_id, "2", "shown")])
    assert counts.totals().feedback == {("7", "stable", "click"): 2, ("7", "stable", "shown"): 1}
    counts.add([feedback(request_id, str(number)) for number in range(10, 13)])
    counts.add([feedback(request_id, name="a")])
    assert counts.totals().feedback["7", "stable", "click"] == 6, "what is long ago is not remembered"


def test_totals_are_a_copy() -> None:
    counts = OutcomeCounts()
    before = counts.totals()
    counts.add([block(impression(1))])
    assert not before.impressions
