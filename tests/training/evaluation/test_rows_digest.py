"""The digest tells sets of rows apart."""

from __future__ import annotations

from app.training.evaluation.rows_digest import rows_digest
from tests.training.evaluation.test_field_summary import TRAIN, rows


def test_one_changed_slot_label_or_order_is_another_digest() -> None:
    keys = TRAIN.item.keys.copy()
    keys[2, 0] += 1
    labels = TRAIN.labels_N.copy()
    labels[0] = 1 - labels[0]
    changed = [
        TRAIN._replace(item=TRAIN.item._replace(keys=keys)),
        TRAIN._replace(labels_N=labels),
        rows(["a", "b", "a", "c"], [1, 3, None, 4], ["x|y", "x", None, "x|z"], ["r", "s", "r", None]),
    ]
    assert len({rows_digest(encoded) for encoded in [TRAIN, *changed]}) == 4
    assert rows_digest(TRAIN) == rows_digest(TRAIN._replace(labels_N=TRAIN.labels_N.copy()))
