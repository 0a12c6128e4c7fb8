from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.features.item_cache import ItemCache
from app.features.item_index import ABSENT
from app.features.item_tables import ItemModel
from app.features.row_flags import DOUBTED, FRESH, KNOWN, VALID
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.store.model_store import ModelStore
from tests.factories import MODEL_NAME, publish_tiny, raw_item, raw_items


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    store = ModelStore(Path(tmp_path_factory.mktemp("store")), MODEL_NAME)
    return [load(store.path(publish_tiny(store, seed))) for seed in range(2)]


def state(artifact: Artifact, item_id: str, number: int) -> torch.Tensor:
    slots = artifact.item_encoder.encode_many([raw_item(number)], [item_id])
    return artifact.encode_items(slots)[0]


def cached(cache: ItemCache, artifact: Artifact, item_id: str) -> torch.Tensor:
    return cache.states(artifact)[int(cache.find([item_id]).rows[0])]


def fill(cache: ItemCache, numbers: range) -> None:
    cache.on_items([str(n) for n in numbers], [raw_item(n) for n in numbers])


def of_another_schema(artifact: Artifact) -> ItemModel:
    """Return a version as if its schema had another hash."""
    return SimpleNamespace(
        item_encoder=artifact.item_encoder, schema_hash="another", encode_items=artifact.encode_items
    )


async def test_rows_hold_the_states_of_every_attached_version(artifacts: list[Artifact]) -> None:
    cache = ItemCache(64)
    await cache.attach(artifacts[0])
    fill(cache, range(10))
    assert await cache.attach(artifacts[1]) == [], "computed from the slots, without reading the store again"
    fill(cache, range(10, 20))
    for artifact in artifacts:
        for number in (0, 9, 10, 19):
            assert torch.allclose(cached(cache, artifact, str(number)), state(artifact, str(number), number), atol=1e-5)
    cache.detach(artifacts[0])
    with pytest.raises(KeyError):
        cache.states(artifacts[0])
    assert torch.allclose(cached(cache, artifacts[1], "3"), state(artifacts[1], "3", 3), atol=1e-5)


async def test_items_fetched_while_a_version_is_being_attached_are_in_it(artifacts: list[Artifact]) -> None:
    cache = ItemCache(4096)
    await cache.attach(artifacts[0])
    fill(cache, range(1500))
    attaching = asyncio.create_task(cache.attach(artifacts[1]))
    await asyncio.sleep(0)
    cache.on_items(["1400", "new"], [raw_item(7), raw_item(8)])
    assert not attaching.done(), "it works in slices"
    await attaching
    assert torch.allclose(cached(cache, artifacts[1], "1400"), state(artifacts[1], "1400", 7), atol=1e-5)
    assert torch.allclose(cached(cache, artifacts[1], "new"), state(artifacts[1], "new", 8), atol=1e-5)
    assert torch.allclose(cached(cache, artifacts[1], "700"), state(artifacts[1], "700", 700), atol=1e-5)


async def test_flags_follow_what_the_store_says(artifacts: list[Artifact]) -> None:
    cache = ItemCache(64)
    await cache.attach(artifacts[0])
    assert cache.find(["1"]).rows.tolist() == [ABSENT]
    assert not cache.find(["1"]).flags_all & FRESH
    assert not cache.find(["1", "2"]).distinct
    cache.on_items(["1", "2"], [raw_item(1), {}])
    assert cache.flags(cache.find(["1", "2"]).rows).tolist() == [FRESH | KNOWN | VALID, FRESH | VALID]
    assert cache.find(["1", "2"]).flags_all == FRESH | VALID
    assert cache.find(["1", "2"]).distinct
    assert not cache.find(["1", "2", "1"]).distinct
    cache.on_invalidate(["2", "never seen"])
    assert cache.flags(cache.find(["1", "2"]).rows).tolist() == [FRESH | KNOWN | VALID, VALID]
    assert cache.stale() == ["2"]
    cache.on_disconnect()
    assert cache.flags(cache.find(["1", "2"]).rows).tolist() == [KNOWN | VALID | DOUBTED, VALID], "one was reported"
    assert sorted(cache.stale()) == ["1", "2"]
    fill(cache, range(1, 3))
    assert cache.stale() == []
    cache.on_invalidate(None)
    assert len(cache.stale()) == 2
    cache.on_items(["1"], [raw_item(1) | {"year": "MCMXC"}])
    assert cache.flags(cache.find(["1"]).rows).tolist() == [FRESH | KNOWN]
    assert cache.counts.invalid_values == {"year": 1}
    odd = [str(n) for n in range(3, 33)]
    cache.on_items(odd, [raw_item(n) | ({"year": "MCMXC"} if n % 3 else {}) for n in range(3, 33)])
    assert cache.counts.invalid_values == {"year": 1 + 20}, "each of them, though they are the same"
    valid = [n for n, flags in zip(odd, cache.flags(cache.find(odd).rows).tolist(), strict=True) if flags & VALID]
    assert valid == odd[::3]


