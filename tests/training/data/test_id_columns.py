"""The ids are found by their names, and else by what they decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.features.schema import parse_schema
from app.training.data.column_names import ITEM_WORDS, USER_WORDS, is_id_name
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


@pytest.mark.parametrize(
    ("name", "words", "is_id"),
    [
        ("userid", USER_WORDS, True),
        ("USERID", USER_WORDS, True),
        ("uid", USER_WORDS, True),
        ("user_key", USER_WORDS, True),
        ("CustomerNumber", USER_WORDS, True),
        ("msno", USER_WORDS, True),
        ("user_age", USER_WORDS, False),
        ("itemid", ITEM_WORDS, True),
        ("adgroup_id", ITEM_WORDS, True),
        ("ad_group_id", ITEM_WORDS, True),
        ("ad_group_type", ITEM_WORDS, False),
        ("goods_id", ITEM_WORDS, True),
        ("product_code", ITEM_WORDS, True),
        ("asin", ITEM_WORDS, True),
        ("item_price", ITEM_WORDS, False),
    ],
)
def test_ids_are_known_by_many_names(name: str, words: set[str], is_id: bool) -> None:
    assert is_id_name(name, words) is is_id


def test_who_pays_for_an_advertisement_is_no_user(tmp_path: Path) -> None:
    users, ads = RANDOM.integers(0, 300, ROWS), RANDOM.integers(0, 100, ROWS)
    columns = {"userid": users, "adgroup_id": ads, "customer": ads % 37, "user_level": users % 5}
    fields = {field.name: field for field in parse_schema(propose(tmp_path, columns).text).fields}
    assert {name: field.entity for name, field in fields.items()} == {
        "userid": "user",
        "adgroup_id": "item",
        "customer": "item",
        "user_level": "user",
    }
