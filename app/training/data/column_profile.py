"""Profile a column by its first rows: how its values are written, how varied they are, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

RECBOLE_LIST = ":token_seq"
"""A column of RecBole's files whose name ends so holds lists divided by spaces."""
SEPARATORS = ("|", ";", ",")
MIN_LIST_SHARE = 0.2
"""A column holds lists if at least this share of its values has the separator."""
WRITTEN_NUMBER = r"^\s*[-+]?[$€£]?\s*\d{1,3}(?:,\d{3})*(?:\.\d+)?\s*[%€$£]?\s*$"
"""Matches 1,234.50 and the like, which are no lists."""
SIGNED_NUMBER = r"^ *[-+(]? *[$€£]? *\d{1,3}(?:[.,' \u00a0\u202f]?\d{3})*(?:[.,]\d+)? *[%€$£]? *\)? *$"
"""Matches numbers as people and spreadsheets write them: 1.234,50, 5 %, $5, (5)."""
SIGNS = "[.,%€$£(]"
"""Matches what such a number has and no plain one, but for a point."""
JSON_SAMPLE = 1_000
MAX_UNREADABLE = 0.005
"""Numbers may have so many values among them that are none: training reads up to 1 % of such as missing."""


@dataclass(frozen=True, eq=False)
class ColumnProfile:
    """Profiles one column of some rows. Text stays text, as training reads it."""

    series: pl.Series
    """Holds the values, null where missing; empty text counts as missing."""
    words: tuple[str, ...] = ()
    """Holds what the file has among numbers where one is missing, such as NULL."""
    decimal_commas: bool = False
    """Says whether 1,5 is a number and no list, as nearly always in a file whose columns are divided by semicolons."""

    @property
    def name(self) -> str:
        """Return the column's name."""
        return self.series.name

    @cached_property
    def present(self) -> pl.Series:
        """Return the values that are not missing."""
        return self.series.drop_nulls()

    @cached_property
    def missing_share(self) -> float:
        """Return the share of rows without a value."""
        return self.series.null_count() / max(len(self.series), 1)

    @cached_property
    def distinct_count(self) -> int:
        """Return the number of distinct values; 1 for lists."""
        return 1 if isinstance(self.series.dtype, pl.List) else self.present.n_unique()

    @cached_property
    def number_count(self) -> int:
        """Return how many values are numbers."""
        if self.series.dtype == pl.String:
            return self.present.str.strip_chars().cast(pl.Float64, strict=False).count()
        return len(self.present) if self.series.dtype.is_numeric() else 0

    @cached_property
    def floats(self) -> pl.Series | None:
        """Return the values as numbers, null where missing; None unless nearly all are finite numbers."""
        if self.series.dtype == pl.String:
            if self.number_count < (1 - MAX_UNREADABLE) * len(self.present):
                return None
            numbers = self.series.str.strip_chars().cast(pl.Float64, strict=False)
        elif self.series.dtype.is_numeric():
            numbers = self.series.cast(pl.Float64)
        else:
            return None
        numbers = numbers.fill_nan(None)  # as text, too, it means missing
        return numbers if numbers.null_count() < len(numbers) and numbers.drop_nulls().is_finite().all() else None

    @cached_property
    def numbers(self) -> pl.Series | None:
        """Return the values that are not missing as numbers; None unless all are."""
        return None if self.floats is None else self.floats.drop_nulls()

    @cached_property
    def is_whole(self) -> bool:
        """Tell whether all values are whole numbers."""
        return self.numbers is not None and bool((self.numbers == self.numbers.floor()).all())

    @cached_property
    def has_signed_numbers(self) -> bool:
        """Tell whether all values are numbers, but some with signs or separators that no field reads."""
        return self.floats is None and self._all_match(SIGNED_NUMBER) and bool(self.present.str.contains(SIGNS).any())

    @cached_property
    def has_padded_codes(self) -> bool:
        """Tell whether there are codes such as 01234, which are not numbers."""
        return self.series.dtype == pl.String and bool(self.present.str.contains(r"^0[0-9]").any())

    @cached_property
    def is_weighted(self) -> bool:
        """Tell whether the values are JSON objects of weights."""
        return self.is_json and self._all_match(r"^\{")

    @cached_property
    def separator(self) -> str | None:
        """Return the separator of its lists, where they are plain text."""
        if self.series.dtype != pl.String or self.numbers is not None or self.is_json:
            return None
        if self.name.endswith(RECBOLE_LIST):
            return " "
        for separator in SEPARATORS if not self._all_match(r"^[\[{(]") else ():
            number = SIGNED_NUMBER if self.decimal_commas else WRITTEN_NUMBER
            if separator == "," and self.present.str.contains(number).all():
                continue
            with_separator = self.present.filter(self.present.str.contains(separator, literal=True))
            if len(with_separator) >= MIN_LIST_SHARE * max(len(self.present), 1) and len(with_separator):
                # Prose has commas too, but the parts of one text do not come back in others.
                texts = with_separator.unique() if separator == "," else with_separator
                parts = texts.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
                if parts.n_unique() <= (0.4 if separator == "," else 0.5) * len(parts):
                    return separator
        return None

    @cached_property
    def unfit_json(self) -> str | None:
        """Return the first JSON value that fits no field, or empty text where all fit; None unless all are JSON.

        Lists of text, whole numbers and booleans fit, and objects of weights. It looks at a thousand distinct values.
        """
        if not self._all_match(r"^[\[{]"):
            return None
        unfit = ""
        for text in self.present.unique(maintain_order=True).head(JSON_SAMPLE).to_list():
            try:
                value = msgspec.json.decode(text)
            except msgspec.DecodeError:
                return None
            if isinstance(value, dict):
                fits = all(isinstance(weight, float | int) for weight in value.values())
            else:
                fits = all(item is None or isinstance(item, str | int) for item in value)
            unfit = unfit or ("" if fits else text)
        return unfit

    @cached_property
    def is_json(self) -> bool:
        """Tell whether all values are JSON lists or objects."""
        return self.unfit_json is not None

    @cached_property
    def looks_like_lists(self) -> bool:
        """Tell whether all values are text in brackets."""
        return self._all_match(r"^(?:\[.*\]|\{.*\}|\(.*\))$")

    @property
    def has_lists(self) -> bool:
        """Tell whether a value holds several categories."""
        return isinstance(self.series.dtype, pl.List) or self.is_json or self.separator is not None

    def _all_match(self, pattern: str) -> bool:
        """Tell whether the column is text, has values, and the pattern is in all of them."""
        return (
            self.series.dtype == pl.String and len(self.present) > 0 and bool(self.present.str.contains(pattern).all())
        )

    @cached_property
    def categories(self) -> pl.Series:
        """Return all categories, repeated as they occur: the values, or the items of lists."""
        if isinstance(self.series.dtype, pl.List):
            return self.present.explode(empty_as_null=False, keep_nulls=False).cast(pl.String).drop_nulls()
        if self.is_json:
            items = self.present.str.extract_all(self._json_item)
            return items.explode(empty_as_null=False, keep_nulls=False).str.strip_chars('"')
        if self.separator:
            return self.present.str.split(self.separator).explode(empty_as_null=False, keep_nulls=False)
        return self.present.cast(pl.String)

    @property
    def _json_item(self) -> str:
        """Return a pattern of an item of JSON lists, or of a key of JSON objects."""
        return r'"(?:[^"\\]|\\.)+"' + ("" if self.is_weighted else r"|[^\[\]{}:,\s\"]+")

    @cached_property
    def longest_list(self) -> int:
        """Return the length of the longest list; 1 where there are none."""
        if isinstance(self.series.dtype, pl.List):
            lengths = self.present.list.len()
        elif self.is_json:
            lengths = self.present.str.count_matches(self._json_item)
        else:
            lengths = self.present.str.count_matches(self.separator or "", literal=True) + 1
        return max(1, cast(int, lengths.max() or 1))

    @cached_property
    def is_skewed(self) -> bool:
        """Tell whether the values are like counts and prices: none below zero, and a mean far above the median."""
        if self.numbers is None or not len(self.numbers):
            return False
        mean, median = cast(float, self.numbers.mean()), cast(float, self.numbers.median())
        return self.smallest >= 0 and mean > 1.5 * median and self.largest > 20

    @property
    def smallest(self) -> float:
        """Return the least number; the column must have some."""
        assert self.numbers is not None
        return cast(float, self.numbers.min())

    @property
    def largest(self) -> float:
        """Return the largest number; the column must have some."""
        assert self.numbers is not None
        return cast(float, self.numbers.max())

    @cached_property
    def as_text(self) -> pl.Series:
        """Return each row's value as text, lists included."""
        if isinstance(self.series.dtype, pl.List):
            return self.series.cast(pl.List(pl.String)).list.join("\x1f")
        return self.series.cast(pl.String, strict=False)

    @cached_property
    def codes_N(self) -> npt.NDArray[np.int64]:
        """Return a number of 0 and more for each row's value, -1 where it is missing."""
        return self.as_text.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1

    @cached_property
    def mode_share(self) -> float:
        """Return the share of the most frequent value among those that are not missing."""
        counts = np.bincount(self.codes_N[self.codes_N >= 0])
        return float(counts.max() / counts.sum()) if len(counts) else 0.0

    def constant_within(self, ids: ColumnProfile) -> float:
        """Return the share of rows with the most frequent value of their id, among ids that occur twice or more."""
        both = (self.codes_N >= 0) & (ids.codes_N >= 0)
        values = int(self.codes_N.max(initial=0)) + 1
        pairs, counts = np.unique(ids.codes_N[both] * values + self.codes_N[both], return_counts=True)
        if not len(pairs):
            return 0.0
        starts = np.flatnonzero(np.diff(pairs // values, prepend=-1))
        most, rows = np.maximum.reduceat(counts, starts), np.add.reduceat(counts, starts)
        repeated = rows > 1
        return float(most[repeated].sum() / rows[repeated].sum()) if repeated.any() else 0.0

    def with_labels(self, labels: pl.Series) -> pl.DataFrame:
        """Return the columns x, which are numbers or else text, and y, the labels."""
        values = self.series.cast(pl.String, strict=False) if self.floats is None else self.floats
        return pl.DataFrame({"x": values, "y": labels})
