"""The training rows that are held out for validation resemble the test rows, however a file was split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import DataError
from app.features.fields import Categorical
from app.features.schema import FeatureSchema
from app.training.data.dataset import Dataset
from app.training.data.split import SplitConfig
from app.training.data.split_choice import newest_of_each, share_of_newer_pairs

SEEDS = st.integers(0, 2**32 - 1)
SCHEMA = FeatureSchema(
    fields=(
        Categorical(name="user_id", entity="user", id=True),
        Categorical(name="weather", entity="context"),
        Categorical(name="item_id", entity="item", id=True),
        Categorical(name="campaign", entity="item"),
    )
)


def impressions(random: np.random.Generator, rows: int = 2_000, campaigns: int = 4) -> Dataset:
    """Return impressions of campaigns that begin one after the other, and of users who stay for a while."""
    campaign = random.integers(0, campaigns, rows)
    times = campaign * 1_000 + random.integers(0, 2_000, rows)
    user = pl.DataFrame(
        {"user_id": times // 500 * 6 + random.integers(0, 6, rows), "weather": random.integers(0, 4, rows)}
    )
    item = pl.DataFrame({"item_id": campaign * 100 + random.integers(0, 20, rows), "campaign": campaign})
    return Dataset("table", SCHEMA, user, item, (np.arange(rows) % 3 == 0).astype(np.float32), times, "rows.csv")


def divide(data: Dataset, held_out: npt.NDArray[np.bool_]) -> tuple[Dataset, Dataset]:
    return data.take(np.flatnonzero(~held_out)), data.take(np.flatnonzero(held_out))


def newest(data: Dataset, groups: npt.ArrayLike, share: float = 0.2) -> npt.NDArray[np.bool_]:
    """Tell the newest rows of each group."""
    times = pl.DataFrame({"group": np.asarray(groups), "time": data.timestamps_N})
    rank = times.select(pl.col("time").rank("ordinal").over("group") / pl.len().over("group")).to_series()
    return rank.to_numpy() > 1 - share


def times(data: Dataset) -> npt.NDArray[np.int64]:
    assert data.timestamps_N is not None
    return data.timestamps_N


@settings(max_examples=20)
@given(SEEDS, st.floats(0, 0.05))
def test_newer_test_rows_have_the_newest_for_validation_though_some_are_old(seed: int, misplaced: float) -> None:
    random = np.random.default_rng(seed)
    data = impressions(random)
    held_out = newest(data, np.zeros(len(data))) ^ (random.random(len(data)) < misplaced * 0.2)
    held_out[np.argmin(times(data))] = True
    train, test = divide(data, held_out)
    assert times(test).min() < times(train).max()
    choice = SplitConfig().choose(train, test)
    assert (choice.kind, choice.warning) == ("time", "")
    rest, validation, _ = SplitConfig().parts(train, test)
    assert times(rest).max() <= times(validation).min()


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(["user_id", "campaign"]))
def test_the_newest_of_each_group_have_the_newest_of_each_group(seed: int, column: str) -> None:
    data = impressions(np.random.default_rng(seed))
    groups = (data.user if column == "user_id" else data.item)[column]
    train, test = divide(data, newest(data, groups))
    choice = SplitConfig().choose(train, test)
    assert (choice.kind, choice.field) == ("group", column)
    rest, validation, _ = SplitConfig().parts(train, test)
    assert len(validation) == round(0.1 * len(train))
    name = "user" if column == "user_id" else "item"
    for group in groups.unique():
        old, new = (times(part)[(getattr(part, name)[column] == group).to_numpy()] for part in (rest, validation))
        assert not len(new) or old.max() <= new.min()
        assert abs(len(new) - 0.1 * (len(old) + len(new))) <= 1.5


@settings(max_examples=20)
@given(SEEDS)
def test_random_test_rows_have_random_ones(seed: int) -> None:
    random = np.random.default_rng(seed)
    train, test = divide(impressions(random), random.random(2_000) < 0.2)
    choice = SplitConfig().choose(train, test)
    assert (choice.kind, choice.warning) == ("random", "")


@settings(max_examples=20)
@given(SEEDS)
def test_older_test_rows_are_refused_unless_a_split_at_random_is_asked_for(seed: int) -> None:
    data = impressions(np.random.default_rng(seed))
    test, train = divide(data, newest(data, np.zeros(len(data)), 0.8))
    for kind in ("auto", "time"):
        with pytest.raises(DataError, match="the test rows are older than the training rows"):
            SplitConfig(kind=kind).choose(train, test)  # type: ignore[arg-type]
    choice = SplitConfig(kind="random").choose(train, test)
    assert choice.kind == "random"
    assert choice.warning.startswith("the test rows are older than the training rows")


def test_rows_without_a_time_of_their_own_are_split_at_random() -> None:
    data = impressions(np.random.default_rng(0))
    timeless = replace(data, timestamps_N=None)
    assert SplitConfig().choose(timeless, None).kind == "random"
    assert SplitConfig().choose(timeless, timeless).kind == "random"
    assert SplitConfig().choose(replace(data, timestamps_N=np.full(len(data), 7)), None).kind == "random"
    assert str(SplitConfig().choose(data, None)) == "the newest rows: the rows have a time"


GROUPED_TIMES = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5)), min_size=1, max_size=12)


@given(GROUPED_TIMES, GROUPED_TIMES)
def test_the_share_of_newer_pairs_is_that_of_counting_them(
    train: list[tuple[int, int]], test: list[tuple[int, int]]
) -> None:
    shares = []
    for group, time in test:
        pairs = [(time > other) + (time == other) / 2 for of, other in train if of == group]
        if group >= 0 and pairs:
            shares.append(sum(pairs) / len(pairs))
    groups, moments = (tuple(np.array(column) for column in zip(*rows, strict=True)) for rows in (train, test))
    share, covered = share_of_newer_pairs(groups[0], moments[0], groups[1], moments[1])
    assert covered == pytest.approx(len(shares) / len(test))
    assert share == pytest.approx(sum(shares) / len(shares) if shares else 0.5)


@given(GROUPED_TIMES, st.floats(0, 1), SEEDS)
def test_the_newest_of_each_group_are_so_many_and_new(rows: list[tuple[int, int]], share: float, seed: int) -> None:
    groups, moments = (np.array(column) for column in zip(*rows, strict=True))
    wanted = round(share * len(rows))
    held_out = newest_of_each(groups, moments, wanted, seed)
    assert len(set(held_out.tolist())) == wanted
    kept = np.setdiff1d(np.arange(len(rows)), held_out)
    for group in set(groups[held_out].tolist()):
        old, new = (moments[index][groups[index] == group] for index in (kept, held_out))
        assert not len(old) or old.max() <= new.min()
