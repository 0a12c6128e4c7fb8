"""Encode rows of a table by the one encoder, and count the values that fit no slot by field."""

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
from app.training.data.readers.bad_rows import MAX_BAD_SHARE, BadRows, SkippedRows, no_rows
from app.training.data.readers.series_column import SeriesColumn, series_columns

UNFIT = "the value fits no slot"


class TableEncoder:
    """Encodes tables of one schema, chunk after chunk. A value that fits no slot counts as missing, as in serving."""

    def __init__(
        self,
        schema: FeatureSchema,
        source: str,
        max_bad: float = MAX_BAD_SHARE,
        rows_before: Callable[[], int] = no_rows,
        *,
        logged: bool = True,
    ) -> None:
        """Prepare an encoder for each side.

        Args:
            source: the name of the data in messages.
            max_bad: share of the rows that may have an unfit value, in each field.
            rows_before: counts the rows before the ones that are encoded here; called for error messages only.
            logged: whether fields of the position are read, as in training, or held at their `serve_as`.
        """
        self._schema, self._source, self._max_bad, self._rows_before = schema, source, max_bad, rows_before
        self._encoders = {side: Encoder(schema, side, logged=logged) for side in SIDES}
        self.unfit: dict[str, BadRows] = {}
        """Records the rows with an unfit value, by field name."""

    def slots(self, side: Side, frame: pl.DataFrame, rows_N: npt.NDArray[np.int64]) -> Slots:
        """Encode a table of one side.

        Args:
            rows_N: the rows' numbers in the file, for messages.
        """
        table = series_columns(frame)
        refused: set[str] = set()
        slots = self._encoders[side].encode_columns(table, len(rows_N), refused.add)
        for field in self._schema.side(side):
            if field.name in refused:
                alone = FeatureSchema(fields=(field,), missing=self._schema.missing, reading=self._schema.reading)
                field_encoder = Encoder(alone, side, logged=True)
                unfit_N, reason = _unfit_rows(field_encoder, table[field.raw_name], field.raw_name)
                bad = self.unfit.setdefault(field.name, BadRows(self._describe(field.name), self._max_bad))
                bad.add(UNFIT, np.unique(rows_N[unfit_N]))  # of rows that count impressions there are two
                bad.advice.setdefault(UNFIT, reason)
        return slots

    def check(self, rows: int, fraction: float = 1.0) -> None:
        """Stop a run on a field with too many unfit values.

        Args:
            rows: the number of rows encoded so far.
            fraction: the share of the file that they are.

        Raises:
            DataError: more than `max_bad` of the rows that the file is likely to have are unfit in one field.
        """
        for bad in self.unfit.values():
            bad.rows = rows
            if bad.too_many(fraction):
                first_rows = ", ".join(str(row) for row in bad.skipped.shifted(self._rows_before()).first_rows)
                raise DataError(
                    f"{self._source}: {bad.source} in {bad.count:,} of {rows:,} rows, first in rows {first_rows}: "
                    f"{bad.advice.get(UNFIT, '')}; is the field's type right? --max-bad lets more than "
                    f"{100 * self._max_bad:g} % pass, as missing"
                )

    def merge(self, shards: Sequence[tuple[int, dict[str, BadRows]]]) -> None:
        """Replace the counts by those of consecutive shards, each the number of its rows and its `unfit`."""
        names = dict.fromkeys(name for _, unfit in shards for name in unfit)
        self.unfit = {
            name: BadRows.of_shards(
                replace(unfit.get(name, BadRows("", self._max_bad)), source=self._describe(name), rows=rows)
                for rows, unfit in shards
            )
            for name in names
        }

    def _describe(self, name: str) -> str:
        field = next(field for field in self._schema.fields if field.name == name)
        return f"{name} cannot be read as {field.type}"

    @property
    def unreadable(self) -> dict[str, SkippedRows]:
        """Return the rows with an unfit value by field name, as reports show them."""
        return {name: replace(bad.skipped, fate="read as missing") for name, bad in self.unfit.items()}


def _unfit_rows(encoder: Encoder, column: SeriesColumn, raw_name: str) -> tuple[npt.NDArray[np.bool_], str]:
    """Return which rows have a value that fits no slot, and what is wrong with one of them."""
    distinct = column.distinct()
    unfit, reason = np.zeros(len(distinct.values), np.bool_), ""
    for index, value in enumerate(distinct.values):
        try:
            encoder.encode({raw_name: value}, value)
        except EncodingError as error:
            unfit[index], reason = True, reason or str(error).removeprefix(f"{error.field}: ")
    return unfit[distinct.codes_N], reason
