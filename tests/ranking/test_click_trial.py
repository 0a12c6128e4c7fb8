"""Clicks are counted for the canary that is live, as the event log has written them, and a worse canary is reported."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.events.impression_id import ImpressionIds, now_ms
from app.events.records import Feedback, ImpressionBlock
from app.ranking.canary import CanaryFailure
from app.ranking.click_trial import CHECK_EVERY, ClickTrial
from app.ranking.shared_click_rates import EXCHANGE_EVERY_S, SharedClickRates
from app.registry.lifecycle.snapshot import LiveSnapshot
from tests.events.records import Impression, block, impression
from tests.ranking.test_monitor import Version, live

REQUEST: Any = None
RANKING: Any = None


class Traffic:
    """A trial, and records for it."""

    def __init__(self, shared: SharedClickRates | None = None, first_user: int = 0) -> None:
        self.live: LiveSnapshot = live(stable=1, canary=2)
        self.failures: list[tuple[int, CanaryFailure]] = []
        self.trial = ClickTrial(
            lambda: self.live, 0.05, lambda version, failure: self.failures.append((version, failure)), shared
        )
        self.trial.add([])  # so that it has begun
        self._ids = ImpressionIds()
        self._user = first_user

    def answer(self, label: str, version: int, *, pinned: bool = False, at_ms: int | None = None) -> Impression:
        self._user += 1
        name = self._ids.next(at_ms or now_ms(), version, label, pinned=pinned, user_id=str(self._user))
        return impression(self._user)._replace(impression_id=name, version=version, label=label)

    def click(self, answer: Impression, type_: str = "click") -> Feedback:
        return Feedback(answer.impression_id, "1", type_, 1, 1, None, None)

    def serve(self, requests: int, *, stable: float, canary: float) -> None:
        """Answer so many requests of each, with clicks on these shares of them, evenly spread."""
        for number in range(requests):
            records: list[ImpressionBlock | Feedback] = []
            for label, version, rate in (("stable", 1, stable), ("canary", 2, canary)):
                answer = self.answer(label, version)
                records.append(block(answer))
                if int((number + 1) * rate) > int(number * rate):
                    records.append(self.click(answer))
            self.trial.add(records)
        self.trial.on_ranked(REQUEST, RANKING)


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


def test_a_canary_with_fewer_clicks_is_reported_once_with_the_next_answer(traffic: Traffic) -> None:
    traffic.serve(3000, stable=0.2, canary=0.1)
    ((version, failure),) = traffic.failures
    assert (version, failure.reason) == (2, "clicks")
    assert failure.figures["difference_high"] < 0
    assert f"{failure.figures['clicks']} clicks" in failure.detail
    traffic.serve(500, stable=0.2, canary=0.1)
    assert len(traffic.failures) == 1
    found = traffic.trial.interval()
    assert found is not None
    assert found.difference == pytest.approx(-2 / 3, abs=0.02)


def test_one_with_more_clicks_stays_and_is_said_once(traffic: Traffic) -> None:
    with capture_logs() as lines:
        traffic.serve(3000, stable=0.1, canary=0.2)
    (line,) = [line for line in lines if line["event"] == "canary_clicked_more"]
    assert line["version"] == 2
    assert line["difference_low"] > 0
    assert traffic.failures == []


def test_one_with_as_many_stays(traffic: Traffic) -> None:
    traffic.serve(3000, stable=0.15, canary=0.15)
    assert traffic.failures == []
    found = traffic.trial.interval()
    assert found is not None
    assert found.low < 0 < found.high


def test_clicks_on_what_is_not_compared_do_not_count(traffic: Traffic) -> None:
    traffic.serve(1000, stable=0.2, canary=0.2)
    before = traffic.trial.interval()
    assert before is not None
    strangers = [
        traffic.answer("canary", 2, pinned=True),
        traffic.answer("stable", 9),
        traffic.answer("", 2),
        traffic.answer("canary", 2, at_ms=now_ms() - 60_000),  # before this canary's share was what it is
    ]
    shown = traffic.answer("canary", 2)
    for _ in range(CHECK_EVERY):
        traffic.trial.add([*strangers, *map(traffic.click, strangers), traffic.click(shown, "shown")])
        traffic.trial.add([traffic.click(impression(1)._replace(impression_id="order-17")._replace())])
    traffic.serve(1000, stable=0.2, canary=0.2)
    after = traffic.trial.interval()
    assert after is not None
    assert after.clicks - before.clicks == 200


@pytest.mark.parametrize(
    "change",
    [
        lambda now: replace(now, canary_share=0.5),
        lambda now: replace(now, canary=Version(3)),
        lambda now: replace(now, stable=Version(5)),
    ],
)
def test_another_canary_stable_or_share_is_another_trial(traffic: Traffic, change: Any) -> None:
    traffic.serve(1000, stable=0.2, canary=0.2)
    assert traffic.trial.interval() is not None
    traffic.live = change(traffic.live)
    assert traffic.trial.interval() is None


def test_without_a_canary_nothing_is_counted_or_said(traffic: Traffic) -> None:
    traffic.live = LiveSnapshot(stable=SimpleNamespace(version=1, manifest_sha256="1"))  # type: ignore[arg-type]
    traffic.serve(1000, stable=0.2, canary=0.01)
    assert traffic.trial.interval() is None
    assert traffic.failures == []


def test_workers_that_share_what_they_count_find_together_what_neither_finds_alone(tmp_path: Path) -> None:
    alone = Traffic()
    alone.serve(400, stable=0.2, canary=0.12)
    assert alone.failures == []
    clock = itertools.count(0.0, EXCHANGE_EVERY_S)  # each look is an exchange
    workers = [Traffic(SharedClickRates(tmp_path, lambda: next(clock)), 100_000 * number) for number in range(3)]
    for _ in range(40):
        for worker in workers:
            worker.serve(10, stable=0.2, canary=0.12)
    assert [failure.reason for worker in workers for _, failure in worker.failures]
