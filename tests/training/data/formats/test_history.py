"""Sums and last values of earlier events equal those of a loop over all pairs of events."""

from __future__ import annotations

import numpy as np
import pytest

from app.training.data.formats.history import END_OF_TIME, History


@pytest.fixture
def events() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    # Few distinct times, so that many events share one.
    return rng.integers(0, 7, 200), rng.integers(-5, 15, 200), rng.integers(1, 6, (200, 2)).astype(float)


def test_sums_count_only_what_happened_strictly_before(events: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    entities, times, values = events
    history = History(entities, times)
    window = history.before(entities, times)
    sums = history.sums(values, window)
    for row in range(len(entities)):
        earlier = (entities == entities[row]) & (times < times[row])
        assert window.counts_M[row] == earlier.sum()
        np.testing.assert_array_equal(sums[row], values[earlier].sum(0))


def test_last_gives_the_newest_first_and_minus_one_where_there_are_fewer(
    events: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    entities, times, _ = events
    history = History(entities, times)
    last = history.last(3, history.before(entities, times))
    for row in range(len(entities)):
        earlier = np.flatnonzero((entities == entities[row]) & (times < times[row]))
        result = last[row][last[row] >= 0]
        assert len(result) == min(3, len(earlier))
        assert set(result) <= set(earlier)
        newest = np.sort(times[earlier])[::-1][:3]
        np.testing.assert_array_equal(times[result], newest)


def test_at_the_end_of_time_everything_counts_and_strangers_have_nothing() -> None:
    history = History(np.array([0, 0, 2]), np.array([10, 10, 5]))
    window = history.before(np.array([0, 1, 2, 9]), np.full(4, END_OF_TIME))
    np.testing.assert_array_equal(window.counts_M, [2, 0, 1, 0])


def test_no_events_at_all() -> None:
    nothing = np.empty(0, np.int64)
    history = History(nothing, nothing)
    window = history.before(np.array([0]), np.array([5]))
    assert window.counts_M[0] == 0
    assert history.last(2, window).tolist() == [[-1, -1]]
