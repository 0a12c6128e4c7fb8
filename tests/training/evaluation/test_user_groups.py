"""Rows are grouped by the id of their user."""

from __future__ import annotations

import numpy as np

from app.training.evaluation.user_groups import user_groups
from tests.training.evaluation.test_field_summary import SCHEMA, TRAIN


def test_users_are_told_apart_by_their_id() -> None:
    groups = user_groups(SCHEMA, TRAIN)
    assert groups is not None
    assert [int(np.flatnonzero(groups == key)[0]) for key in groups] == [0, 0, 2, 3]
    assert user_groups(SCHEMA.model_copy(update={"fields": SCHEMA.fields[1:]}), TRAIN) is None
