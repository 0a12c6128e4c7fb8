"""Key counts equal those of a plain counter, in memory and in files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigError
from app.training.distributed import ProcessGroup
from app.training.preprocessing.key_counts import KeyCounts
from app.training.scratch_array import scratch_array
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


def test_room_is_heap_where_small_and_a_nameless_file_where_not(tmp_path: Path) -> None:
    small, large = (scratch_array((100, 3), np.int64, tmp_path, heap_bytes=heap) for heap in (10_000, 100))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 7
    assert int(large.sum()) == 2100
    assert not list(tmp_path.iterdir())
    assert not isinstance(scratch_array((100,), np.int64, None, heap_bytes=1), np.memmap)


def test_no_room_says_how_much_is_wanted_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no room for 1048576\.0 GiB: .*--cache"):
        scratch_array((2**47,), np.int64, tmp_path)


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
        return counts.at_least(least, group).tolist()

    whole = Counter(np.concatenate(spread).tolist())
    expected = sorted(key for key, count in whole.items() if count >= least)
    assert together(len(keys), counted) == [expected] * len(keys)
