"""Tests of which requests are refused, on a clock that the test sets."""

from __future__ import annotations

import math
import random

import pytest

from app.errors import DeadlinePassed, Overloaded
from app.ranking.admission import HEAVY_LIMIT, Admission
from app.ranking.overload import ALWAYS_ADMITTED, FEW_FOR_S, LEAST_AT_ONCE
from app.ranking.request_cost import HEAVY_COST, cost_of_bytes
from tests.ranking.admissions import UNIT_S, USUAL, Processor, admitted, refusing

AT_ONCE = math.ceil(LEAST_AT_ONCE)


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


def test_a_heavy_request_whose_deadline_is_nearer_than_its_end_is_refused(admission: Admission) -> None:
    other, cost = admission.enter(USUAL, 0, 9), admission.enter(USUAL, 0, 9)
    with pytest.raises(Overloaded):
        admission.correct(cost, 50_000, 0.1)
    admission.leave(cost)
    admission.leave(other)
    assert admission.inflight == admission.heavy == 0


def test_a_heavy_request_that_is_alone_is_tried_whatever_a_unit_of_cost_took_lately(admission: Admission) -> None:
    admission._rate.seconds_per_cost = 1.0
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
            cost = admission.enter(dice.choice([100, 700, cost_of_bytes(600_000)]), 0, 9)
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
