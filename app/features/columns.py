"""A column of a table in the forms that the encoder takes whole, so that no value costs a step of Python twice.

The encoder asks a column for the form that suits a field: one raw column may be read by two fields, say as a number and
as a category. This module knows no table library; `app.training.data.readers.series_column` makes columns of polars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.float64]


class Distinct(NamedTuple):
    """N values as the D different ones among them and the place [N] of each row's value there."""

    values: Sequence[Any]
    codes_N: Codes


class Lists(NamedTuple):
    """N lists laid end to end: their items, how many each row has (0 where it has none), and what each item weighs."""

    items: Distinct
    lengths_N: npt.NDArray[np.int64]
    weights: Numbers | None = None
    """One per item; None stands for 1 throughout."""


class Column(Protocol):
    """A column of N raw values. None and "" are missing."""

    def distinct(self) -> Distinct: ...

    def numbers(self) -> Numbers | None:
        """The column as float64 [N] with NaN for missing; None where a value is not plainly a number."""

    def lists(self, separator: str | None) -> Lists | None:
        """The column as lists, text split at the separator; None where that is not plain, or not worth it."""


class Plain:
    """Python values, as a request or a test has them."""

    def __init__(self, values: Sequence[Any]) -> None:
        self._values = values

    def distinct(self) -> Distinct:
        places: dict[object, int] = {}
        values: list[Any] = []
        codes_N = np.empty(len(self._values), np.int64)
        for row, value in enumerate(self._values):
            # The type is part of the memo key because 1, 1.0 and True are one key to a dict but not one category.
            memo = (value.__class__, value if value.__hash__ is not None else repr(value))
            place = places.get(memo)
            if place is None:
                place = places[memo] = len(values)
                values.append(value)
            codes_N[row] = place
        return Distinct(values, codes_N)

    def numbers(self) -> Numbers | None:
        return None

    def lists(self, separator: str | None) -> Lists | None:
        return None
