"""Tell codes from quantities among whole numbers.

An `ip`, an `app` or an occupation written as a number names something: half of it is nothing. A price, a count or a
year is an amount, near others of about the same meaning. The values tell them apart, by what an amount never does:

- values recur although there are gaps between them (an amount would fall into the gaps);
- one value is many times as frequent as its neighbours, again and again (an amount has a smooth histogram);
- all are equally frequent between two sharp ends, as ids counted from 1 are;
- each has a click rate of its own, unlike its neighbours'.

Round numbers (999, 500) are heaped without being codes, and a trait whose every value belongs to one item says nothing
either way. A word in the name, such as price or zip, goes first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.training.data.column_names import NamedKind, named_kind
from app.training.data.column_profile import ColumnProfile

FEW_NUMBERS = 12
"""So few numbers are embedded one by one, whatever they mean."""
FEW_QUANTITIES = 5
"""A column named like a quantity is one if it has this many values."""
MAX_CODE_DIGITS = 15
"""No quantity has more digits."""
EARLIEST_YEAR, LATEST_YEAR = 1900, 2040
"""Whole numbers, all of them between these two, are years."""
GROUP = 8
"""So many neighbouring values are looked at together."""
RECURRING = 0.5
"""Codes have at most this share of the distinct values that as many draws from a smooth density would have."""
HEAPED = 0.6
"""Share of values that end in 0, 5 or 9 among amounts that people have rounded; chance gives 0.3."""
ROUGH = 0.35
"""Codes differ from their neighbours' frequency by a factor of 1.4 (e to this) and more, in the median."""
UNEVEN = 0.03
"""Equally frequent values stay this near to a uniform distribution (Kolmogorov-Smirnov), beside chance."""
KS_95 = 1.36
OWN_RATES = 0.3
"""Share of codes whose click rate is two standard errors off their neighbours'; chance gives 0.05."""
MIN_NEIGHBOURS = 12
"""A comparison with neighbours is worth something from this many values on."""

Floats = npt.NDArray[np.float64]


class NumberKind(NamedTuple):
    """Says whether whole numbers are codes or quantities, and why."""

    is_code: bool
    reason: str


def number_kind(profile: ColumnProfile, labels: pl.Series, owner: pl.Series | None = None) -> NumberKind:
    """Tell what the whole numbers of a column are.

    Args:
        labels: 0 or 1 for each row.
        owner: the id within which the column is constant, if it is the trait of a user or item.
    """
    values, named = profile.distinct_count, named_kind(profile.name)
    if named is NamedKind.CODE:
        return NumberKind(True, f"whole numbers that name something, {values:,} values")
    if named is NamedKind.QUANTITY and values >= FEW_QUANTITIES:
        return NumberKind(False, "numbers")
    if values <= FEW_NUMBERS:
        return NumberKind(True, f"only {values} whole number{'s' if values > 1 else ''}")
    if profile.largest >= 10**MAX_CODE_DIGITS or profile.smallest <= -(10**MAX_CODE_DIGITS):
        return NumberKind(True, f"whole numbers of more than {MAX_CODE_DIGITS} digits, {values:,} values")
    if profile.smallest >= EARLIEST_YEAR and profile.largest <= LATEST_YEAR:
        return NumberKind(False, f"years from {profile.smallest:.0f} to {profile.largest:.0f}")
    if profile.smallest < -1 and profile.largest < 1e6:
        return NumberKind(False, "numbers, some below zero")
    rows = profile.with_labels(labels)
    if owner is not None:
        rows = (
            rows.with_columns(owner.alias("owner")).drop_nulls("x").unique("owner", keep="first", maintain_order=True)
        )
    rows = rows.drop_nulls("x")
    if owner is not None and values >= 0.5 * len(rows):
        return NumberKind(False, "numbers")
    evidence = code_evidence(rows["x"].to_numpy(), rows["y"].to_numpy() if owner is None else None)
    return (
        NumberKind(True, f"whole numbers, but {evidence}: {values:,} codes")
        if evidence
        else NumberKind(False, "numbers")
    )


