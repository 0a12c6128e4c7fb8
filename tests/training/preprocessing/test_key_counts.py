"""Key counts equal those of a plain counter, in memory and in files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.training.distributed import ProcessGroup
from app.training.preprocessing.key_counts import KeyCounts
from tests.training.together import together


@pytest.mark.parametrize("max_held", [10, 300, 1 << 20])
@pytest.mark.parametrize("least", [1, 2, 5])
def test_the_keys_that_occur_often_enough_whatever_fits_in_memory(tmp_path: Path, max_held: int, least: int) -> None:
    rng = np.random.default_rng(2)
    counts, expected = KeyCounts(tmp_path, max_held), Counter[int]()
    names = rng.integers(-(2**63), 2**63 - 1, 900)
    for _ in range(40):
        keys = names[np.floor(900 ** rng.random(200)).astype(int) - 1]
        counts.add(keys)
        expected.update(keys.tolist())
    assert counts.at_least(least).tolist() == sorted(key for key, count in expected.items() if count >= least)
    assert not list(tmp_path.iterdir()), "what is put aside has no name"


def test_nothing_counted_is_nothing() -> None:
    assert KeyCounts().at_least(1).tolist() == []


@settings(deadline=None)
@given(
    keys=st.lists(st.lists(st.integers(-5, 5)), min_size=1, max_size=4),
    least=st.integers(1, 3),
    held=st.integers(2, 40),
)
def test_counts_of_processes_are_those_of_all_keys(keys: list[list[int]], least: int, held: int) -> None:
    spread = [np.array(own, np.int64) * 2**60 for own in keys]

    def counted(group: ProcessGroup) -> list[int]:
        counts = KeyCounts(max_held=held)
        counts.add(spread[group.rank])
        return counts.at_least(least, group.all_gather).tolist()

    whole = Counter(np.concatenate(spread).tolist())
    expected = sorted(key for key, count in whole.items() if count >= least)
    assert together(len(keys), counted) == [expected] * len(keys)
