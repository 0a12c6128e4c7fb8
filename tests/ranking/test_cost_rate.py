"""What a unit of cost takes is measured while several requests are at work, and nothing else is counted."""

from __future__ import annotations

import pytest

from app.ranking.cost_rate import SAMPLE, CostRate
from tests.ranking.admissions import UNIT_S, USUAL, Processor


def end_requests(rate: CostRate, processor: Processor, unit_s: float, *, others: int, count: int = 40 * SAMPLE) -> None:
    for _ in range(count):
        processor.seconds += USUAL * unit_s
        rate.note(USUAL, others)


def test_the_time_of_a_unit_of_cost_is_measured_while_several_requests_are_at_work() -> None:
    rate = CostRate((processor := Processor()).worked_s)
    end_requests(rate, processor, UNIT_S, others=2)
    assert rate.seconds_per_cost == pytest.approx(UNIT_S, rel=0.02)
    processor.seconds += 1000.0  # background work between requests
    end_requests(rate, processor, 1000 * UNIT_S, others=1)
    assert rate.seconds_per_cost == pytest.approx(UNIT_S, rel=0.02)
    end_requests(rate, processor, 10 * UNIT_S, others=2)
    assert rate.seconds_per_cost == pytest.approx(10 * UNIT_S, rel=0.02)
