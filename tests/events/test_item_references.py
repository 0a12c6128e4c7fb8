"""An item's slots are written once for each change, and what an impression refers to is what was scored."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.events.event_queue import EventQueue
from app.events.item_references import DAY_S, SEQUENCE_BITS, ItemReferences
from app.events.records import ItemSlots, References
from app.features.item_index import Rows
from app.features.item_tables import ItemModel
from app.features.slots import Slots

MODEL = SimpleNamespace(schema_hash="hash")


class Cache:
    """Twenty rows whose slots are numbers that tests change."""

    def __init__(self) -> None:
        self.references = np.zeros(20, np.int64)
        self.values = np.zeros(20, np.int64)

    def write(self, row: int) -> None:
        self.values[row] += 1
        self.references[row] = 0

    def log_references(self, model: ItemModel) -> References:
        return self.references

    def slots(self, model: ItemModel, rows: Rows) -> Slots:
        keys = np.stack([rows, self.values[rows]], 1)
        return Slots(keys, np.zeros(keys.shape, np.float32))

    def ids(self, rows: Rows) -> list[str]:
        return [str(row) for row in rows.tolist()]


def taken(queue: EventQueue) -> dict[int, ItemSlots]:
    return {record.reference: record for record in queue.take(10**6) if isinstance(record, ItemSlots)}


@given(
    st.lists(
        st.one_of(
            st.lists(st.integers(0, 19), max_size=8),
            st.integers(0, 19),
            st.just("day"),
        ),
        max_size=40,
    )
)
def test_a_reference_names_the_slots_that_the_row_had(steps: list[list[int] | int | str]) -> None:
    now = [1000.0]
    cache, queue = Cache(), EventQueue(10**6)
    references = ItemReferences(cache, queue, lambda: now[0])
    shown: list[tuple[int, int, int]] = []
    writes = 20
    for step in steps:
        if isinstance(step, int):
            cache.write(step)
            writes += 1
        elif step == "day":
            now[0] += DAY_S
            writes += 20
        else:
            rows = np.array(step, np.int64)
            found = references.of_rows(MODEL, rows)  # type: ignore[arg-type]
            assert found is not None
            shown += zip(found.tolist(), step, cache.values[rows].tolist(), strict=True)
    written = taken(queue)
    for reference, row, value in shown:
        assert written[reference].item_id == str(row)
        assert written[reference].keys.tolist() == [row, value]
    assert len(written) <= writes, "once for each change and day"
    assert written.keys() == {reference for reference, _, _ in shown}


def test_slots_that_are_lost_are_written_again() -> None:
    cache, queue = Cache(), EventQueue(10**6)
    references, rows = ItemReferences(cache, queue), np.arange(3)
    references.of_rows(MODEL, rows)  # type: ignore[arg-type]
    taken(queue)
    queue.items_are_lost = True
    for count in (3, 0):
        found = references.of_rows(MODEL, rows)  # type: ignore[arg-type]
        assert found is not None
        written = taken(queue)
        assert list(written) == found.tolist()[:count]


def test_slots_of_one_request_have_references_of_their_own() -> None:
    cache, queue = Cache(), EventQueue(100)
    references = ItemReferences(cache, queue)
    slots = cache.slots(MODEL, np.arange(3))  # type: ignore[arg-type]
    first, second = (references.of_slots(MODEL, ["a", "b", "c"], slots) for _ in range(2))  # type: ignore[arg-type]
    assert first is not None
    assert second is not None
    assert not {*first.tolist()} & {*second.tolist()}
    assert [record.item_id for record in taken(queue).values()] == ["a", "b", "c"] * 2


def test_without_room_there_is_no_reference_and_the_next_impression_tries_again() -> None:
    cache, queue = Cache(), EventQueue(5)
    references = ItemReferences(cache, queue)
    assert references.of_rows(MODEL, np.arange(10)) is None  # type: ignore[arg-type]
    assert len(queue) == 0
    assert references.of_rows(MODEL, np.arange(3)) is not None  # type: ignore[arg-type]
    assert len(taken(queue)) == 3


def test_references_begin_anew_before_a_worker_runs_out_of_them() -> None:
    cache, queue = Cache(), EventQueue(100)
    references = ItemReferences(cache, queue)
    before = references.of_rows(MODEL, np.arange(2))  # type: ignore[arg-type]
    references._next += (1 << SEQUENCE_BITS) - (1 << 16)
    after = references.of_rows(MODEL, np.arange(2))  # type: ignore[arg-type]
    assert before is not None
    assert after is not None
    assert after.min() >> SEQUENCE_BITS > before.max() >> SEQUENCE_BITS
    assert after.max() < 1 << 63
    assert len(taken(queue)) == 4
