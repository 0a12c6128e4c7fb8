"""A column of a table, in the forms that the encoder takes whole, so that Python handles no value twice.

The encoder takes a column in the form that suits a field: one raw column may be read by two fields, say as a number and
as a category. This module knows no table library; `app.training.data.readers.series_column` makes columns of polars.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.float64]
TEXT = frozenset({str, type(None)})
"""The types of a column's values as Redis holds them, which are the same value where they are equal."""


class Distinct(NamedTuple):
    """N values as the D distinct ones among them, and the index [N] of each row's value there."""

    values: Sequence[object]
    codes_N: Codes


class Lists(NamedTuple):
    """N lists laid end to end: their items, the number of items of each row, and the weight of each item."""

    items: Distinct
    lengths_N: npt.NDArray[np.int64]
    weights: Numbers | None = None
    """One weight per item; None if all are 1."""


class Column(Protocol):
    """A column of N raw values. None and "" are missing."""

    def distinct(self) -> Distinct:
        """Return the column as distinct values and codes."""

    def numbers(self, read: Callable[[object], float]) -> Numbers | None:
        """Return the column as float64 [N] with NaN for missing, or None if a value is no number.

        Args:
            read: reads one value as `app.features.values.number_of` does; called for what is not plainly a number.
        """

    def lists(self, separator: str | None) -> Lists | None:
        """Return the column as lists, text split at the separator, or None if it must be encoded value by value."""


class PythonColumn:
    """A column of Python values, as a request or a test has them."""

    def __init__(self, values: Sequence[object]) -> None:
        self._values = values

    def distinct(self) -> Distinct:
        """Return the column as distinct values and codes."""
        code_of: dict[object, int] = {}
        if set(map(type, self._values)) <= TEXT:
            distinct = list(dict.fromkeys(self._values))
            code_of = {value: code for code, value in enumerate(distinct)}
            return Distinct(distinct, np.fromiter(map(code_of.__getitem__, self._values), np.int64, len(self._values)))
        values: list[object] = []
        codes_N = np.empty(len(self._values), np.int64)
        for row, value in enumerate(self._values):
            # The type is part of the key because 1, 1.0 and True are one key to a dict but not one category.
            key = (value.__class__, value if value.__hash__ is not None else repr(value))
            code = code_of.get(key)
            if code is None:
                code = code_of[key] = len(values)
                values.append(value)
            codes_N[row] = code
        return Distinct(values, codes_N)

    def numbers(self, read: Callable[[object], float]) -> Numbers | None:
        """Return None: the values are encoded one by one."""
        return None

    def lists(self, separator: str | None) -> Lists | None:
        """Return None: the values are encoded one by one."""
        return None
