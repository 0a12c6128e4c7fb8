"""Scratch arrays are on the heap where they are small and in unlinked files where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.errors import ConfigError
from app.training.scratch_array import scratch_array


def test_a_small_array_is_on_the_heap_and_a_large_one_in_a_nameless_file(tmp_path: Path) -> None:
    small, large = (scratch_array((100, 3), np.int64, tmp_path, heap_bytes=heap) for heap in (10_000, 100))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 7
    assert int(large.sum()) == 2100
    assert not list(tmp_path.iterdir())
    assert not isinstance(scratch_array((100,), np.int64, None, heap_bytes=1), np.memmap)


def test_too_little_room_says_how_much_is_needed_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no room for 1048576\.0 GiB: .*--cache"):
        scratch_array((2**47,), np.int64, tmp_path)
