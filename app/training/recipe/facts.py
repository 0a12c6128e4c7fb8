"""Measure what the rules need to know of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.training.data.split import SplitConfig
from app.training.job_results import PreparedData
from app.training.loop.epochs import user_id_slot

VALIDATION_SHARE, MAX_VALIDATION_SHARE = SplitConfig.validation, 0.25
ENOUGH_ROWS, ENOUGH_OF_A_CLASS = 500, 100
"""A validation part with fewer rows, or fewer of the rarer class, chooses the best epoch by chance."""


@dataclass(frozen=True)
class DataFacts:
    """Holds what the rules choose by."""

    rows: int
    """Number of training rows."""
    rarer_class: int
    """Number of those with a click, or of those without one, whichever are fewer."""
    unseen_users: float | None
    """Share of validation rows whose user id has no table row; None without a user id."""
    impressions: int | None = None
    """Number of impressions that the training rows count; None where each is one."""
    rows_are_mapped: bool = False
    """Whether rows are mapped from files, as those of a service and of large files are."""


def measure(prepared: PreparedData) -> DataFacts:
    """Measure prepared rows."""
    slot = user_id_slot(prepared.preprocessing)
    rows_NT = prepared.rows["validation"].rows_NT
    unseen = float((rows_NT[:, slot[0]] == slot[1]).float().mean()) if slot else None
    train = prepared.rows["train"]
    impressions = None if train.units_N is None else round(train.total_weight)
    rows, clicks = len(train.labels_N), int(train.labels_N.sum())
    return DataFacts(rows, min(clicks, rows - clicks), unseen, impressions, prepared.are_mapped)


def validation_share(labels_N: npt.NDArray[np.float32]) -> float:
    """Return the share of the rows to validate on: a tenth, and up to a quarter where that would be too few.

    As the version is fitted again on all rows, a larger validation part takes nothing from it.
    """
    clicks = int(labels_N.sum())
    rarer = max(min(clicks, len(labels_N) - clicks), 1)
    wanted = max(VALIDATION_SHARE, ENOUGH_ROWS / max(len(labels_N), 1), ENOUGH_OF_A_CLASS / rarer)
    return min(wanted, MAX_VALIDATION_SHARE)