def code_evidence(numbers_N: Floats, labels_N: Floats | None) -> str:
    """Return what shows that whole numbers are codes; empty where nothing does."""
    values_K, code_N, counts_K = np.unique(numbers_N, return_inverse=True, return_counts=True)
    if not _is_heaped(values_K):
        if _distinct_of_expected(values_K, counts_K) < RECURRING:
            return "they recur with gaps between them"
        if _frequency_roughness(counts_K) > ROUGH:
            return "neighbours differ in frequency"
    if is_uniform(values_K, counts_K):
        return "all are about as frequent"
    if labels_N is not None and _share_with_own_rate(code_N, counts_K, labels_N) > OWN_RATES:
        return "neighbours differ in click rate"
    return ""


def _is_heaped(values_K: Floats) -> bool:
    return bool(np.isin(np.abs(values_K) % 10, (0, 5, 9)).mean() >= HEAPED)


def _distinct_of_expected(values_K: Floats, counts_K: npt.NDArray[np.int64]) -> float:
    """Return the distinct values over those expected of a density that is smooth, the median over groups of neighbours.

    n draws from w equally likely whole numbers have w (1 - exp(-n / w)) distinct values.
    """
    group = max(GROUP, len(values_K) // 50)
    starts = np.arange(0, len(values_K) - group, group)
    if not len(starts):
        starts, group = np.zeros(1, np.int64), len(values_K) - 1
    width_G = values_K[starts + group] - values_K[starts]
    draws_G = np.add.reduceat(counts_K[: starts[-1] + group], starts)
    expected_G = -width_G * np.expm1(-draws_G / width_G)
    return float(np.median(group / expected_G))


def _frequency_roughness(counts_K: npt.NDArray[np.int64]) -> float:
    """Return the median of |log(frequency / mean frequency of the four neighbours)|, over frequent enough values."""
    frequency = counts_K.astype(np.float64)
    around = (frequency[:-4] + frequency[1:-3] + frequency[3:-1] + frequency[4:]) / 4
    middle = frequency[2:-2]
    enough = around >= 5
    if enough.sum() < MIN_NEIGHBOURS:
        return 0.0
    distance = np.abs(np.log((middle[enough] + 0.5) / (around[enough] + 0.5)))
    chance = np.sqrt(
        1.25 / np.minimum(np.maximum(middle, 1), around)[enough]
    )  # of Poisson counts, one standard deviation
    return float(np.median(distance)) if np.median(distance) > np.median(chance) else 0.0


def is_uniform(values_K: Floats, counts_K: npt.NDArray[np.int64] | Floats) -> bool:
    """Tell whether sorted whole numbers are about equally frequent between the least and the largest."""
    cumulative_K = np.cumsum(counts_K) / counts_K.sum()
    uniform_K = (values_K - values_K[0] + 1) / (values_K[-1] - values_K[0] + 1)
    return bool(np.abs(cumulative_K - uniform_K).max() < UNEVEN + KS_95 / np.sqrt(counts_K.sum()))


def _share_with_own_rate(code_N: npt.NDArray[np.int64], counts_K: npt.NDArray[np.int64], labels_N: Floats) -> float:
    """Return the share of values whose click rate is two standard errors off the mean of their two neighbours'."""
    clicks_K = np.bincount(code_N, labels_N, minlength=len(counts_K))
    rates_K = clicks_K / counts_K
    rows = counts_K[:-2] + counts_K[1:-1] + counts_K[2:]
    rate = (clicks_K[:-2] + clicks_K[1:-1] + clicks_K[2:]) / rows
    variance = rate * (1 - rate)
    enough = np.minimum(np.minimum(counts_K[:-2], counts_K[1:-1]), counts_K[2:]) * variance >= 2
    if enough.sum() < MIN_NEIGHBOURS:
        return 0.0
    error = np.sqrt(variance * (1 / counts_K[1:-1] + 0.25 / counts_K[:-2] + 0.25 / counts_K[2:]))
    off = np.abs(rates_K[1:-1] - (rates_K[:-2] + rates_K[2:]) / 2)
    return float((off[enough] > 2 * error[enough]).mean())
