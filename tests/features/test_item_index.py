from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.features.item_index import ABSENT, ItemIndex
from app.features.request_ids import RequestIds

names = st.text(max_size=3)


@given(st.lists(st.tuples(st.booleans(), names), max_size=200), st.lists(names, min_size=1))
def test_it_finds_what_a_dictionary_finds(steps: list[tuple[bool, str]], queried: list[str]) -> None:
    index, expected = ItemIndex(), dict[str, int]()
    for row, (add, name) in enumerate(steps):
        if add and name not in expected:
            index.insert(name, row)
            expected[name] = row
        elif not add and name in expected:
            index.remove(name)
            del expected[name]
    queried += list(expected)
    assert index.find(queried).tolist() == [expected.get(name, ABSENT) for name in queried]
    assert len(index) == len(expected)
    assert all((name in index) == (name in expected) for name in queried)


def colliding_hash(item_id: str) -> int:
    """Return a hash that several ids share, in a slot that all ids share, as in a catalogue hardly ever happens."""
    return 7 + 2**40 * (int(item_id) % 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=60))
def test_ids_that_hash_alike_are_told_apart(steps: list[tuple[bool, int]]) -> None:
    index, expected = ItemIndex(hash_of=colliding_hash), dict[str, int]()
    for row, (add, number) in enumerate(steps):
        name = str(number)
        if add and name not in expected:
            index.insert(name, row)
            expected[name] = row
        elif not add and name in expected:
            index.remove(name)
            del expected[name]
        ids = RequestIds.from_strings(list(expected))
        ids.hash_N[:] = [colliding_hash(name) for name in expected]
        # An unknown id may be taken for one that shares its hash; a known one never.
        assert index.find(ids).tolist() == list(expected.values())


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