async def test_the_least_recently_used_go_first(artifacts: list[Artifact]) -> None:
    cache = ItemCache(32)
    await cache.attach(artifacts[0])
    fill(cache, range(32))
    cache.find([str(n) for n in range(0, 32, 2)])
    fill(cache, range(100, 104))
    assert len(cache) <= 32
    assert all(str(n) in cache for n in range(0, 32, 2)), "those used since stay"
    assert all(str(n) in cache for n in range(100, 104))
    assert cache.counts.evictions >= 4


async def test_pinned_rows_are_not_evicted_and_what_finds_no_room_is_not_cached(artifacts: list[Artifact]) -> None:
    cache = ItemCache(8)
    await cache.attach(artifacts[0])
    fill(cache, range(8))
    pins = [cache.find([str(n) for n in numbers]).rows for numbers in (range(5), range(3, 7), range(90, 93))]
    for rows_N in pins:
        cache.pin(rows_N)
    fill(cache, range(8, 12))
    assert [n for n in range(12) if str(n) in cache] == [0, 1, 2, 3, 4, 5, 6, 8], "7 was the only one to make room"
    assert cache.counts.evictions == 1
    cache.on_items(["8", "11", "2"], [raw_item(8), raw_item(11), raw_item(50)])
    assert "11" not in cache
    assert torch.allclose(cached(cache, artifacts[0], "2"), state(artifacts[0], "2", 50), atol=1e-5)
    for rows_N in pins:
        cache.unpin(rows_N)
    fill(cache, range(20, 28))
    assert [n for n in range(30) if str(n) in cache] == list(range(20, 28))
    fill(cache, range(100, 120))
    assert len(cache) == 8, "more than it holds at once"


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["fetch", "fetch again", "find", "change"]),
            st.lists(st.integers(0, 40), min_size=1, max_size=8),
        ),
        max_size=40,
    )
)
def test_a_fresh_row_holds_what_was_last_read_of_its_item(
    artifacts: list[Artifact], steps: list[tuple[str, list[int]]]
) -> None:
    """Model-based: a dictionary of what was fetched last, beside a cache that is much too small."""
    artifact = artifacts[0]
    cache = ItemCache(12)
    asyncio.run(cache.attach(artifact))
    latest: dict[str, int] = {}
    stored: dict[str, int] = {}
    for turn, (action, numbers) in enumerate(steps):
        ids = [str(n) for n in dict.fromkeys(numbers)]
        if action == "fetch":
            stored |= {i: turn * 100 + int(i) for i in ids}
        if "fetch" in action:
            fetched = {i: stored.get(i, int(i)) for i in ids}
            cache.on_items(ids, [raw_item(number) for number in fetched.values()])
            latest |= fetched
        elif action == "change":
            cache.on_invalidate(ids)
            latest = {i: n for i, n in latest.items() if i not in ids}
        lookup = cache.find(ids)
        assert len(cache) <= 12
        for item_id, row, flags in zip(ids, lookup.rows, cache.flags(lookup.rows), strict=True):
            if "fetch" in action:
                assert flags & FRESH
            if flags & FRESH:
                assert torch.allclose(
                    cache.states(artifact)[int(row)], state(artifact, item_id, latest[item_id]), atol=1e-5
                )
                assert np.array_equal(
                    cache.slots(artifact, np.array([row])).keys[0],
                    artifact.item_encoder.encode(raw_item(latest[item_id]), item_id).keys,
                )


