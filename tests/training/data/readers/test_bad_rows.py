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
