"""The right rows are held out, and none is lost or used twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.errors import ConfigError, DataError
from app.training.data.split import SplitConfig
from tests.training.preprocessing.test_preprocessing_fit import some_data


def test_by_time_the_newest_rows_are_test_and_the_ones_before_them_validation() -> None:
    times = np.random.default_rng(0).permutation(200).astype(np.int64)
    train, validation, test = SplitConfig().parts(replace(some_data(), timestamps_N=times), None)
    assert (len(train), len(validation), len(test)) == (162, 18, 20)
    ages = [part.timestamps_N for part in (train, validation, test)]
    assert ages[0].max() < ages[1].min() <= ages[1].max() < ages[2].min()
    assert sorted(np.concatenate(ages).tolist()) == list(range(200))


def test_validation_resembles_the_test_file() -> None:
    times = np.arange(200, dtype=np.int64)
    data = replace(some_data(), timestamps_N=times)
    later = replace(some_data(), timestamps_N=times + 1000)
    _, validation, test = SplitConfig().parts(data, later)
    assert validation.timestamps_N.min() == 180
    assert len(test) == 200
    _, validation, _ = SplitConfig().parts(data, data)
    assert validation.timestamps_N.min() < 100


def test_at_random_the_seed_decides() -> None:
    parts = [SplitConfig(kind="random", seed=seed).parts(some_data(), None)[2].user["hour"] for seed in (1, 1, 2)]
    assert parts[0].equals(parts[1])
    assert not parts[0].equals(parts[2])


def test_splits_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="--timestamp"):
        SplitConfig(kind="time").parts(some_data(), None)
    data = some_data()
    with pytest.raises(DataError, match="all of one class"):
        SplitConfig().parts(replace(data, labels_N=np.zeros(200, np.float32)), None)
