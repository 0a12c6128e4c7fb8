"""Histograms of training rows are those of all rows, as often as each counts, though some are looked at."""

from __future__ import annotations

import numpy as np
import pytest

from app.features.schema import parse_schema
from app.features.slots import Slots
from app.training import field_histograms as module
from app.training.data.row_weights import RowWeights
from app.training.field_histograms import field_histograms
from app.training.preprocessing.encode import EncodedRows

SCHEMA = parse_schema("""\
version: 1
fields:
  - {name: city, entity: user, type: categorical}
  - {name: price, entity: item, type: numeric}
""")


def rows(count: int, weights: RowWeights | None = None) -> EncodedRows:
    city = np.where(np.arange(count) % 4 == 0, 11, 22).astype(np.int64)[:, None]
    price = np.arange(count, dtype=np.float32)[:, None] % 100
    ones = np.ones((count, 1))
    return EncodedRows(
        Slots(city, ones.astype(np.float32)),
        Slots(ones.astype(np.int64), price),
        np.zeros(count, np.float32),
        {},
        weights=weights,
    )


def test_every_field_has_one() -> None:
    found = field_histograms(SCHEMA, rows(1000))
    assert found["city"].keys == (11, 22)
    assert found["city"].shares == (0.25, 0.75, 0.0, 0.0)
    assert len(found["price"].shares) == 20
    assert found["price"].missing == 0


def test_of_many_rows_a_sample_tells_nearly_the_same_and_a_seed_always_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 5000)
    found = field_histograms(SCHEMA, rows(50_000), seed=3)
    assert found["city"].shares == pytest.approx((0.25, 0.75, 0, 0), abs=0.02)
    assert found["price"].borders == pytest.approx(field_histograms(SCHEMA, rows(1000))["price"].borders, abs=4)
    assert found == field_histograms(SCHEMA, rows(50_000), seed=3)


def test_rows_count_as_often_as_in_metrics() -> None:
    weights_N = np.where(np.arange(40_000) % 4 == 0, 9.0, 1.0).astype(np.float32)
    found = field_histograms(SCHEMA, rows(40_000, RowWeights(np.ones_like(weights_N), weights_N, "as often as shown")))
    assert found["city"].shares == pytest.approx((0.75, 0.25, 0, 0), abs=0.02)
