"""Workers judge a canary by what all of them have counted, each count once, whatever lies in their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from app.ranking.click_rates import ClickRates
from app.ranking.shared_click_rates import EXCHANGE_EVERY_S, KEPT_S, SUFFIX, SharedClickRates

GROUPS = 8


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def counted(requests: float, clicks: float) -> ClickRates:
    rates = ClickRates(GROUPS)
    rates.requests[:] = requests
    rates.clicks[:] = clicks
    return rates


def test_counts_of_all_workers_add_up_and_grow(tmp_path: Path, clock: Clock) -> None:
    workers = [SharedClickRates(tmp_path / "new", clock) for _ in range(3)]
    own = [counted(1, 0), counted(10, 1), counted(100, 10)]
    for worker, rates in zip(workers, own, strict=True):
        worker.merged("a", rates)
    clock.now_s += EXCHANGE_EVERY_S
    for worker, rates in zip(workers, own, strict=True):
        merged = worker.merged("a", rates)
        assert np.unique(merged.requests).tolist() == [111]
        assert np.unique(merged.clicks).tolist() == [11]
    own[0].requests += 1000
    assert workers[0].merged("a", own[0]).requests[0, 0] == 1111, "its own are never old"
    assert workers[1].merged("a", own[1]).requests[0, 0] == 111
    clock.now_s += EXCHANGE_EVERY_S
    workers[0].merged("a", own[0])
    assert workers[1].merged("a", own[1]).requests[0, 0] == 1111
    assert own[1].requests[0, 0] == 10


def test_counts_of_another_trial_do_not_count(tmp_path: Path, clock: Clock) -> None:
    one, other = SharedClickRates(tmp_path, clock), SharedClickRates(tmp_path, clock)
    one.merged("a", counted(5, 1))
    assert other.merged("b", counted(7, 2)).requests[0, 0] == 7
    assert other.merged("a", counted(0, 0)).requests[0, 0] == 5, "a trial that begins is no longer the one before"


def test_what_is_no_count_is_left_out_and_what_is_old_deleted(tmp_path: Path, clock: Clock) -> None:
    one, other = SharedClickRates(tmp_path, clock, clock), SharedClickRates(tmp_path, clock, clock)
    one.merged("a", counted(5, 1))
    (whole,) = tmp_path.glob(f"*{SUFFIX}")
    cut = tmp_path / f"cut{SUFFIX}"
    cut.write_bytes(whole.read_bytes()[:-8])
    (tmp_path / f"empty{SUFFIX}").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (clock.now_s, clock.now_s))
    assert other.merged("a", counted(1, 0)).requests[0, 0] == 6
    assert cut.exists()
    clock.now_s += KEPT_S + 1
    assert other.merged("a", counted(1, 0)).requests[0, 0] == 6, "of the same trial all count"
    assert not cut.exists()


def test_without_a_folder_a_worker_judges_alone(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()
    assert SharedClickRates(tmp_path / "file" / "folder", clock).merged("a", counted(3, 1)).requests[0, 0] == 3
