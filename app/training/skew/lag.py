"""`find_lag`: whether what was served is what the table said some time before, or says only some time after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.features.slots import Slots
from app.training.skew.field_differences import Examples, Flags, are_same
from app.training.skew.offline_table import OfflineTable

MAX_STEPS = 2000
"""Rows of an entity that are looked through, before the one that should have been served, or after it."""
BEYOND_CHANCE = 0.25
"""How far above what values in any order would give the share must be, of what is possible: Cohen's kappa."""
SEARCHED = 512
"""Rows of which all earlier or later values are looked through."""
HOUR_US = 3.6e9
WITHIN_H = 1e-6
"""The end of an interval belongs to the next one."""

Lags = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lag:
    """One time by which rows are late or early."""

    direction: int
    """-1: what was served is older than it should be; 1: newer."""
    hours: float
    share: float
    """Of the rows."""
    explained_K: Flags


def find_lag(table: OfflineTable, slots: slice, examples: Examples, direction: int) -> Lag | None:
    """Return the time by which most of the rows are late (-1) or early (1); None where chance does as much.

    Args:
        slots: of the field.
        examples: rows that differ.
    """
    lower, upper = _intervals(table, slots, examples.take(np.arange(min(len(examples), SEARCHED))), direction)
    if not len(lower):
        return None
    hours = _most_frequent(lower, upper)
    position_K = table.as_of(table.id_at(examples.position_K), examples.at_K + int(direction * hours * HOUR_US))
    then = table.slots_at(np.maximum(position_K, 0), slots)
    explained_K = are_same(examples.served, then) & (position_K >= 0)
    order = np.random.default_rng(0).permutation(len(examples))
    in_any_order = Slots(examples.served.keys[order], examples.served.values[order])
    chance = float((are_same(in_any_order, then) & (position_K >= 0)).mean())
    share = float(explained_K.mean())
    if share - chance < BEYOND_CHANCE * (1 - chance):
        return None
    return Lag(direction, hours, share, explained_K)


def _intervals(table: OfflineTable, slots: slice, examples: Examples, direction: int) -> tuple[Lags, Lags]:
    """Return between which lags in hours the table said what was served: all such times, of all rows."""
    lower, upper = [], []
    last = len(table.row_P) - 1
    active = np.arange(len(examples))
    for step in range(1, MAX_STEPS):
        position = examples.position_K[active] + direction * step
        inside = (position >= 0) & (position <= last)
        inside[inside] = table.first_P[position[inside]] == table.first_P[examples.position_K[active[inside]]]
        active, position = active[inside], position[inside]
        if not len(active):
            break
        served = Slots(examples.served.keys[active], examples.served.values[active])
        same = are_same(served, table.slots_at(position, slots))
        at, where = examples.at_K[active[same]], position[same]
        if direction < 0:  # it held from its own time to that of the next row
            lower.append((at - table.time_P[where + 1]) / HOUR_US)
            upper.append((at - table.time_P[where]) / HOUR_US)
        else:
            after = np.minimum(where + 1, last)
            ends = (after > where) & (table.first_P[after] == table.first_P[where])
            lower.append((table.time_P[where] - at) / HOUR_US)
            upper.append(np.where(ends, (table.time_P[after] - at) / HOUR_US, np.inf))
    return np.concatenate([*lower, np.empty(0)]), np.concatenate([*upper, np.empty(0)])


def _most_frequent(lower: Lags, upper: Lags) -> float:
    """Return the smallest lag that is within most of the intervals."""
    starts, ends = np.sort(lower), np.sort(upper)
    covered = np.arange(1, len(starts) + 1) - np.searchsorted(ends, starts, side="right")
    return float(starts[covered.argmax()]) + WITHIN_H
