"""A sample is bounded, seeded, and keeps rows whole."""

from __future__ import annotations

import torch

from app.training.preprocessing.sampling import sample
from tests.training.evaluation.test_importance import ROWS


def test_a_sample_is_bounded_seeded_and_keeps_rows_whole() -> None:
    one, two = sample(ROWS, 5, 40), sample(ROWS, 5, 40)
    assert len(one.labels_N) == 40
    assert all(torch.equal(left, right) for left, right in zip(one[:3], two[:3], strict=True))
    whole = {(*rows.tolist(), float(label)) for rows, label in zip(ROWS.rows_NT, ROWS.labels_N, strict=True)}
    assert all((*r.tolist(), float(label)) in whole for r, label in zip(one.rows_NT, one.labels_N, strict=True))
    assert sample(ROWS, 5, 300) is ROWS
