"""Spaces are shared by the same things, and not by the same small numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.training.data.schema_tables import ITEMS, RANDOM, ROWS, propose, spaces


def test_spaces_are_shared_by_the_same_things_and_not_by_the_same_numbers(tmp_path: Path) -> None:
    small = {
        name: RANDOM.integers(0, 7, ROWS) for name in ("weekday", "hour", "cat1", "cat2", "f_1", "f_2", "user_type")
    }
    yes_no = {name: RANDOM.choice(["yes", "no"], ROWS) for name in ("has_app_push", "has_mail_push")}
    assert spaces(propose(tmp_path, {**small, **yes_no, "item_id": ITEMS, "item_type": ITEMS % 7})) == {}
    same = {"item_id": ITEMS, "last_item": np.roll(ITEMS, 1), "item_category": ITEMS % 30}
    assert spaces(propose(tmp_path, same)) == {"item_id": "item_id", "last_item": "item_id"}
    cities = [f"city {n}" for n in ITEMS % 30]
    assert set(spaces(propose(tmp_path, {"origin": cities, "destination": cities[::-1]}))) == {"origin", "destination"}


def test_numbers_share_no_space_because_they_overlap_and_text_shares_one_across_the_sides(tmp_path: Path) -> None:
    users, codes = ITEMS % 61, RANDOM.integers(0, 5000, 61)
    overlapping = {
        "userid": users,
        "itemid": ITEMS,
        "age_level": users % 7,
        "shopping_level": users % 5,
        "segment": codes[users],
        "vendor": codes[ITEMS % 61],
        **{f"affinity_{n}": RANDOM.integers(0, 9, ROWS) for n in range(5)},
    }
    assert spaces(propose(tmp_path, overlapping)) == {}
    brands = np.array([f"brand {n}" for n in range(40)])
    texts = {"userid": users, "itemid": ITEMS, "likes": brands[users % 40], "dislikes": brands[users // 2]}
    assert spaces(propose(tmp_path, texts)) == {}, "both are the user's"
    shared = spaces(propose(tmp_path, {**texts, "brand": brands[ITEMS % 40]}))
    assert shared == dict.fromkeys(("likes", "dislikes", "brand"), "brand")
