"""Evaluates the PromQL that recording rules need, minute by minute: selectors with an offset, arithmetic, `or`, `sum`.

There is a scrape and an evaluation a minute, and a series without a sample in a minute is not there in that minute.
What rules record is found for five minutes, as Prometheus does.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import promql_parser as promql

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
"""Values by labels; a scalar is a float."""
LOOKBACK = 5
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
FUNCTIONS = {"exp": lambda value: math.exp(value) if value < 700 else math.inf, "abs": abs}


class Prometheus:
    """Samples by minute, and the rules of a group evaluated one after another."""

    def __init__(self, recording: Mapping[str, str]) -> None:
        """
        Args:
            recording: expressions by the names that they are recorded under, in their order.
        """
        self._rules = {name: promql.parse(expression) for name, expression in recording.items()}
        self._samples: dict[str, dict[int, Vector]] = {}
        self._minute = -1

    def scrape(self, samples: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]) -> dict[str, Vector]:
        """Take the samples of the next minute by metric and labels; return what each rule records of them."""
        self._minute += 1
        for name, values in samples.items():
            self._samples.setdefault(name, {})[self._minute] = {
                frozenset(labels): value for labels, value in values.items()
            }
        recorded = {}
        for name, rule in self._rules.items():
            value = self.evaluate(rule)
            assert isinstance(value, dict)
            self._samples.setdefault(name, {})[self._minute] = recorded[name] = value
        return recorded

    def evaluate(self, expression: Any) -> Vector | float:
        match expression:
            case promql.NumberLiteral():
                return float(expression.val)
            case promql.ParenExpr():
                return self.evaluate(expression.expr)
            case promql.VectorSelector():
                return self._select(expression)
            case promql.AggregateExpr():
                assert str(expression.op) == "sum"
                return self._sum(expression)
            case promql.Call(func=function, args=[argument, *rest]):
                vector = self.evaluate(argument)
                assert isinstance(vector, dict)
                if function.name == "clamp_max":
                    most = self.evaluate(rest[0])
                    assert isinstance(most, float)
                    return {labels: min(value, most) for labels, value in vector.items()}
                return {labels: FUNCTIONS[function.name](value) for labels, value in vector.items()}
            case promql.BinaryExpr():
                return self._binary(str(expression.op), self.evaluate(expression.lhs), self.evaluate(expression.rhs))
        raise NotImplementedError(type(expression).__name__)

    def _select(self, selector: Any) -> Vector:
        minutes = re.fullmatch(r"0:(\d\d):00", str(selector.offset)) if selector.offset else None
        at = self._minute - (int(minutes[1]) if minutes else 0)
        by_minute = self._samples.get(selector.name, {})
        reach = LOOKBACK if selector.name in self._rules else 1
        for minute in range(at, at - reach, -1):
            if by_minute.get(minute):
                wanted = {(matcher.name, matcher.value) for matcher in selector.matchers.matchers}
                return {labels: value for labels, value in by_minute[minute].items() if wanted <= labels}
        return {}

    def _sum(self, aggregate: Any) -> Vector:
        vector, names = self.evaluate(aggregate.expr), set(aggregate.modifier.labels)
        keeps_named = str(aggregate.modifier.type).lower().endswith("by")
        assert isinstance(vector, dict)
        sums: Vector = {}
        for labels, value in vector.items():
            kept = frozenset(pair for pair in labels if (pair[0] in names) == keeps_named)
            sums[kept] = sums.get(kept, 0.0) + value
        return sums

    def _binary(self, sign: str, left: Vector | float, right: Vector | float) -> Vector | float:
        if sign == "or":
            assert isinstance(left, dict)
            assert isinstance(right, dict)
            return right | left
        if sign == ">=":
            assert isinstance(left, dict)
            assert isinstance(right, float)
            return {labels: value for labels, value in left.items() if value >= right}
        calculate = ARITHMETIC[sign]
        if isinstance(left, float) and isinstance(right, float):
            return calculate(left, right)
        if isinstance(left, float):
            assert isinstance(right, dict)
            return {labels: calculate(left, value) for labels, value in right.items()}
        if isinstance(right, float):
            return {labels: calculate(value, right) for labels, value in left.items()}
        return {labels: calculate(left[labels], right[labels]) for labels in left.keys() & right.keys()}
