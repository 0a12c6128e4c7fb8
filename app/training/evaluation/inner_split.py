"""Hold out some training rows for the choices of a baseline, so that the validation part stays to measure it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from app.training.evaluation.reliability import Floats
from app.training.preprocessing.click_rates import deal_folds

HELD_OUT = 0.1
FOLDS = 5
MIN_CLICKS = 100
"""A tenth with fewer clicks, or rows without one, is a lottery: then each of five folds is held out in turn."""
Index = npt.NDArray[np.int64]


def inner_split(
    labels_N: Floats, seed: int, max_rows: int | None = None, units_N: Index | None = None
) -> tuple[Index, Index]:
    """Return the numbers of the rows to fit and of those held out, a tenth, with the same share of clicks if possible.

    Args:
        max_rows: the number of rows to take, at random, if there are more.
        units_N: numbers what stays together.
    """
    rows_N = _some(len(labels_N), seed, max_rows)
    if units_N is not None:
        return _by_fold(rows_N, deal_folds(len(rows_N), round(1 / HELD_OUT), seed, units_N[rows_N]), 0)
    labels = labels_N[rows_N] > 0.5
    is_splittable = min(labels.sum(), (~labels).sum()) >= 2 / HELD_OUT
    fitted, held_out = train_test_split(
        rows_N, test_size=HELD_OUT, random_state=seed, stratify=labels if is_splittable else None
    )
    return fitted, held_out


def inner_folds(
    labels_N: Floats, seed: int, max_rows: int | None = None, units_N: Index | None = None
) -> list[tuple[Index, Index]]:
    """Return one split as `inner_split` makes it or, where that would hold out few clicks, the five of five folds."""
    rows_N = _some(len(labels_N), seed, max_rows)
    labels = labels_N[rows_N] > 0.5
    rarer = int(min(labels.sum(), (~labels).sum()))
    if rarer * HELD_OUT >= MIN_CLICKS or rarer < FOLDS:
        return [inner_split(labels_N, seed, max_rows, units_N)]
    if units_N is not None:
        fold_N = deal_folds(len(rows_N), FOLDS, seed, units_N[rows_N])
        return [_by_fold(rows_N, fold_N, fold) for fold in range(FOLDS)]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(rows_N, labels)
    return [(rows_N[fitted], rows_N[held_out]) for fitted, held_out in folds]


def _by_fold(rows_N: Index, fold_N: Index, fold: int) -> tuple[Index, Index]:
    """Return the rows of the other folds, and those of this one."""
    return rows_N[fold_N != fold], rows_N[fold_N == fold]


def _some(rows: int, seed: int, max_rows: int | None) -> Index:
    if max_rows is None or rows <= max_rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, max_rows, replace=False))
