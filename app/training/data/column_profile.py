"""What the first rows of a table say of each column: how it is written, how varied it is, what it follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

SEPARATORS = ("|", ";", ",")
LISTED = 0.2
"""Share of values with the separator in them from which a column is a list."""
ANSWERS = 0.999
"""AUC from which a column is not a feature but the answer in other words."""


@dataclass(frozen=True)
class Profile:
    """One column. Text stays text, as training reads it."""

    series: pl.Series
    """Null where missing, "" too."""

    @property
    def name(self) -> str:
        return self.series.name

    @cached_property
    def known(self) -> pl.Series:
        return self.series.drop_nulls()

    @cached_property
    def missing(self) -> float:
        return self.series.null_count() / max(len(self.series), 1)

    @cached_property
    def distinct(self) -> int:
        return 1 if isinstance(self.series.dtype, pl.List) else self.known.n_unique()

    @cached_property
    def numbers(self) -> pl.Series | None:
        """As numbers, where all values are."""
        if self.series.dtype == pl.String:
            numbers = self.known.cast(pl.Float64, strict=False)
            return None if numbers.null_count() or not len(numbers) else numbers
        return self.known.cast(pl.Float64) if self.series.dtype.is_numeric() else None

    @cached_property
    def whole(self) -> bool:
        return self.numbers is not None and bool((self.numbers == self.numbers.floor()).all())

    @cached_property
    def padded(self) -> bool:
        """Codes such as 01234, which are not numbers."""
        return self.series.dtype == pl.String and bool(self.known.str.contains(r"^0[0-9]").any())

    @cached_property
    def weighted(self) -> bool:
        """JSON objects of weights."""
        return self.series.dtype == pl.String and len(self.known) > 0 and bool(self.known.str.starts_with("{").all())

    @cached_property
    def separator(self) -> str | None:
        """What divides its lists, where they are plain text."""
        if self.series.dtype != pl.String or self.numbers is not None or self.is_json:
            return None
        for separator in SEPARATORS:
            divided = self.known.filter(self.known.str.contains(separator, literal=True))
            # Prose has commas too, but its parts do not come back.
            if len(divided) >= LISTED * max(len(self.known), 1) and len(divided):
                parts = divided.str.split(separator).explode(empty_as_null=False, keep_nulls=False)
                if parts.n_unique() <= 0.5 * len(parts):
                    return separator
        return None

    @cached_property
    def is_json(self) -> bool:
        return self.series.dtype == pl.String and len(self.known) > 0 and bool(self.known.str.contains(r"^[\[{]").all())

    @cached_property
    def items(self) -> pl.Series:
        """The categories in it, of lists each item."""
        if isinstance(self.series.dtype, pl.List):
            return self.known.explode(empty_as_null=False, keep_nulls=False).cast(pl.String).drop_nulls()
        if self.is_json:
            return (
                self.known.str.extract_all(r'"([^"]+)"')
                .explode(empty_as_null=False, keep_nulls=False)
                .str.strip_chars('"')
            )
        if self.separator:
            return self.known.str.split(self.separator).explode(empty_as_null=False, keep_nulls=False)
        return self.known.cast(pl.String)

    @cached_property
    def longest(self) -> int:
        """Most items that a list has."""
        if isinstance(self.series.dtype, pl.List):
            lengths = self.known.list.len()
        elif self.is_json:
            lengths = self.known.str.count_matches(r'"[^"]+"')
        else:
            lengths = self.known.str.count_matches(self.separator or "", literal=True) + 1
        return max(1, int(lengths.max() or 1))  # type: ignore[arg-type]

    @cached_property
    def skewed(self) -> bool:
        """Counts, prices: nothing below zero, and a mean far above the median."""
        numbers = self.numbers
        if numbers is None or not len(numbers):
            return False
        mean, median, least = float(numbers.mean()), float(numbers.median()), float(numbers.min())  # type: ignore[arg-type]
        return least >= 0 and mean > 1.5 * median and float(numbers.max()) > 20  # type: ignore[arg-type]

    def constant_within(self, ids: pl.Series) -> float:
        """Share of the rows of ids seen twice or more whose value is the most frequent one of their id."""
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

    def answers(self, labels: pl.Series) -> bool:
        """Whether it tells the label nearly always."""
        if self.distinct < 2 or self.distinct > 0.2 * len(self.series):
            return False
        if self.numbers is not None:
            from sklearn.metrics import roc_auc_score

            both = pl.DataFrame({"x": self.series.cast(pl.Float64), "y": labels}).drop_nulls()
            if both["y"].n_unique() < 2:
                return False
            auc = float(roc_auc_score(both["y"].to_numpy(), both["x"].to_numpy()))
            return max(auc, 1 - auc) >= ANSWERS
        pairs = pl.DataFrame({"x": self.series.cast(pl.String, strict=False), "y": labels})
        mixed = pairs.group_by("x").agg(pl.col("y").mean())["y"]
        return bool(((mixed < 1 - ANSWERS) | (mixed > ANSWERS)).all())


def shared(one: Profile, other: Profile) -> float:
    """Share of the less varied column's categories that the other has too."""
    left, right = set(one.items.unique().to_list()), set(other.items.unique().to_list())
    return len(left & right) / max(min(len(left), len(right)), 1)
