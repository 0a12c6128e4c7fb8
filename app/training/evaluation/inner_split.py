"""Hold out some training rows for the choices of a baseline, so that the validation part stays to measure it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from app.training.evaluation.reliability import Floats

HELD_OUT = 0.1
Index = npt.NDArray[np.int64]


def inner_split(labels_N: Floats, seed: int, max_rows: int | None = None) -> tuple[Index, Index]:
    """Return the numbers of the rows to fit and of those held out, a tenth, with the same share of clicks if possible.

    Args:
        max_rows: the number of rows to take, at random, if there are more.
    """
    rows_N = np.arange(len(labels_N))
    if max_rows is not None and len(rows_N) > max_rows:
        rows_N = np.sort(np.random.default_rng(seed).choice(len(rows_N), max_rows, replace=False))
    labels = labels_N[rows_N] > 0.5
    is_splittable = min(labels.sum(), (~labels).sum()) >= 2 / HELD_OUT
    fitted, held_out = train_test_split(
        rows_N, test_size=HELD_OUT, random_state=seed, stratify=labels if is_splittable else None
    )
    return fitted, held_out
