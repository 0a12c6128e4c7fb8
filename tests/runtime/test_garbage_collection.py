from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from app.runtime.garbage_collection import collect_rarely


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_garbage_is_still_found() -> None:
    collect_rarely()
    collections = gc.get_stats()[0]["collections"]
    kept: list[object] = []
    for _ in range(3):
        kept = [[] for _ in range(gc.get_threshold()[0])]
    assert kept
    assert 0 < gc.get_stats()[0]["collections"] - collections < 10
