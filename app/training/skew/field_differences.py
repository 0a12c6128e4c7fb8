"""`FieldDifferences` counts the rows in which a field was served as another value than the table says.

It keeps some thousand of them, drawn evenly, for finding out why.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field

import numpy as np
import numpy.typing as npt

from app.features.fields import AnyField, Numeric
from app.features.slots import Slots
from app.training.skew.offline_table import NOWHERE, ComparedSide, OfflineTable, Positions, Times
from app.training.skew.served_slots import ServedPart

EXAMPLES = 4096
"""Differing rows that are kept of each field."""
CLOSE = 1e-6
"""Relative difference of numbers that is none: they may have been written and read as text of fewer digits."""
ROWS_AT_ONCE = 65_536

Flags = npt.NDArray[np.bool_]


@dataclass
class Examples:
    """K differing rows of a field."""

    served: Slots
    """[K, W] the field's slots as they were served."""
    position_K: Positions
    """Of the row of the table that should have been served."""
    at_K: Times
    weight_K: npt.NDArray[np.int64]
    name_K: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.at_K)

    def take(self, chosen: npt.NDArray[np.integer] | Flags) -> Examples:
        """Return some of them."""
        served = Slots(self.served.keys[chosen], self.served.values[chosen])
        return Examples(served, self.position_K[chosen], self.at_K[chosen], self.weight_K[chosen], self.name_K[chosen])

    def followed_by(self, other: Examples) -> Examples:
        """Return these and others."""
        served = Slots(
            np.concatenate([self.served.keys, other.served.keys]),
            np.concatenate([self.served.values, other.served.values]),
        )
        return Examples(
            served,
            np.concatenate([self.position_K, other.position_K]),
            np.concatenate([self.at_K, other.at_K]),
            np.concatenate([self.weight_K, other.weight_K]),
            np.concatenate([self.name_K, other.name_K]),
        )


@dataclass
class FieldDifferences:
    """What was found of one field so far."""

    field: AnyField
    slots: slice
    different: int = 0
    """Rows that differ."""
    examples: Examples | None = None
    lowest: float = np.inf
    """The least and the greatest number that was served, in all rows."""
    highest: float = -np.inf
    _priority: npt.NDArray[np.float64] = dataclass_field(default_factory=lambda: np.empty(0))
    """Random numbers of the examples, which are the rows with the smallest."""

    def add(self, part: ServedPart, rows: npt.NDArray[np.intp], random: np.random.Generator) -> None:
        """Count the rows of a part that differ, and keep some."""
        self.different += int(part.weight_M[rows].sum())
        priority = random.random(len(rows))
        kept = np.argsort(priority)[:EXAMPLES]
        rows, priority = rows[kept], priority[kept]
        names = np.array([part.names[row] for row in rows.tolist()], object)
        served = Slots(part.slots.keys[rows, self.slots], part.slots.values[rows, self.slots])
        new = Examples(served, part.position_M[rows], part.at_M[rows], part.weight_M[rows], names)
        if self.examples is not None:
            new, priority = self.examples.followed_by(new), np.concatenate([self._priority, priority])
            kept = np.argsort(priority)[:EXAMPLES]
            new, priority = new.take(kept), priority[kept]
        self.examples, self._priority = new, priority


class SideDifferences:
    """What was found of one side so far."""

    def __init__(self, table: OfflineTable, seed: int = 0) -> None:
        self.table = table
        compared = table.compared
        self.rows = 0
        """Rows that were compared."""
        self.without_row = 0
        """Rows of which the table says nothing for their time."""
        self.missing_online = 0
        """Rows that were served without any stored feature, though the table has some."""
        self.fields = [FieldDifferences(*pair) for pair in zip(compared.fields, compared.slots, strict=True)]
        self._random = np.random.default_rng(seed)

    def add(self, part: ServedPart) -> None:
        """Compare a part, and count."""
        for start in range(0, len(part.at_M), ROWS_AT_ONCE):
            self._add(_rows_of(part, slice(start, start + ROWS_AT_ONCE)))

    def _add(self, part: ServedPart) -> None:
        compared = self.table.compared
        there = part.position_M != NOWHERE
        self.without_row += int(part.weight_M[~there].sum())
        part = _rows_of(part, np.flatnonzero(there & ~_is_guest(part.slots, compared)))
        if not len(part.at_M):
            return
        offline = self.table.slots_at(part.position_M)
        if np.count_nonzero(compared.stored_N) and len(compared.fields) > 1:
            lost = _is_absent(part.slots, compared) & ~_is_absent(offline, compared)
            self.missing_online += int(part.weight_M[lost].sum())
            kept = np.flatnonzero(~lost)
            part, offline = _rows_of(part, kept), Slots(offline.keys[kept], offline.values[kept])
        self.rows += int(part.weight_M.sum())
        other = _differ(part.slots, offline)
        for field in self.fields:
            if isinstance(field.field, Numeric):
                numbers = part.slots.values[:, field.slots]
                field.lowest = float(np.fmin.reduce(numbers, axis=None, initial=field.lowest))
                field.highest = float(np.fmax.reduce(numbers, axis=None, initial=field.highest))
            rows = np.flatnonzero(other[:, field.slots].any(1))
            if len(rows):
                served = Slots(part.slots.keys[rows, field.slots], part.slots.values[rows, field.slots])
                really = ~are_same(served, Slots(offline.keys[rows, field.slots], offline.values[rows, field.slots]))
                if really.any():
                    field.add(part, rows[really], self._random)


def are_same(one: Slots, other: Slots) -> Flags:
    """Tell of the slots [K, W] of one field whether they say the same: in any order, and within `CLOSE`."""
    one, other = _in_order(one), _in_order(other)
    with np.errstate(invalid="ignore"):
        close = np.abs(one.values - other.values) <= CLOSE * np.maximum(np.abs(one.values), np.abs(other.values))
    close |= np.isnan(one.values) & np.isnan(other.values)
    same: Flags = ((one.keys == other.keys) & close).all(1)
    return same


def _in_order(slots: Slots) -> Slots:
    if slots.keys.shape[1] < 2:
        return slots
    order = np.lexsort((slots.values, slots.keys))
    return Slots(np.take_along_axis(slots.keys, order, 1), np.take_along_axis(slots.values, order, 1))


def _differ(one: Slots, other: Slots) -> Flags:
    differ: Flags = np.not_equal(one.values, other.values)
    differ &= ~(np.isnan(one.values) & np.isnan(other.values))
    differ |= one.keys != other.keys
    return differ


def _is_absent(slots: Slots, compared: ComparedSide) -> Flags:
    """Tell of which rows no stored feature is known."""
    stored = compared.stored_N
    absent = Slots(compared.absent.keys[None, stored], compared.absent.values[None, stored])
    differ = _differ(Slots(slots.keys[:, stored], slots.values[:, stored]), absent)
    absent_M: Flags = np.logical_not(differ.any(axis=1))
    return absent_M


def _is_guest(slots: Slots, compared: ComparedSide) -> Flags:
    guest: Flags = slots.keys[:, compared.id_slot] == compared.absent.keys[compared.id_slot]
    return guest


def _rows_of(part: ServedPart, rows: slice | npt.NDArray[np.intp]) -> ServedPart:
    if isinstance(rows, slice):
        names = list(part.names[rows])
    else:
        names = list(part.names) if len(rows) == len(part.names) else [part.names[row] for row in rows.tolist()]
    slots = Slots(part.slots.keys[rows], part.slots.values[rows])
    return ServedPart(part.table, part.position_M[rows], part.at_M[rows], part.weight_M[rows], slots, names)
