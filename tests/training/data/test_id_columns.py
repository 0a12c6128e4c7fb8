"""The ids are found by their names, and else by what they decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.schema_tables import ITEMS, RANDOM, ROWS, USERS, entities, ids, propose, types
from tests.training.data.test_number_kind import popular_codes


@pytest.mark.parametrize(
    "name", ["user", "item", "uid", "iid", "author", "publisher", "store_id", "ip", "app", "site", "C14"]
)
def test_ids_are_categories_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    for codes in (USERS, ITEMS):
        assert types(propose(tmp_path, {name: codes, "w": RANDOM.integers(0, 7, ROWS)}))[name] == "categorical"


def test_ids_without_names_are_told_by_what_they_decide(tmp_path: Path) -> None:
    ages, prices = RANDOM.integers(18, 80, 1_000), RANDOM.lognormal(3, 1, 1_000).round(2)
    proposal = propose(
        tmp_path, {"a": ITEMS, "b": USERS, "c": prices[ITEMS], "age": ages[USERS], "price": prices[ITEMS] + 1}
    )
    assert ids(proposal) == {"user": "b", "item": "a"}
    assert entities(proposal) == {"a": "item", "b": "user", "c": "item", "age": "user", "price": "item"}
    assert "its id, by its values: decides" in proposal.text


def test_a_device_of_three_kinds_is_no_id(tmp_path: Path) -> None:
    proposal = propose(tmp_path, {"device": RANDOM.choice(["phone", "tablet", "desktop"], ROWS), "item_id": ITEMS})
    assert ids(proposal) == {"item": "item_id"}
    assert entities(proposal) == {"device": "user", "item_id": "item"}


def test_ids_of_advertising_are_told_by_their_names(tmp_path: Path) -> None:
    addresses = popular_codes(RANDOM, ROWS, 700, 300_000, 0.5)
    columns = {"ip": addresses, "app": ITEMS, "device": popular_codes(RANDOM, ROWS, 30, 4_000), "os": ITEMS % 40}
    assert ids(propose(tmp_path, columns)) == {"user": "ip", "item": "app"}
    columns = {"device_id": addresses, "ad": ITEMS, "site": popular_codes(RANDOM, ROWS, 200, 900)}
    assert ids(propose(tmp_path, columns)) == {"user": "device_id", "item": "ad"}
    columns = {"visitorid": addresses, "movieid": ITEMS}
    assert ids(propose(tmp_path, columns)) == {"user": "visitorid", "item": "movieid"}
