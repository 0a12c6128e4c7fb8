"""Whole numbers are told apart by their values: codes of every kind are codes, amounts of every kind are numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.training.data.column_profile import ColumnProfile
from app.training.data.number_kind import NumberKind, number_kind

Numbers = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], npt.ArrayLike]
SEEDS = st.integers(0, 2**32 - 1)
ROWS = st.sampled_from([1_000, 5_000, 20_000])


def popular_codes(
    random: np.random.Generator, rows: int, codes: int, largest: int, power: float = 1.0
) -> npt.ArrayLike:
    """Draw codes by Zipf's law; which of them are popular has nothing to do with their numbers."""
    share = 1 / np.arange(1, codes + 1) ** power
    names = random.choice(np.arange(1, largest + 1), codes, replace=False)
    return names[random.choice(codes, rows, p=share / share.sum())]


QUANTITIES: dict[str, Draw] = {
    "ages": lambda random, n: (18 + random.gamma(2, 9, n)).clip(18, 90).round(),
    "ages of two groups": lambda random, n: np.where(
        random.random(n) < 0.5, random.normal(20, 4, n), random.normal(60, 8, n)
    ).round(),
    "years": lambda random, n: (2024 - random.gamma(1.5, 10, n)).round(),
    "counts": lambda random, n: random.geometric(0.05, n) - 1,
    "many counts": lambda random, n: random.negative_binomial(1, 0.01, n),
    "counts, mostly none": lambda random, n: np.where(random.random(n) < 0.6, 0, random.lognormal(3, 1, n)).round(),
    "seconds": lambda random, n: random.exponential(300, n).round(),
    "seconds or -1": lambda random, n: np.where(random.random(n) < 0.5, -1, random.exponential(200, n).round()),
    "prices": lambda random, n: random.lognormal(7, 1.5, n).round(),
    "prices in cents": lambda random, n: random.lognormal(3, 1, n).round() * 100 + 99,
    "incomes in thousands": lambda random, n: random.lognormal(10, 0.6, n).round(-3),
    "degrees": lambda random, n: random.normal(5, 12, n).round(),
}
CODES: dict[str, Draw] = {
    "advertisements": lambda random, n: popular_codes(random, n, 200, 24_000),
    "apps": lambda random, n: popular_codes(random, n, 150, 500, 1.3),
    "channels without gaps": lambda random, n: popular_codes(random, n, 100, 100),
    "addresses, few rows each": lambda random, n: popular_codes(random, n, n // 4, 364_000, 0.8),
    "users, equally often": lambda random, n: random.integers(1, 41, n),
    "more users, equally often": lambda random, n: random.integers(0, 500, n),
    "hashes": lambda random, n: random.integers(0, 2**32, n // 5)[random.integers(0, n // 5, n)],
    "long hashes": lambda random, n: random.integers(2**60, 2**62, 50)[random.integers(0, 50, n)],
    "occupations": lambda random, n: random.choice(21, n, p=random.dirichlet(np.full(21, 0.8))),
}


def kind(values: npt.ArrayLike, labels: npt.ArrayLike | None = None, name: str = "x") -> NumberKind:
    column = pl.Series(name, np.asarray(values, np.float64))
    clicks = np.random.default_rng(0).random(len(column)) < 0.3 if labels is None else np.asarray(labels)
    return number_kind(ColumnProfile(column), pl.Series(clicks.astype(np.float64)))


@pytest.mark.parametrize("name", QUANTITIES)
@settings(max_examples=8, derandomize=True)
@given(seed=SEEDS, rows=ROWS)
def test_amounts_are_numbers(name: str, seed: int, rows: int) -> None:
    values = QUANTITIES[name](np.random.default_rng(seed), rows)
    assert not kind(values).is_code, kind(values).reason


@pytest.mark.parametrize("name", CODES)
@settings(max_examples=8, derandomize=True)
@given(seed=SEEDS, rows=ROWS)
def test_codes_are_categories(name: str, seed: int, rows: int) -> None:
    assert kind(CODES[name](np.random.default_rng(seed), rows)).is_code


@settings(max_examples=8, derandomize=True)
@given(seed=SEEDS)
def test_codes_that_are_as_frequent_as_counts_are_told_by_their_click_rates(seed: int) -> None:
    random = np.random.default_rng(seed)
    codes = random.zipf(1.3, 20_000) % 1_000
    rates = 1 / (1 + np.exp(1 - random.normal(0, 1, 1_000)))
    assert kind(codes, random.random(len(codes)) < rates[codes]).is_code
    smooth = 1 / (1 + np.exp(1 - np.log1p(np.arange(1_000))))
    assert not kind(codes, random.random(len(codes)) < smooth[codes]).is_code


def test_a_trait_is_judged_by_its_owners_and_not_by_how_often_they_are_shown() -> None:
    random = np.random.default_rng(0)
    weights = random.gamma(3, 10, 3_001).round()
    items = popular_codes(random, 20_000, 3_000, 3_000)
    column, labels = pl.Series("x", weights[items]), pl.Series(np.zeros(20_000))
    assert number_kind(ColumnProfile(column), labels).is_code
    assert not number_kind(ColumnProfile(column), labels, pl.Series(items)).is_code
    publishers = np.asarray(popular_codes(random, 3_001, 60, 60))
    column = pl.Series("x", publishers[items])
    assert number_kind(ColumnProfile(column), labels, pl.Series(items)).is_code


@pytest.mark.parametrize(
    ("name", "is_code"),
    [("zip", True), ("price", False), ("price_group", True), ("city_population", False), ("movieRatingCount", False)],
)
def test_the_last_telling_word_of_a_name_goes_first(name: str, is_code: bool) -> None:
    random = np.random.default_rng(0)
    for values in (random.integers(1, 500, 3_000), random.geometric(0.05, 3_000)):
        assert kind(values, name=name).is_code == is_code


def test_few_numbers_are_categories_but_for_amounts_by_name() -> None:
    assert kind(np.arange(1_000) % 7).reason == "only 7 whole numbers"
    assert not kind(np.arange(1_000) % 7, name="children_count").is_code
    assert kind(np.arange(1_000) % 2, name="cost").is_code
