from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.features import item_index as id_index
from app.features.item_index import ABSENT, ItemIndex
from app.features.request_ids import RequestIds

names = st.text(max_size=3)


@given(st.lists(st.tuples(st.booleans(), names), max_size=200), st.lists(names, min_size=1))
def test_it_is_a_dictionary(steps: list[tuple[bool, str]], asked: list[str]) -> None:
    index, wanted = ItemIndex(), dict[str, int]()
    for row, (add, name) in enumerate(steps):
        if add and name not in wanted:
            index.insert(name, row)
            wanted[name] = row
        elif not add and name in wanted:
            index.remove(name)
            del wanted[name]
    asked += list(wanted)
    assert index.find(asked).tolist() == [wanted.get(name, ABSENT) for name in asked]
    assert len(index) == len(wanted)
    assert all((name in index) == (name in wanted) for name in asked)


def alike(item_id: str) -> int:
    """A hash that several ids share, with a slot that all others share, as ids of a catalogue hardly ever do."""
    return 7 + 2**40 * (int(item_id) % 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=60))
def test_ids_that_hash_alike_are_told_apart(steps: list[tuple[bool, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_index, "id_hash", alike)
        index, wanted = ItemIndex(), dict[str, int]()
        for row, (add, number) in enumerate(steps):
            name = str(number)
            if add and name not in wanted:
                index.insert(name, row)
                wanted[name] = row
            elif not add and name in wanted:
                index.remove(name)
                del wanted[name]
            ids = RequestIds.from_strings(list(wanted))
            ids.hash_N[:] = [alike(name) for name in wanted]
            # A strange id may be taken for one that shares its hash; a known one never.
            assert index.find(ids).tolist() == list(wanted.values())


def test_it_grows_and_forgets_what_was_removed() -> None:
    index = ItemIndex()
    for turn in range(3):
        names = [f"{turn}-{number}" for number in range(20_000)]
        for row, name in enumerate(names):
            index.insert(name, row)
        assert np.array_equal(index.find(names), np.arange(20_000))
        assert (index.find([f"x{name}" for name in names]) == ABSENT).all()
        for name in names:
            index.remove(name)
        assert (index.find(names) == ABSENT).all()
    assert len(index) == 0
