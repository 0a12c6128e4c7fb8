"""Streamed statistics of numbers equal those of numpy on all of them at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.features.fields import Numeric
from app.features.slots import Values
from app.training.preprocessing.numeric_statistics import fit_numerics
from tests.training.together import together

PLAIN = Numeric(name="plain", entity="user", type="numeric", transforms=("standardise",), buckets=8)
LOGGED = Numeric(name="logged", entity="item", type="numeric", transforms=("log1p", "standardise"), buckets=50)
BARE = Numeric(name="bare", entity="item", type="numeric", transforms=())


@given(
    st.lists(st.floats(width=32, allow_infinity=False) | st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=60),
    st.integers(1, 7),
    st.integers(2, 9),
)
def test_borders_are_numpys_quantiles_whatever_the_chunks(numbers: list[float], size: int, buckets: int) -> None:
    field = Numeric(name="n", entity="user", type="numeric", transforms=(), buckets=buckets)
    raw_N = np.array(numbers, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        result = fit_numerics([field], lambda: (raw_N[at : at + size, None] for at in range(0, len(raw_N), size)))
        known_N = raw_N[~np.isnan(raw_N)].astype(np.float64)
        expected = np.quantile(known_N, np.linspace(0, 1, buckets + 1)[1:-1]) if len(known_N) else np.empty(0)
        np.testing.assert_array_equal(result["n"].borders, np.unique(expected.astype(np.float32)))


def test_fields_side_by_side_in_chunks_are_as_each_at_once() -> None:
    rng = np.random.default_rng(1)
    raw_NM = np.stack([rng.normal(3, 2, 5000), rng.lognormal(3, 2, 5000), rng.integers(0, 3, 5000)], 1)
    raw_NM = raw_NM.astype(np.float32)
    raw_NM[rng.random(raw_NM.shape) < 0.2] = np.nan
    passes = 0

    def chunks() -> Iterator[Values]:
        nonlocal passes
        passes += 1
        return iter(np.array_split(raw_NM, 13))

    result = fit_numerics([PLAIN, LOGGED, BARE], chunks)
    assert passes == 2
    present = [column[~np.isnan(column)].astype(np.float64) for column in raw_NM.T]
    transformed = [present[0], np.log1p(present[1]), present[2]]
    for field, values in zip((PLAIN, LOGGED, BARE), transformed, strict=True):
        assert result[field.name].mean == pytest.approx(values.mean(), rel=1e-6)
        assert result[field.name].deviation == pytest.approx(values.std(), rel=1e-6)
    np.testing.assert_array_equal(
        result["logged"].borders, np.unique(np.quantile(present[1], np.arange(1, 50) / 50).astype(np.float32))
    )
    assert result["bare"].borders == ()


def test_no_fields_cost_no_pass() -> None:
    def chunks() -> Iterator[Values]:
        raise AssertionError("nothing asked for them")

    assert fit_numerics([], chunks) == {}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(0, 1e6, width=32)), min_size=2, max_size=4))
def test_processes_fit_the_numbers_of_all(numbers: list[list[float]]) -> None:
    shares = [np.array(own, np.float32)[:, None] for own in numbers]
    whole = fit_numerics([LOGGED], lambda: iter(shares))["logged"]
    for result in together(
        len(shares), lambda group: fit_numerics([LOGGED], lambda: iter([shares[group.rank]]), group.all_gather)
    ):
        assert isinstance(result, dict), result
        assert result["logged"].borders == whole.borders
        assert (result["logged"].mean, result["logged"].deviation) == pytest.approx((whole.mean, whole.deviation))
