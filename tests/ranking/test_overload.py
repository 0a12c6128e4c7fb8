"""When a process is overloaded, and how much of what it can do it does then; by the admission that asks."""

from __future__ import annotations

import heapq
import operator
import random
from collections.abc import Callable

import pytest

from app.errors import Overloaded
from app.ranking.admission import Admission
from app.ranking.overload import FEW_FOR_S, INTERVAL_S
from app.ranking.request_cost import REQUEST_COST
from tests.ranking.admissions import UNIT_S, USUAL, Processor, measure, overload


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


def share_done(
    admission: Admission,
    processor: Processor,
    share: float,
    reply_s: Callable[[float, random.Random], float],
    stall_s: float = 0.0,
) -> tuple[float, float, list[float]]:
    """Let a loop do requests' work one after the other, each in two parts with a store's reply between.

    Args:
        share: of what the loop can do that is asked for, evenly at random, for six seconds.
        reply_s: seconds that the store takes, by the time since the beginning.
        stall_s: seconds for which the loop stands still, from the first second on.

    Returns:
        Of the last three seconds the share of what could be done that was, and the 98th percentile of how much longer
        than the store's reply requests took; and when requests were refused, since the beginning.
    """
    before_s, behind_s, refusal_s, seconds = 50e-6, 450e-6, 15e-6, 6.0
    each_s, dice, began = before_s + behind_s, random.Random(5), processor.now
    events: list[tuple[float, int, float, float, float, float]] = []
    at = began
    while at < began + seconds:
        at += dice.expovariate(share / each_s)
        events.append((at, len(events), at, 0.0, 0.0, 0.0))
    number, beyond_s, refused_s = len(events), [], []

    def work(seconds: float) -> None:
        processor.now += seconds
        processor.seconds += seconds

    while events and processor.now < began + seconds:
        at, _, arrived, cost, asked, reply = heapq.heappop(events)
        processor.now = max(processor.now, at)
        if stall_s and processor.now >= began + 1.0:
            processor.now, stall_s = processor.now + stall_s, 0.0
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
            refused_s.append(processor.now - began)
            work(refusal_s)
            continue
        work(before_s)
        number += 1
        reply = reply_s(processor.now - began, dice)
        heapq.heappush(events, (processor.now + reply, number, arrived, cost, processor.now, reply))
    possible = (seconds / 2) / each_s * min(share, 1.0 - max(0.0, share - 1.0) * refusal_s / each_s)
    beyond_s.sort()
    return len(beyond_s) / possible, beyond_s[int(0.98 * len(beyond_s))], refused_s


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
    done, beyond_s, refused_s = share_done(admission, processor, share, reply_s)
    assert done >= 0.8
    assert beyond_s <= most_beyond_s
    if share < 1:
        assert len(refused_s) <= 0.2 * 6 * share / 0.0005
        assert not refused_s or most_beyond_s > 0.02, "a store that always takes as long"


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8])
def test_after_a_stall_nobody_is_refused_for_long(share: float, processor: Processor) -> None:
    admission = Admission(1000, 0.005, processor.worked_s, processor.time)
    refused_s = share_done(admission, processor, share, lambda at, dice: 0.0001, stall_s=1.0)[2]
    assert refused_s, "what came in a second is more than is done in half a one"
    assert refused_s[-1] <= 2.0 + 3.1 * INTERVAL_S, "it is noticed, what has waited is done, and there is time again"
    assert not admission.overloaded


@pytest.mark.parametrize("share", [1.2, 1.5, 5.0])
def test_an_overload_is_not_ended_while_it_lasts(share: float, processor: Processor) -> None:
    admission = Admission(1000, 0.005, processor.worked_s, processor.time)
    refused_s = share_done(admission, processor, share, lambda at, dice: 0.0001)[2]
    assert max(map(operator.sub, refused_s[1:], refused_s)) < INTERVAL_S / 2
