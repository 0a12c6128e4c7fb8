"""The rules that say whether probabilities are true: rarely wrong whatever the traffic, and soon where a tenth is off.

Simulations have the seeds that they say, and read threshold, growth and duration from deploy/prometheus/rules.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from tests.pages import ROOT
from tests.promql import Prometheus

GROUPS = {
    group["name"]: group for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yaml").read_text())["groups"]
}
RULES = {rule["record"]: rule["expr"] for rule in GROUPS["ctr-calibration"]["rules"]}
(ALERT,) = [rule for rule in GROUPS["ctr-serving"]["rules"] if rule.get("alert") == "CtrProbabilitiesUntrue"]
(THRESHOLD,) = {float(number) for number in re.findall(r"evidence >= (\d+)", ALERT["expr"])}
HOLD_MINUTES = int(ALERT["for"].removesuffix("m"))
DAY = 1440
RATIOS = np.array([[1.1], [0.9]])
LOG_RATIOS = np.log(RATIOS)
MOST = 1e6


class Evidence:
    """What the rules record, for many services at once: [2, services], of more and of fewer clicks."""

    def __init__(self, services: int) -> None:
        self.value = np.zeros((2, services))
        self._minutes_over = np.zeros(services)

    def add(self, clicks: npt.NDArray[np.float64], expected: float) -> npt.NDArray[np.bool_]:
        """Add a minute; return which services' alerts fire."""
        ratio = np.exp(LOG_RATIOS * clicks - (RATIOS - 1) * expected)
        self.value = np.minimum((self.value + 1 / DAY) * ratio, MOST)
        more, fewer = self.value >= THRESHOLD
        self._minutes_over = (self._minutes_over + 1) * (more | fewer)
        return self._minutes_over > HOLD_MINUTES


def minutes(
    rng: np.random.Generator, services: int, clicks_a_day: float, days: float, ratio: float = 1.0
) -> Iterator[tuple[npt.NDArray[np.float64], float]]:
    """Yield the clicks of each service, and those expected, minute by minute; they are drawn an hour at once."""
    expected = clicks_a_day / DAY
    left = int(days * DAY)
    while left:
        drawn = rng.poisson(ratio * expected, (min(left, 60), services)).astype(np.float64)
        left -= len(drawn)
        for clicks in drawn:
            yield clicks, expected


@pytest.mark.parametrize("clicks_a_day", [100, 1_000, 10_000, 100_000])
def test_true_probabilities_alarm_less_than_once_a_month(clicks_a_day: float) -> None:
    """Ten years, as 120 services for a month each (seed 31); an alarm that comes again within a day is the same."""
    rng = np.random.default_rng(31)
    evidence, services = Evidence(120), 120
    alarms, last = 0, np.full(services, -math.inf)
    for minute, (clicks, expected) in enumerate(minutes(rng, services, clicks_a_day, 30.4)):
        firing = evidence.add(clicks, expected)
        if firing.any():
            alarms += int((firing & (minute - last > DAY)).sum())
            last[firing] = minute
    assert alarms < 120


@pytest.mark.parametrize("ratio", [1.1, 0.9])
@pytest.mark.parametrize(("clicks_a_day", "most"), [(100, 500), (300, 850), (1_000, 1_150), (10_000, 2_100)])
def test_a_tenth_off_alarms_after_a_thousand_clicks(ratio: float, clicks_a_day: float, most: float) -> None:
    """The mean of 200 services after 20 days, or 30,000 clicks, with true probabilities (seed 32). Within 1,000 where
    there are less than that a day; with more traffic, less than once a month needs more clicks and fewer hours."""
    rng = np.random.default_rng(32)
    services = 200
    evidence = Evidence(services)
    for clicks, expected in minutes(rng, services, clicks_a_day, min(20, 30_000 / clicks_a_day)):
        evidence.add(clicks, expected)
    came, needed = np.zeros(services), np.full(services, math.nan)
    for clicks, expected in minutes(rng, services, clicks_a_day, 20_000 / clicks_a_day, ratio):
        came += clicks
        firing = evidence.add(clicks, expected)
        needed = np.where(firing & np.isnan(needed), came, needed)
        if not np.isnan(needed).any():
            break
    assert needed.mean() <= most


def test_the_rules_record_what_was_simulated() -> None:
    """Three replicas and two versions for three hours (seed 33): one is restarted, one cannot be read for a while."""
    rng = np.random.default_rng(33)
    prometheus, evidence = Prometheus(RULES), Evidence(1)
    clicks, expected = np.zeros((3, 2)), np.zeros((3, 2))
    for minute in range(180):
        new_clicks, new_expected = rng.poisson(1.2, (3, 2)), rng.gamma(1.0, 1.0, (3, 2))
        if minute < 60:
            new_clicks[:, 1], new_expected[:, 1] = 0, 0
        if minute == 100:
            clicks[0], expected[0] = 0, 0
        clicks, expected = clicks + new_clicks, expected + new_expected
        seen = [replica for replica in range(3) if replica != 2 or not 120 <= minute < 123]
        versions = range(2 if minute >= 60 else 1)
        recorded = prometheus.scrape(
            {
                "ctr_feedback_total": {
                    (("instance", str(r)), ("version", str(v)), ("label", "stable"), ("type", "click")): clicks[r, v]
                    for r in seen
                    for v in versions
                }
                | {(("instance", "0"), ("version", "1"), ("label", "stable"), ("type", "shown")): 5.0 * minute},
                "ctr_expected_clicks_total": {
                    (("instance", str(r)), ("version", str(v)), ("label", "stable")): expected[r, v]
                    for r in seen
                    for v in versions
                },
            }
        )
        if minute == 0:
            continue
        counted = [r for r in seen if not (r == 0 and minute == 100) and not (r == 2 and minute == 123)]
        in_minute = np.array([float(new_clicks[counted].sum())])
        evidence.add(in_minute, float(new_expected[counted].sum()))
        (more,), (fewer,) = (recorded[f"ctr:{side}_clicks:evidence"].values() for side in ("more", "fewer"))
        assert [more, fewer] == pytest.approx(evidence.value[:, 0].tolist(), rel=1e-4)
    assert evidence.value[0, 0] > 10 * evidence.value[1, 0], "there were more clicks than expected"


def test_the_rules_have_one_interval_and_one_bound() -> None:
    assert GROUPS["ctr-calibration"]["interval"] == "1m"
    for name in ("ctr:more_clicks:evidence", "ctr:fewer_clicks:evidence"):
        assert float(RULES[name].rpartition(", ")[2].removesuffix(")")) == MOST
    for name in ("ctr:clicks:delta1m", "ctr:expected_clicks:delta1m"):
        assert RULES[name].count("offset 1m") == 1
