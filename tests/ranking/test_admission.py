"""Tests of which requests are refused, on a clock that the test sets."""

from __future__ import annotations

import contextlib
import heapq
import math
import random
from collections.abc import Callable

import pytest

from app.errors import DeadlinePassed, Overloaded
from app.ranking.admission import (
    ALWAYS_ADMITTED,
    FEW,
    FEW_FOR_S,
    HEAVY_COST,
    HEAVY_LIMIT,
    INTERVAL_S,
    REQUEST_COST,
    Admission,
    cost_of,
)
from app.ranking.request import RankRequest

USUAL = 500.0
AT_ONCE = math.ceil(FEW)
UNIT_S = 4e-6


class Processor:
    """The processor time of the thread, and the time, as the test spends them."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.now = 1000.0

    def worked_s(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.now


@pytest.fixture
def processor() -> Processor:
    return Processor()


@pytest.fixture
def admission(processor: Processor) -> Admission:
    """Return an admission that knows what a unit of cost takes, in a process that is overloaded.

    It has refused nothing for so long that it tries anew whether it has to.
    """
    admission = refusing(processor)
    processor.now += FEW_FOR_S
    return admission


def refusing(processor: Processor, admission: Admission | None = None) -> Admission:
    """Return an admission that knows what a unit of cost takes, of a process that has just refused a request."""
    admission = admission or Admission(1000, 0.01, processor.worked_s, processor.time)
    measure(admission, processor, UNIT_S)
    at_work = [admission.enter(USUAL, 0, 9) for _ in range(ALWAYS_ADMITTED)]
    with contextlib.suppress(Overloaded):
        while True:
            processor.now += 0.005
            at_work.append(admission.enter(100, 0.05, 9))
    for cost in at_work:
        processor.seconds += cost * UNIT_S
        admission.leave(cost)
    return admission


def overload(admission: Admission, processor: Processor, seconds: float = 2 * INTERVAL_S) -> int:
    """Have nine in ten requests wait too long, and return how many were refused."""
    refused = 0
    at_work = [admission.enter(USUAL, 0, 9) for _ in range(ALWAYS_ADMITTED)]
    for number in range(int(seconds * 200)):
        processor.now += 0.005
        try:
            at_work.append(admission.enter(100, 0.0 if number % 10 == 0 else 0.05, 9))
        except Overloaded:
            refused += 1
    for cost in at_work:
        admission.leave(cost)
    return refused


def measure(admission: Admission, processor: Processor, unit_s: float) -> None:
    at_work = [admission.enter(USUAL, 0, 9) for _ in range(3)]
    for _ in range(600):
        processor.seconds += USUAL * unit_s
        admission.leave(at_work.pop())
        at_work.append(admission.enter(USUAL, 0, 9))
    for cost in at_work:
        admission.leave(cost)


def admitted(admission: Admission, cost: float = USUAL, waited_s: float = 0.0, left_s: float = 9.0) -> int:
    """Return how many requests are admitted at once before one is refused."""
    for number in range(10_000):
        try:
            admission.enter(cost, waited_s, left_s)
        except Overloaded:
            return number
    raise AssertionError("none is refused")


def test_the_time_of_a_unit_of_cost_is_measured_while_several_requests_are_at_work(
    admission: Admission, processor: Processor
) -> None:
    assert admission.seconds_per_cost == pytest.approx(UNIT_S, rel=0.02)
    processor.seconds += 1000.0  # background work between requests
    for _ in range(100):
        admission.leave(admission.enter(USUAL, 0, 9))
        processor.seconds += 10.0
    assert admission.seconds_per_cost == pytest.approx(UNIT_S, rel=0.02)
    measure(admission, processor, 10 * UNIT_S)
    assert admission.seconds_per_cost == pytest.approx(10 * UNIT_S, rel=0.02)


@pytest.mark.parametrize("cost", [100.0, 200.0])
def test_as_much_work_is_admitted_as_is_done_in_the_longest_wait(admission: Admission, cost: float) -> None:
    assert admitted(admission, cost) == pytest.approx(0.01 / (cost * UNIT_S) + 1, abs=1)


def test_some_are_admitted_whatever_they_take(admission: Admission) -> None:
    assert admitted(admission, HEAVY_COST - 1) == ALWAYS_ADMITTED


def test_after_a_refusal_few_are_at_work_for_a_while(processor: Processor) -> None:
    admission = refusing(processor)
    for _ in range(10):
        assert admitted(admission, 100) == AT_ONCE
        for _ in range(AT_ONCE):
            admission.leave(100)
        processor.now += (FEW_FOR_S - 0.1) / 10
    processor.now += 0.2
    assert admitted(admission, 100) > ALWAYS_ADMITTED, "then it is tried anew"
    assert admitted(admission, 100) == 0, "which the first refusal ends"


def test_eight_callers_in_turn_are_not_refused_any_more_once_others_have_left(processor: Processor) -> None:
    admission, refused = refusing(processor), 0
    at_work: list[float] = []
    began = processor.now
    while processor.now < began + 3 * FEW_FOR_S:
        processor.now += 0.0025
        if len(at_work) == ALWAYS_ADMITTED:
            admission.leave(at_work.pop(0))
        try:
            at_work.append(admission.enter(HEAVY_COST / 2, 0, 9))
        except Overloaded:
            refused += 1
            at_work.pop(0)
            admission.leave(HEAVY_COST / 2)
            assert processor.now < began + 1.1 * FEW_FOR_S
    assert refused > 0


def test_requests_that_let_others_first_are_none_of_the_few(processor: Processor) -> None:
    admission = refusing(processor)
    waiting = [admission.enter(USUAL, 0, 9) for _ in range(AT_ONCE - 1)]
    for cost in waiting:
        admission.let_others_first(cost)
    heavy = admission.correct(admission.enter(USUAL, 0, 9), 50_000, 9)
    assert admitted(admission, 100) == AT_ONCE
    for _ in range(AT_ONCE):
        admission.leave(100)
    for cost in waiting:
        admission.leave(admission.correct(cost, 900, 9, is_before_others=False), is_before_others=False)
    admission.leave(heavy)
    assert admission.inflight == 0
    assert admitted(admission, 100) == AT_ONCE


def test_what_a_request_has_waited_counts(admission: Admission) -> None:
    for _ in range(ALWAYS_ADMITTED):
        admission.enter(100, 0, 9)
    admission.enter(100, 0.005, 9)
    with pytest.raises(Overloaded):
        admission.enter(100, 0.0099, 9)


def test_a_request_that_would_wait_past_its_deadline_is_refused(admission: Admission) -> None:
    for _ in range(ALWAYS_ADMITTED):
        admission.enter(USUAL, 0, 9)
    with pytest.raises(Overloaded):
        admission.enter(100, 0, 0.001)
    with pytest.raises(DeadlinePassed):
        admission.enter(100, 2.0, 0.0)


def test_the_hard_limit_holds(processor: Processor) -> None:
    admission = Admission(2, 1000.0, processor.worked_s)
    assert admitted(admission) == 2


def test_heavy_requests_are_few_and_do_not_count_as_work_before_others(admission: Admission) -> None:
    for _ in range(HEAVY_LIMIT):
        admission.correct(admission.enter(USUAL, 0, 9), 50_000, 9)
    cost = admission.enter(USUAL, 0, 9)
    with pytest.raises(Overloaded):
        admission.correct(cost, 50_000, 9)
    admission.leave(cost)
    assert admitted(admission, 100) == pytest.approx(0.01 / (100 * UNIT_S) + 1, abs=1)


def test_when_a_heavy_request_ends_another_is_admitted(admission: Admission) -> None:
    for _ in range(3 * HEAVY_LIMIT):
        heavy = [admission.correct(admission.enter(USUAL, 0, 9), 50_000, 9) for _ in range(HEAVY_LIMIT)]
        for cost in heavy:
            admission.leave(cost)
    assert admission.inflight == admission.heavy == 0


def test_a_burst_or_a_stall_is_let_through(processor: Processor) -> None:
    admission = Admission(1000, 0.01, processor.worked_s, processor.time)
    measure(admission, processor, UNIT_S)
    for _ in range(10):
        assert overload(admission, processor, seconds=INTERVAL_S / 2) == 0
        for _ in range(100):
            processor.now += 0.01
            admission.leave(admission.enter(USUAL, 0, 9))
    assert not admission.overloaded


def test_overload_lasts_while_some_are_late_and_ends_an_interval_after(
    admission: Admission, processor: Processor
) -> None:
    assert overload(admission, processor) >= 180
    assert admission.overloaded
    began = processor.now
    while admission.overloaded:
        processor.now += 0.01
        admission.leave(admission.enter(USUAL, 0, 9))
    assert processor.now - began <= FEW_FOR_S + 2.1 * INTERVAL_S
    assert overload(admission, processor, seconds=INTERVAL_S / 2) == 0, "it has to begin anew"


def test_overload_does_not_outlast_a_pause(admission: Admission, processor: Processor) -> None:
    processor.now += 60
    admission.leave(admission.enter(USUAL, 0, 9))
    assert not admission.overloaded


def test_a_heavy_request_whose_deadline_is_nearer_than_its_end_is_refused(admission: Admission) -> None:
    other, cost = admission.enter(USUAL, 0, 9), admission.enter(USUAL, 0, 9)
    with pytest.raises(Overloaded):
        admission.correct(cost, 50_000, 0.1)
    admission.leave(cost)
    admission.leave(other)
    assert admission.inflight == admission.heavy == 0


def test_a_heavy_request_that_is_alone_is_tried_whatever_a_unit_of_cost_took_lately(admission: Admission) -> None:
    admission.seconds_per_cost = 1.0
    admission.leave(admission.correct(admission.enter(USUAL, 0, 9), 50_000, 0.1))
    assert admission.inflight == admission.heavy == 0


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_and_goes_nothing_is_left(seed: int, admission: Admission, processor: Processor) -> None:
    dice, fresh = random.Random(seed), admitted(admission, 100)
    admission = Admission(1000, 0.01, processor.worked_s, processor.time)
    at_work: list[float] = []
    for _ in range(2000):
        if at_work and dice.random() < 0.5:
            admission.leave(at_work.pop(dice.randrange(len(at_work))))
            continue
        try:
            cost = admission.enter(dice.choice([100, 700, 60_000]), 0, 9)
        except Overloaded:
            continue
        try:
            cost = admission.correct(cost, dice.choice([50, 900, 20_000]), 9)
        except Overloaded:
            admission.leave(cost)
        else:
            at_work.append(cost)
    for cost in at_work:
        admission.leave(cost)
    assert admission.inflight == admission.heavy == 0
    refusing(processor, admission)
    processor.now += FEW_FOR_S
    assert admitted(admission, 100) == pytest.approx(fresh, abs=1)


@pytest.mark.parametrize(
    ("request_of", "heavy"),
    [
        (lambda ids: RankRequest("1", ids), False),
        (lambda ids: RankRequest("1", ids, item_features={item_id: {} for item_id in ids}), False),
        (lambda ids: RankRequest("1", ids, item_features={item_id: {"year": 1} for item_id in ids}), True),
        (lambda ids: RankRequest("1", ids[:5], explain=True), True),
        (lambda ids: RankRequest("1", ids[:100], explain=True, top_k=1), False),
    ],
)
def test_overrides_and_explanations_make_a_request_heavy(
    request_of: Callable[[list[str]], RankRequest], heavy: bool
) -> None:
    ids = [str(number) for number in range(2000)]
    assert (cost_of(request_of(ids)) >= HEAVY_COST) is heavy
    assert cost_of(RankRequest("1", ids[:100])) == REQUEST_COST + 100


def share_done(
    admission: Admission, processor: Processor, share: float, reply_s: Callable[[float, random.Random], float]
) -> tuple[float, float, int]:
    """Let a loop do requests' work one after the other, each in two parts with a store's reply between.

    Args:
        share: of what the loop can do that is asked for, evenly at random, for six seconds.
        reply_s: seconds that the store takes, by the time since the beginning.

    Returns:
        Of the last three seconds the share of what could be done that was, and the 98th percentile of how much longer
        than the store's reply requests took; and how many were refused in all.
    """
    before_s, behind_s, refusal_s, seconds = 50e-6, 450e-6, 15e-6, 6.0
    each_s, dice, began = before_s + behind_s, random.Random(5), processor.now
    events: list[tuple[float, int, float, float, float, float]] = []
    at = began
    while at < began + seconds:
        at += dice.expovariate(share / each_s)
        events.append((at, len(events), at, 0.0, 0.0, 0.0))
    number, beyond_s, refused = len(events), [], 0

    def work(seconds: float) -> None:
        processor.now += seconds
        processor.seconds += seconds

    while events and processor.now < began + seconds:
        at, _, arrived, cost, asked, reply = heapq.heappop(events)
        processor.now = max(processor.now, at)
        if cost:
            waited = processor.now - asked
            work(behind_s)
            admission.leave(cost, reply_s=waited)
            if processor.now > began + seconds / 2:  # overload was noticed by then
                beyond_s.append(processor.now - arrived - reply)
            continue
        try:
            cost = admission.correct(admission.enter(REQUEST_COST, processor.now - at, 1.0), 500.0, 1.0)
        except Overloaded:
            refused += 1
            work(refusal_s)
            continue
        work(before_s)
        number += 1
        reply = reply_s(processor.now - began, dice)
        heapq.heappush(events, (processor.now + reply, number, arrived, cost, processor.now, reply))
    possible = (seconds / 2) / each_s * min(share, 1.0 - max(0.0, share - 1.0) * refusal_s / each_s)
    beyond_s.sort()
    return len(beyond_s) / possible, beyond_s[int(0.98 * len(beyond_s))], refused


@pytest.mark.parametrize("share", [0.7, 1.5, 5.0])
@pytest.mark.parametrize(
    ("reply_s", "most_beyond_s"),
    [
        pytest.param(lambda at, dice: 0.0001, 0.005, id="0.1 ms"),
        pytest.param(lambda at, dice: 0.001, 0.005, id="1 ms"),
        pytest.param(lambda at, dice: 0.005, 0.01, id="5 ms"),
        pytest.param(lambda at, dice: 0.02, 0.02, id="20 ms"),
        pytest.param(lambda at, dice: 0.0003 if dice.random() < 0.5 else 0.025, 0.025, id="one of two nodes is slow"),
        pytest.param(lambda at, dice: 0.0003 if at < 2 else 0.025, 0.03, id="it becomes slow"),
    ],
)
def test_however_long_the_store_takes_a_loop_is_kept_busy(
    reply_s: Callable[[float, random.Random], float], most_beyond_s: float, share: float, processor: Processor
) -> None:
    admission = Admission(1000, 0.005, processor.worked_s, processor.time)
    done, beyond_s, refused = share_done(admission, processor, share, reply_s)
    assert done >= 0.8
    assert beyond_s <= most_beyond_s
    if share < 1:
        assert refused <= 0.2 * 6 * share / 0.0005
        assert refused == 0 or most_beyond_s > 0.02, "a store that always takes as long"
