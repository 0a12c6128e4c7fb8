"""Choose which rows are held out, so that validation resembles the test part: by time, by group, or at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.features.fields import SIDES, Categorical, Side
from app.training.data.dataset import Dataset

HoldOutKind = Literal["time", "group", "random"]
NEWER = 0.9
"""Test rows are the newer ones if they are so in this share of all pairs of a test row and a training row."""
MIN_COVERED = 0.5
"""A field divides the rows into groups if this share of the test rows is of a group that has training rows too."""
MAX_GROUPS = 1_000
"""A field that is no id divides the rows into at most so many,"""
SAMPLE = 20_000
"""and is judged by fewer than so many rows of each part."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitChoice:
    """Says which rows are held out, and why."""

    kind: HoldOutKind
    reason: str
    field: str | None = None
    """Names the field whose every value has its newest rows held out."""
    warning: str = ""
    """Says what is wrong with the test part."""

    def __str__(self) -> str:
        """Return one line for users."""
        rows = {"time": "the newest rows", "group": f"the newest rows of each {self.field}", "random": "rows at random"}
        return f"{rows[self.kind]}: {self.reason}"


def choose_by_test_rows(data: Dataset, test: Dataset) -> SplitChoice:
    """Choose the training rows that resemble the test part most.

    How much newer the test rows are is the share of all pairs of a test row and a training row in which the test row is
    newer: 1 for the newest rows of all, 0.5 for rows at random, and in between for the newest rows of each user or
    campaign. For those it is 1 within the group.
    """
    if data.timestamps_N is None or test.timestamps_N is None:
        return SplitChoice("random", "the rows have no time")
    everything = np.zeros(len(data), np.int64), np.zeros(len(test), np.int64)
    newer, _ = share_of_newer_pairs(*everything, data.timestamps_N, test.timestamps_N)
    if newer >= NEWER:
        return SplitChoice("time", f"the test rows are newer than the training rows ({newer:.0%} of all pairs)")
    if newer <= 1 - NEWER:
        warning = (
            f"the test rows are older than the training rows ({1 - newer:.0%} of all pairs): the model is tested on "
            "what was before that which it has learned from; give newer rows to test on, or exchange the files"
        )
        return SplitChoice("random", "the test rows are the oldest", warning=warning)
    grouped = [one for one in _newer_within_groups(data, test) if one.share >= NEWER]
    if grouped:
        # What is newer within each campaign is so within each user of a campaign too: the coarser group explains both.
        most = max(one.share for one in grouped)
        best = min((one for one in grouped if one.share >= most - 0.01), key=lambda one: one.groups)
        reason = f"the test rows are newer within each ({best.share:.0%} of its pairs), and not overall ({newer:.0%})"
        return SplitChoice("group", reason, best.field)
    return SplitChoice("random", f"the test rows are as old as the training rows (newer in {newer:.0%} of all pairs)")


def share_of_newer_pairs(
    train_groups_N: Codes, test_groups_M: Codes, train_times_N: Codes, test_times_M: Codes
) -> tuple[float, float]:
    """Return the share of the pairs within a group in which the test row is newer, and the share of test rows in pairs.

    It is the mean over the test rows; rows of one time count as half newer. Negative groups are none.
    """
    times = np.unique(np.concatenate([train_times_N, test_times_M]))
    moments = len(times) + 1
    known = train_groups_N >= 0
    train_keys = np.sort(train_groups_N[known] * moments + np.searchsorted(times, train_times_N[known]))
    test_keys_M = test_groups_M * moments + np.searchsorted(times, test_times_M)
    first_M, end_M = (np.searchsorted(train_keys, (test_groups_M + more) * moments) for more in (0, 1))
    older_M = np.searchsorted(train_keys, test_keys_M) - first_M
    no_newer_M = np.searchsorted(train_keys, test_keys_M, side="right") - first_M
    paired_M = (end_M > first_M) & (test_groups_M >= 0)
    if not paired_M.any():
        return 0.5, 0.0
    share_M = (older_M[paired_M] + no_newer_M[paired_M]) / 2 / (end_M - first_M)[paired_M]
    return float(share_M.mean()), float(paired_M.mean())


def newest_of_each(groups_N: Codes, times_N: Codes, rows: int, seed: int) -> Codes:
    """Return the positions of about the same share of newest rows of each group, `rows` in all, in ascending order.

    A group whose share is no whole number has it rounded up or down at random.
    """
    order = np.lexsort((times_N, groups_N))
    groups = groups_N[order]
    starts = np.flatnonzero(np.diff(groups, prepend=groups[0] - 1))
    sizes = np.diff(np.append(starts, len(groups)))
    group_of_row = np.repeat(np.arange(len(sizes)), sizes)
    newer_rows = (starts + sizes - 1)[group_of_row] - np.arange(len(groups))
    dither = np.random.default_rng(seed).random(len(sizes))[group_of_row]
    recency = (newer_rows + dither) / sizes[group_of_row]
    return np.sort(order[np.argsort(recency, kind="stable")[:rows]])


def group_codes(data: Dataset, test: Dataset | None, side: Side, name: str) -> tuple[Codes, Codes] | None:
    """Return a number for the group of each training and test row, -1 where it is missing.

    None where the rows are not in memory.
    """
    columns = []
    for part in (data, test):
        if part is not None:
            if len(part.side(side)) != len(part):  # mapped from a file larger than memory
                return None
            columns.append(part.side(side)[name].cast(pl.String, strict=False))
    codes = pl.concat(columns).rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
    return codes[: len(data)], codes[len(data) :]


class _NewerWithin(NamedTuple):
    share: float
    groups: int
    field: str


def _newer_within_groups(data: Dataset, test: Dataset) -> Iterator[_NewerWithin]:
    """Yield the share of newer pairs within each id and each category of few values."""
    # A user has few rows, all of which are needed; a campaign has many.
    sampled, sampled_test = _evenly_spaced(data), _evenly_spaced(test)
    for side in SIDES:
        if len(data.side(side)) != len(data) or len(test.side(side)) != len(test):
            continue
        for field in data.schema.side(side):
            if not isinstance(field, Categorical):
                continue
            train, held_out = (data, test) if field.id else (sampled, sampled_test)
            if not field.id and train.side(side)[field.raw_name].n_unique() > MAX_GROUPS:
                continue
            codes = group_codes(train, held_out, side, field.raw_name)
            assert codes is not None
            assert train.timestamps_N is not None
            assert held_out.timestamps_N is not None
            share, covered = share_of_newer_pairs(*codes, train.timestamps_N, held_out.timestamps_N)
            if covered >= MIN_COVERED:
                yield _NewerWithin(share, int(codes[0].max()) + 1, field.raw_name)


def _evenly_spaced(data: Dataset) -> Dataset:
    return data.take(np.arange(0, len(data), 1 + len(data) // SAMPLE))
