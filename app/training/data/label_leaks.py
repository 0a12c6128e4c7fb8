"""Find columns that tell the label: what a click causes is not known when a request is made."""

from __future__ import annotations

import polars as pl

from app.training.data.column_names import words_of
from app.training.data.column_profile import ColumnProfile

LABEL_AUC = 0.999
"""A column that ranks the labels with this AUC is no feature but the label in other words."""
MIN_EXPECTED = 15
"""So many rows of the other label are to be expected beside a value before their absence says something."""
MIN_EXPECTED_OF_OUTCOME = 3
"""Fewer suffice where the name says that it comes after a click."""
MIN_EXPECTED_OF_VALUE = 50
"""More are needed for one value among several, of which some are rare and popular."""
MAX_VALUES = 20
"""Only columns of few values are looked at value by value: an id may well be of somebody who always clicks."""
MIN_RARER = 5
"""Fewer rows of a label may be apart from the others by chance."""
MAX_EXCEPTIONS = 0.02
"""Share of the expected rows that may occur all the same: a click counted twice, a time written late."""

OUTCOME_WORDS = {
    "dwell", "conversion", "converted", "conversions", "convert", "purchase", "purchased", "bought", "order", "ordered",
    "checkout", "basket", "revenue", "gmv", "watch", "watched", "played", "listened", "spent", "finish", "finished",
    "completed", "completion", "installed", "install", "liked", "like", "shared", "share", "commented", "added",
    "clicked", "clicks", "click", "clk", "landing", "bounce", "bounced", "attributed", "returned", "payment", "paid",
}  # fmt: skip
"""What happens after a click, and has a column in its log."""


def label_leak(profile: ColumnProfile, labels: pl.Series) -> str:
    """Return how a column tells the label; empty where it does not."""
    least = MIN_EXPECTED_OF_OUTCOME if OUTCOME_WORDS & set(words_of(profile.name)) else MIN_EXPECTED
    is_present = profile.series.is_not_null()
    if isinstance(profile.series.dtype, pl.List):
        is_present = is_present & (profile.series.list.len() > 0).fill_null(False)
    elif isinstance(profile.series.dtype, pl.Struct):
        return ""
    elif _tells_label(profile, labels):
        return "tells the label: it would not be known when a request is made"
    only = _only_label(is_present, labels, least)
    if only is not None:
        return f"present only where the label is {only}"
    only = _only_label(~is_present, labels, least)
    if only is not None:
        return f"missing only where the label is {only}"
    if isinstance(profile.series.dtype, pl.List) or profile.distinct_count < 2:
        return ""
    # Some writers say 0, -1 or none where others say nothing.
    usual = profile.present.cast(pl.String, strict=False).mode().sort()[0]
    only = _only_label((profile.as_text != usual).fill_null(False), labels, least)
    if only is not None:
        return f"other than {usual} only where the label is {only}"
    if profile.floats is not None:
        for sign, has_sign in (("above 0", profile.floats > 0), ("0 or less", profile.floats <= 0)):
            only = _only_label(has_sign.fill_null(False), labels, least)
            if only is not None:
                return f"{sign} only where the label is {only}"
    return _telling_value(profile, labels)


def _telling_value(profile: ColumnProfile, labels: pl.Series) -> str:
    """Return which of a few values, such as the event type `purchase`, only clicks have; empty where none is so."""
    if profile.distinct_count > MAX_VALUES:
        return ""
    for value in profile.as_text.drop_nulls().unique().sort().to_list():
        if _only_label((profile.as_text == value).fill_null(False), labels, MIN_EXPECTED_OF_VALUE) == 1:
            return f"{value} only where the label is 1"
    return ""


def _only_label(flags: pl.Series, labels: pl.Series, least: float) -> int | None:
    """Return the label that is the only one of these rows, although others are to be expected; None if none is."""
    rows, all_labels = labels.filter(flags).drop_nulls(), labels.drop_nulls()
    if not len(rows) or len(rows) == len(labels):
        return None
    for label in (1, 0):
        expected = len(rows) * float((all_labels != label).sum()) / len(all_labels)
        if expected >= least and float((rows != label).sum()) <= MAX_EXCEPTIONS * expected:
            return label
    return None


def _tells_label(profile: ColumnProfile, labels: pl.Series) -> bool:
    """Tell whether the label nearly always follows from the value."""
    if profile.distinct_count < 2 or profile.distinct_count > 0.2 * len(profile.series):
        return False
    rows = profile.with_labels(labels)
    if profile.numbers is not None:
        from sklearn.metrics import roc_auc_score

        rows = rows.drop_nulls()
        if rows["y"].n_unique() < 2:
            return False
        auc = float(roc_auc_score(rows["y"].to_numpy(), rows["x"].to_numpy()))
        return max(auc, 1 - auc) >= LABEL_AUC
    # Where clicks are rare nearly every value has nearly none: what counts is that each click has a value of its own.
    counts = rows.drop_nulls("y").group_by("x").agg(clicks=pl.col("y").sum(), others=(1 - pl.col("y")).sum())
    rarer = min(float(counts["clicks"].sum()), float(counts["others"].sum()))
    confused = float(counts.select(pl.min_horizontal("clicks", "others").sum()).item())
    return rarer >= MIN_RARER and confused <= (1 - LABEL_AUC) * rarer