async def test_an_item_read_again_is_written_only_if_it_has_changed(
    artifacts: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ItemCache(64)
    await cache.attach(artifacts[0])
    fill(cache, range(10))
    written: list[list[str]] = []
    write = cache._tables.write

    def recorded(rows: Any, item_ids: Any, items: Any, on_invalid: Any) -> Any:
        written.append(list(item_ids))
        return write(rows, item_ids, items, on_invalid)

    monkeypatch.setattr(cache._tables, "write", recorded)
    fill(cache, range(10))
    assert written == []
    cache.on_items(["3", "4", "5"], [raw_item(3), raw_item(7), {}])
    assert written == [["4", "5"]]
    assert torch.allclose(cached(cache, artifacts[0], "4"), state(artifacts[0], "4", 7), atol=1e-5)
    assert cache.find(["5"]).flags_all == FRESH | VALID
    cache.on_items(["lists"], [{"genres": ["a"]}])
    cache.on_items(["lists"], [{"genres": ["a"]}])
    assert written[1:] == [["lists"]]
    for lose in (lambda: cache.on_invalidate(["3"]), cache.on_disconnect):
        lose()
        assert not cache.find(["3"]).flags_all & FRESH
        cache.on_items(["3"], [raw_item(3)])
        assert cache.find(["3"]).flags_all == FRESH | KNOWN | VALID
    assert written[2:] == [], "it is as it was"
    other = of_another_schema(artifacts[1])
    assert "3" in await cache.attach(other)
    cache.on_items(["3"], [raw_item(3)])
    assert written[2:] == [["3"]], "it was not read under the new schema"
    row = int(cache.find(["3"]).rows[0])
    assert torch.allclose(cache.states(other)[row], state(artifacts[1], "3", 3), atol=1e-5)


@pytest.mark.parametrize("features", [raw_item(1), {}], ids=["known", "unknown"])
async def test_a_row_given_to_an_item_with_equal_features_holds_that_item(
    artifacts: list[Artifact], features: dict[str, object]
) -> None:
    cache = ItemCache(8, unknown_capacity=8)
    await cache.attach(artifacts[0])
    for start in (0, 8):
        ids = [str(n) for n in range(start, start + 8)]
        cache.on_items(ids, [features] * 8)
    lookup = cache.find(ids)
    assert lookup.flags_all & FRESH
    expected = artifacts[0].item_encoder.encode_many([features] * 8, ids)
    assert np.array_equal(cache.slots(artifacts[0], lookup.rows).keys, expected.keys)


@pytest.mark.parametrize("values", [(-1, -2), (1, True), (1, 1.0)])
async def test_values_that_python_takes_for_equal_are_told_apart(
    artifacts: list[Artifact], values: tuple[object, object]
) -> None:
    cache = ItemCache(8)
    await cache.attach(artifacts[0])
    for value in values:
        cache.on_items(["1"], [raw_item(1) | {"year": value}])
        cache.on_invalidate(["1"])
    expected = artifacts[0].item_encoder.encode(raw_item(1) | {"year": values[1]}, "1")
    assert np.array_equal(cache.slots(artifacts[0], cache.find(["1"]).rows).values[0], expected.values)


async def test_a_fresh_item_read_under_a_new_schema_has_not_changed(artifacts: list[Artifact]) -> None:
    cache = ItemCache(8)
    await cache.attach(artifacts[0])
    fill(cache, range(4))
    cache._tables.attach(of_another_schema(artifacts[1]))  # as while the cached items are still being encoded for it
    fill(cache, range(4))
    assert not cache._ages._unreported


async def test_a_write_that_failed_is_done_again(artifacts: list[Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ItemCache(8)
    await cache.attach(artifacts[0])
    fill(cache, range(4))
    table = cache._tables.by_model[id(artifacts[0])]
    with monkeypatch.context() as patched:
        patched.setattr(table, "encode", lambda rows: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cache.on_items(["1"], [raw_item(7)])
    assert not cache.find(["1"]).flags_all & FRESH
    cache.on_items(["1"], [raw_item(7)])
    assert torch.allclose(cached(cache, artifacts[0], "1"), state(artifacts[0], "1", 7), atol=1e-5)


def test_a_change_without_a_report_shows_once_the_report_had_time_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    cache = ItemCache(64)
    fill(cache, range(10))
    cache.on_items(["1", "2"], [raw_item(5), raw_item(2)])
    assert not cache.missed_reports()
    cache.on_invalidate(["1"])
    clock += 1.0
    assert not cache.missed_reports(), "the report came a moment after the reply"
    cache.on_items(["1"], [raw_item(6)])
    cache.on_items(["2"], [raw_item(6)])
    clock += 1.0
    assert cache.missed_reports(), "2 was fresh, and 1 was not"
    cache.on_disconnect()
    assert not cache.missed_reports()
    assert len(cache.stale()) == 10


def test_items_grow_old_and_are_gone_through_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    cache = ItemCache(64)
    fill(cache, range(4))
    clock += 10.0
    fill(cache, range(4, 8))
    cache.expire(10.5)
    assert cache.stale() == []
    cache.expire(9.5)
    assert sorted(cache.stale()) == ["0", "1", "2", "3"]
    assert cache.next_fresh(4) + cache.next_fresh(4) == ["4", "5", "6", "7"]
    fill(cache, range(4))
    assert sorted(cache.next_fresh(100)) == [str(n) for n in range(8)]


def test_reading_an_item_again_is_no_use_of_it() -> None:
    cache = ItemCache(16)
    fill(cache, range(16))
    cache.find([str(n) for n in range(1, 16)])
    fill(cache, range(1))
    fill(cache, range(16, 17))
    assert "0" not in cache


async def test_a_version_that_comes_back_has_no_states_until_all_are_computed(artifacts: list[Artifact]) -> None:
    cache, version = ItemCache(300), artifacts[0]
    for one in artifacts:  # another keeps the slots
        await cache.attach(one)
    items = raw_items(300)
    cache.on_items(list(items), list(items.values()))
    before = cache.states(version)[:300].clone()
    cache.detach(version)
    coming = asyncio.create_task(cache.attach(version))
    seen = 0
    while not coming.done():
        with pytest.raises(KeyError):
            cache.states(version)
        seen += 1
        await asyncio.sleep(0)
    assert seen > 1
    torch.testing.assert_close(cache.states(version)[:300], before)
