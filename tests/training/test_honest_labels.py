"""A model of rows that were thinned out says what one of all rows says."""

from __future__ import annotations

import pytest

from benchmarks.honest_labels import Audience, compare_positions, compare_thinned


def test_a_tenth_of_the_negatives_gives_the_probabilities_and_the_order_of_all() -> None:
    everything, told, untold = compare_thinned(Audience(0, users=30, items=20), 30_000, 50_000, "lr").values()
    assert told["ece"] == pytest.approx(everything["ece"], abs=0.004)
    assert told["auc"] == pytest.approx(everything["auc"], abs=0.01)
    assert told["calibration"] == pytest.approx(1.0, abs=0.1)
    assert untold["ece"] > 0.1
    assert untold["calibration"] > 4


def test_a_field_of_the_position_orders_as_clicks_that_do_not_depend_on_it_would() -> None:
    audience = Audience(0, users=30, items=30, level=-2.2, spread=1.0)
    result = compare_positions(audience, 1500, 100, "lr")
    unbiased = result["unbiased clicks"]
    assert result["any order"] < unbiased - 0.2, "there is something to order"
    assert result["clicks by place, with the position"] > 0.97 * unbiased
    assert result["clicks by place"] < 0.93 * unbiased
