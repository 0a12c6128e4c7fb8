"""Find columns that tell the label: what a click causes is not known when a request is made."""

from __future__ import annotations

import polars as pl

from app.training.data.column_profile import ColumnProfile

LABEL_AUC = 0.999
"""A column that ranks the labels with this AUC is no feature but the label in other words."""
MIN_EXPECTED = 15
"""So many rows of the other label are to be expected beside a value before their absence says something."""
MIN_RARER = 5
"""Fewer rows of a label may be apart from the others by chance."""
MAX_EXCEPTIONS = 0.02
"""At most this share of them is there: a click that was counted twice, a time that was written late."""


def label_leak(profile: ColumnProfile, labels: pl.Series) -> str:
    """Return how a column tells the label; empty where it does not."""
    if isinstance(profile.series.dtype, pl.List | pl.Struct):
        return ""
    if _tells_label(profile, labels):
        return "tells the label: it would not be known when a request is made"
    only = _only_label(profile.series.is_not_null(), labels)
    if only is not None:
        return f"present only where the label is {only}"
    # Some writers say 0, -1 or none where others say nothing.
    if profile.distinct_count > 1 and profile.mode_share >= 0.5:
        usual = profile.present.cast(pl.String, strict=False).mode().sort()[0]
        only = _only_label((profile.as_text != usual).fill_null(False), labels)
        if only is not None:
            return f"other than {usual} only where the label is {only}"
    return ""


def _only_label(there: pl.Series, labels: pl.Series) -> int | None:
    """Return the label that is the only one of these rows, although others are to be expected; None if none is."""
    rows, all_labels = labels.filter(there).drop_nulls(), labels.drop_nulls()
    if not len(rows) or len(rows) == len(labels):
        return None
    for label in (1, 0):
        expected = len(rows) * float((all_labels != label).sum()) / len(all_labels)
        if expected >= MIN_EXPECTED and float((rows != label).sum()) <= MAX_EXCEPTIONS * expected:
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
