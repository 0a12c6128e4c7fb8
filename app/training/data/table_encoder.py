"""Rows of a table to slots, by the one encoder, with the values that fit no slot counted field by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from app.errors import DataError, EncodingError
from app.features.encoder import Encoder
from app.features.fields import SIDES, Side
from app.features.schema import FeatureSchema
from app.features.slots import Slots
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows, Skipped, no_rows
from app.training.data.readers.series_column import SeriesColumn, columns

UNFIT = "the value fits no slot"


class TableEncoder:
    """Encodes tables of one schema, chunk after chunk. A value that fits no slot counts as missing, as in serving."""

    def __init__(
        self,
        schema: FeatureSchema,
        source: str,
        max_bad: float = MAX_BAD_SHARE,
        before: Callable[[], int] = no_rows,
    ) -> None:
        """
        Args:
            max_bad: share of the rows that may have an unfit value, in each field.
            before: rows before the ones that are encoded here, for what is said of an error.
        """
        self._schema, self._source, self._max_bad, self._before = schema, source, max_bad, before
        self._encoders = {side: Encoder(schema, side) for side in SIDES}
        self.unfit: dict[str, BadRows] = {}
        """Field name to what was found in it."""

    def slots(self, side: Side, frame: pl.DataFrame, rows_N: npt.NDArray[np.int64]) -> Slots:
        """
        Args:
            rows_N: the rows' numbers, for what is said of them.
        """
        table = columns(frame)
        refused: set[str] = set()
        slots = self._encoders[side].encode_columns(table, len(rows_N), refused.add)
        for field in self._schema.side(side):
            if field.name in refused:
                one = Encoder(FeatureSchema(fields=(field,)), side)
                unfit = _unfit(one, table[field.raw_name], field.raw_name)
                self.unfit.setdefault(field.name, BadRows(self._what(field.name), self._max_bad)).add(
                    UNFIT, rows_N[unfit]
                )
        return slots

    def check(self, rows: int, fraction: float = 1.0) -> None:
        """Raises DataError where a field has too many unfit values among so many rows, that share of the file."""
        for bad in self.unfit.values():
            bad.rows = rows
            if bad.too_many(fraction):
                named = ", ".join(str(row) for row in bad.skipped.later(self._before()).first_rows)
                raise DataError(
                    f"{self._source}: {bad.source} in {bad.count:,} of {rows:,} rows, first in rows {named}: is the "
                    f"field's type right? --max-bad lets more than {100 * self._max_bad:g} % pass, as missing"
                )

    def gather(self, shares: Sequence[tuple[int, dict[str, BadRows]]]) -> None:
        """Know of all shares, each the number of its rows and what was unfit in them, instead of this one alone."""
        names = dict.fromkeys(name for _, unfit in shares for name in unfit)
        self.unfit = {
            name: BadRows.of_shares(
                replace(unfit.get(name, BadRows("", self._max_bad)), source=self._what(name), rows=rows)
                for rows, unfit in shares
            )
            for name in names
        }

    def _what(self, name: str) -> str:
        field = next(field for field in self._schema.fields if field.name == name)
        return f"{name} cannot be read as {field.type}"

    @property
    def unreadable(self) -> dict[str, Skipped]:
        """Field name to the rows with an unfit value."""
        return {name: replace(bad.skipped, fate="read as missing") for name, bad in self.unfit.items()}


def _unfit(encoder: Encoder, column: SeriesColumn, raw_name: str) -> npt.NDArray[np.bool_]:
    distinct = column.distinct()
    refused = np.zeros(len(distinct.values), np.bool_)
    for place, value in enumerate(distinct.values):
        try:
            encoder.encode({raw_name: value}, value)
        except EncodingError:
            refused[place] = True
    return refused[distinct.codes_N]
