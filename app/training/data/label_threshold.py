"""Propose how a column of more than two numbers, such as ratings, becomes a label of 0 and 1."""

from __future__ import annotations

import numpy as np
import polars as pl

MIN_VALUES = 3
MANY_ZEROS = 0.3
"""Counts and times with so many zeros say by any other number that something happened."""
FEW_VALUES = 12
"""So few numbers are marks on a scale, whose upper half is good; of more, the upper half of the rows is."""


def label_threshold(values: pl.Series) -> str:
    """Return what a column holds and from which number on it could be a click; empty where it is not of numbers."""
    if values.dtype.is_nested():
        return ""
    numbers = values.cast(pl.String, strict=False).str.strip_chars().cast(pl.Float64, strict=False)
    given = values.cast(pl.String, strict=False).str.strip_chars().replace("", None).drop_nulls()
    numbers = numbers.drop_nulls().filter(numbers.drop_nulls().is_finite())
    distinct = numbers.unique().sort()
    if len(distinct) < MIN_VALUES or len(numbers) < 0.9 * len(given):
        return ""
    number_N = numbers.to_numpy()
    if distinct[0] == 0 and np.mean(number_N == 0) >= MANY_ZEROS:
        threshold = float(distinct[1])
    else:
        middle = (distinct[0] + distinct[-1]) / 2 if len(distinct) <= FEW_VALUES else float(np.median(number_N))
        threshold = float(distinct.filter(distinct > middle)[0])
    share = np.mean(number_N >= threshold)
    span = f"{distinct[0]:g} to {distinct[-1]:g}"
    return (
        f"has {len(distinct):,} values, {span}, and a label has 0 and 1: --positive '>={threshold:g}' makes it 1 "
        f"where it is {threshold:g} or more ({share:.0%} of these rows), and 0 elsewhere"
    )
