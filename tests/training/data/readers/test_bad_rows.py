"""The bad rows of shards, put together, are those of one reading."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.training.data.readers.bad_rows import BadRows


@given(
    bad=st.lists(st.sampled_from(["", "short", "long"]), min_size=1, max_size=60),
    borders=st.lists(st.integers(0, 60), max_size=4),
)
def test_bad_rows_of_shards_are_those_of_the_whole(bad: list[str], borders: list[int]) -> None:
    def gathered(reasons: list[str]) -> BadRows:
        result = BadRows("x", rows=len(reasons))
        for row, reason in enumerate(reasons):
            result.add(reason, [row + 1] if reason else [])
        return result

    ends = [0, *sorted(min(border, len(bad)) for border in borders), len(bad)]
    shares = [gathered(bad[start:stop]) for start, stop in itertools.pairwise(ends)]
    assert BadRows.of_shards(shares) == gathered(bad)


def test_rows_of_several_files_are_named_by_file_wherever_shards_begin() -> None:
    def gathered(files: list[tuple[str, int]], bad: list[int]) -> BadRows:
        result = BadRows("x")
        for name, rows in files:
            result.begin_file(name)
            result.rows += rows
        result.add("short", bad)
        return result

    whole = gathered([("a", 3), ("b", 0), ("c", 5)], [2, 4, 8])
    assert str(whole.skipped) == "3 bad rows left out (short; rows 2 of a, 1 of c, 5 of c)"
    shards = [gathered([("a", 2)], [2]), gathered([("a", 1), ("b", 0), ("c", 2)], [2]), gathered([("c", 3)], [3])]
    assert BadRows.of_shards(shards) == whole
