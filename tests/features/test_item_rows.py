"""Tests of which items have a row: those of the catalogue, a few that the store does not know, and none too many."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from app.features.item_index import ABSENT
from app.features.item_rows import UNKNOWN_EVICTION_INTERVAL_S, ItemRows

CAPACITY, UNKNOWN = 12, 4


def assign(rows: ItemRows, known: dict[str, bool]) -> list[int]:
    return rows.assign(list(known), list(known.values()))[0].tolist()


def invented(start: int, count: int) -> dict[str, bool]:
    return {f"invented{number}": False for number in range(start, start + count)}


class Clock:
    """A clock of which each reading is UNKNOWN_EVICTION_INTERVAL_S later."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += UNKNOWN_EVICTION_INTERVAL_S
        return self.now_s


def test_unknown_items_are_not_evicted_as_fast_as_they_can_be_invented() -> None:
    now = [100.0]
    rows = ItemRows(CAPACITY, UNKNOWN, lambda: now[0])
    first = assign(rows, invented(0, UNKNOWN))
    assert set(assign(rows, invented(10, UNKNOWN))) == set(first), "none were evicted for a while"
    assert assign(rows, invented(20, UNKNOWN)) == [ABSENT] * UNKNOWN
    assert all(item_id in rows.index for item_id in invented(10, UNKNOWN))
    assert ABSENT not in assign(rows, {str(number): True for number in range(CAPACITY)})
    assert ABSENT not in assign(rows, {f"new{number}": True for number in range(CAPACITY)}), "the catalogue goes on"
    now[0] += UNKNOWN_EVICTION_INTERVAL_S
    assert set(assign(rows, invented(20, UNKNOWN))) == set(first)


def test_items_that_the_store_knows_no_more_do_not_wait_to_be_evicted() -> None:
    rows = ItemRows(CAPACITY, UNKNOWN, lambda: 100.0)
    catalogue = {str(number): True for number in range(CAPACITY)}
    assign(rows, catalogue)
    for start in (0, UNKNOWN):  # the second time some are evicted
        assign(rows, invented(start, UNKNOWN))
    assign(rows, dict.fromkeys(catalogue, False))
    assert ABSENT not in assign(rows, {f"new{number}": True for number in range(CAPACITY)})


def test_items_that_the_store_does_not_know_take_no_row_from_those_that_it_knows() -> None:
    rows = ItemRows(CAPACITY, UNKNOWN, Clock())
    catalogue = {str(number): True for number in range(CAPACITY)}
    before = assign(rows, catalogue)
    for start in range(0, 10_000, 100):
        taken = assign(rows, invented(start, 100))
        assert len(set(taken) - {ABSENT}) == UNKNOWN
    assert [rows.index.get(item_id) for item_id in catalogue] == before
    assert len(rows.index) == len(rows.ids) == CAPACITY + UNKNOWN


def test_items_that_the_store_knows_take_no_row_from_those_that_it_does_not_know() -> None:
    rows = ItemRows(CAPACITY, UNKNOWN)
    assign(rows, invented(0, UNKNOWN))
    for start in range(0, 100, CAPACITY):
        assert ABSENT not in assign(rows, {str(number): True for number in range(start, start + CAPACITY)})
    assert all(item_id in rows.index for item_id in invented(0, UNKNOWN))


def test_an_item_that_appears_keeps_its_row_and_leaves_room_for_another_unknown_one() -> None:
    rows = ItemRows(CAPACITY, UNKNOWN, Clock())
    (row, *_) = assign(rows, invented(0, UNKNOWN))
    assert assign(rows, {"invented0": True}) == [row]
    assert rows.known == 1
    assert ABSENT not in assign(rows, {"another": False})
    assert "invented1" in rows.index
    assert assign(rows, {"invented0": False}) == [row], "it disappears again"
    assert rows.known == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_no_kind_has_more_rows_than_its_capacity_and_no_row_two_items(seed: int) -> None:
    dice = random.Random(seed)
    rows = ItemRows(CAPACITY, UNKNOWN, Clock())
    pinned = []
    for _ in range(40):
        names = dice.sample(range(40), dice.randint(1, 20))
        known = {str(name): dice.random() < 0.6 for name in names}
        found = rows.index.find(list(known))
        if dice.random() < 0.5:
            rows.pin(found)
            pinned.append((found, {row: rows.ids[row] for row in found.tolist() if row != ABSENT}))
        taken, evicted = rows.assign(list(known), list(known.values()))
        assert taken.tolist() == [ABSENT if row is None else row for row in map(rows.index.get, known)]
        for array, items in pinned:
            assert not set(evicted) & set(array.tolist())
            assert all(rows.ids[row] == item_id for row, item_id in items.items()), "pinned"
        owned = [row for row in map(rows.index.get, map(str, range(40))) if row is not None]
        assert len(set(owned)) == len(owned) == len(rows.index) <= len(rows.ids) <= CAPACITY + UNKNOWN
        # Items that change their kind may be too many for it; then no item is added to it.
        added = [
            item_id
            for item_id, row in zip(known, found.tolist(), strict=True)
            if row == ABSENT and item_id in rows.index
        ]
        assert rows.known <= CAPACITY or not any(known[item_id] for item_id in added)
        assert len(owned) - rows.known <= UNKNOWN or all(known[item_id] for item_id in added)
        if pinned and dice.random() < 0.5:
            rows.unpin(pinned.pop(dice.randrange(len(pinned)))[0])
