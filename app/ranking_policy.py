"""`RankingPolicy`: how an order comes from scores, as settings, answers, the event log and commands name it.

docs/exploration.md says what each policy does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from app.errors import ConfigError

GREEDY, SOFTMAX, EPSILON = "greedy", "softmax", "epsilon"
LABELS = ("stable", "canary")
"""Labels of versions that answer."""
LEAST_TEMPERATURE, GREATEST_TEMPERATURE = 0.001, 100.0


class RankingPolicy(NamedTuple):
    """A policy by its name, with its one parameter."""

    name: str
    parameter: float = 0.0
    """The temperature of softmax, the probability of epsilon; 0 for greedy."""

    def __str__(self) -> str:
        return self.name if self.name == GREEDY else f"{self.name}:{self.parameter:g}"


class LabelPolicy(NamedTuple):
    """The policy of the answers that a version gives under a label."""

    label: str
    """`stable` or `canary`; empty for both."""
    policy: RankingPolicy


def parse_policy(text: str) -> RankingPolicy:
    """Read `softmax:TEMPERATURE`, `epsilon:PROBABILITY` or `greedy`. Raises ConfigError for anything else."""
    name, colon, number = text.strip().partition(":")
    if name == GREEDY and not colon:
        return RankingPolicy(GREEDY)
    try:
        parameter = float(number)
    except ValueError:
        parameter = math.nan
    if name == SOFTMAX and LEAST_TEMPERATURE <= parameter <= GREATEST_TEMPERATURE:
        return RankingPolicy(SOFTMAX, parameter)
    if name == EPSILON and 0.0 < parameter <= 1.0:
        return RankingPolicy(EPSILON, parameter)
    raise ConfigError(
        f"{text!r} is not a policy; write softmax:0.05, with a temperature from {LEAST_TEMPERATURE:g} to "
        f"{GREATEST_TEMPERATURE:g}, or epsilon:0.02, with a probability above 0 and up to 1"
    )


def parse_label_policies(text: str) -> tuple[LabelPolicy, ...]:
    """Read a policy for all labels, or `stable=softmax:0.05,canary=epsilon:0.02`. Raises ConfigError."""
    if "=" not in text:
        return (LabelPolicy("", _exploring(text)),)
    found = []
    for part in text.split(","):
        label, _, policy = part.partition("=")
        if label.strip() not in LABELS:
            raise ConfigError(f"{part.strip()!r} names no label; write a policy, or stable=softmax:0.05")
        found.append(LabelPolicy(label.strip(), _exploring(policy)))
    if len({one.label for one in found}) < len(found):
        raise ConfigError("a label has two policies")
    return tuple(found)


def _exploring(text: str) -> RankingPolicy:
    policy = parse_policy(text)
    if policy.name == GREEDY:
        raise ConfigError("greedy explores nothing; leave it out")
    return policy
