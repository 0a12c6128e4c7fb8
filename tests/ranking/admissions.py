"""Admissions on a clock that the test sets, and loads for them."""

from __future__ import annotations

import contextlib

from app.errors import Overloaded
from app.ranking.admission import Admission
from app.ranking.overload import ALWAYS_ADMITTED, FEW_FOR_S, INTERVAL_S

USUAL = 500.0
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


def trying_anew(processor: Processor) -> Admission:
    """Return an admission that knows what a unit of cost takes, in a process that is overloaded.

    It has refused nothing for so long that it tries anew whether it has to.
    """
    admission = refusing(processor)
    processor.now += FEW_FOR_S
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
