"""Profile a column by its first rows: how its values are written, how varied they are, and what they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import polars as pl

SEPARATORS = ("|", ";", ",")
MIN_LIST_SHARE = 0.2
"""A column holds lists if at least this share of its values has the separator."""
LABEL_AUC = 0.999
"""A column that ranks the labels with this AUC is no feature but the label in other words."""


@dataclass(frozen=True)
class ColumnProfile:
    """Profiles one column of some rows. Text stays text, as training reads it."""

    series: pl.Series
    """Holds the values, null where missing; empty text counts as missing."""

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
    def numbers(self) -> pl.Series | None:
        """Return the values as numbers; None unless all are numbers."""
        if self.series.dtype == pl.String:
            numbers = self.present.cast(pl.Float64, strict=False)
            return None if numbers.null_count() or not len(numbers) else numbers
        return self.present.cast(pl.Float64) if self.series.dtype.is_numeric() else None

    @cached_property
    def is_whole(self) -> bool:
        """Tell whether all values are whole numbers."""
        return self.numbers is not None and bool((self.numbers == self.numbers.floor()).all())

    @cached_property
    def has_padded_codes(self) -> bool:
        """Tell whether there are codes such as 01234, which are not numbers."""
        return self.series.dtype == pl.String and bool(self.present.str.contains(r"^0[0-9]").any())

    @cached_property
    def is_weighted(self) -> bool:
        """Tell whether the values are JSON objects of weights."""
        return self._all_match(r"^\{")

    @cached_property
    def separator(self) -> str | None:
        """Return the separator of its lists, where they are plain text."""
        if self.series.dtype != pl.String or self.numbers is not None or self.is_json:
            return None
        for separator in SEPARATORS:
            with_separator = self.present.filter(self.present.str.contains(separator, literal=True))
            # Prose has commas too, but its parts do not come back.
            if len(with_separator) >= MIN_LIST_SHARE * max(len(self.present), 1) and len(with_separator):
                parts = with_separator.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
                if parts.n_unique() <= 0.5 * len(parts):
                    return separator
        return None

    @cached_property
    def is_json(self) -> bool:
        """Tell whether all values are JSON lists or objects."""
        return self._all_match(r"^[\[{]")

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
            return (
                self.present.str.extract_all(r'"([^"]+)"')
                .explode(empty_as_null=False, keep_nulls=False)
                .str.strip_chars('"')
            )
        if self.separator:
            return self.present.str.split(self.separator).explode(empty_as_null=False, keep_nulls=False)
        return self.present.cast(pl.String)

    @cached_property
    def longest_list(self) -> int:
        """Return the length of the longest list; 1 where there are none."""
        if isinstance(self.series.dtype, pl.List):
            lengths = self.present.list.len()
        elif self.is_json:
            lengths = self.present.str.count_matches(r'"[^"]+"')
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

    def constant_within(self, ids: pl.Series) -> float:
        """Return the share of rows with the most frequent value of their id, among ids that occur twice or more."""
        listed = isinstance(self.series.dtype, pl.List)
        value = self.series.cast(pl.List(pl.String)).list.join("\x1f") if listed else self.series.cast(pl.String)
        pairs = pl.DataFrame({"id": ids.cast(pl.String), "value": value}).drop_nulls()
        counts = (
            pairs.group_by("id", "value")
            .len()
            .group_by("id")
            .agg(pl.col("len").sum().alias("all"), pl.col("len").max())
        )
        counts = counts.filter(pl.col("all") > 1)
        return float(counts["len"].sum()) / float(counts["all"].sum()) if len(counts) else 0.0

    def tells_label(self, labels: pl.Series) -> bool:
        """Tell whether the label nearly always follows from the value."""
        if self.distinct_count < 2 or self.distinct_count > 0.2 * len(self.series):
            return False
        if self.numbers is not None:
            from sklearn.metrics import roc_auc_score

            rows = pl.DataFrame({"x": self.series.cast(pl.Float64), "y": labels}).drop_nulls()
            if rows["y"].n_unique() < 2:
                return False
            auc = float(roc_auc_score(rows["y"].to_numpy(), rows["x"].to_numpy()))
            return max(auc, 1 - auc) >= LABEL_AUC
        pairs = pl.DataFrame({"x": self.series.cast(pl.String, strict=False), "y": labels})
        share = pairs.group_by("x").agg(pl.col("y").mean())["y"]
        return bool(((share < 1 - LABEL_AUC) | (share > LABEL_AUC)).all())


def shared_categories(one: ColumnProfile, other: ColumnProfile) -> float:
    """Return the share of the less varied column's categories that the other has too."""
    left, right = set(one.categories.unique().to_list()), set(other.categories.unique().to_list())
    return len(left & right) / max(min(len(left), len(right)), 1)
