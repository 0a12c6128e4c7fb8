"""A store and a file that match a version give no findings; each thing that does not is found and named."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from app.errors import DataError, StoreError
from app.features.fields import Side
from app.features.schema import parse_schema
from app.inspection.field_values import kind_of
from app.inspection.finding import Finding
from app.inspection.inspection import Inspection, inspect
from app.registry.artifact.artifact import Artifact
from app.registry.store.model_store import ModelStore
from tests.factories import (
    ITEMS,
    SCHEMA_YAML,
    USERS,
    publish_tiny,
    raw_context,
    raw_item,
    raw_items,
    raw_user,
    raw_users,
    redis_text,
    small_schema,
)

TEMPLATES: dict[Side, str] = {"user": "ctr:v1:user:{id}", "item": "ctr:v1:item:{id}"}
Look = Callable[..., Inspection]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The version whose vocabulary has users 0 to 39 and items 0 to 59."""
    store = ModelStore(tmp_path_factory.mktemp("store"), "deepfm")
    return store.load(publish_tiny(store))


@pytest.fixture
def store(redis_client: redis.Redis) -> redis.Redis:
    """A store with the users and items that the version was trained on."""
    for side, entities in (("user", raw_users()), ("item", raw_items())):
        for entity, raw in entities.items():
            redis_client.hset(f"ctr:v1:{side}:{entity}", mapping=redis_text(raw))
    return redis_client


@pytest.fixture
def look(live: Artifact, store: redis.Redis) -> Look:
    """Inspects the store and, where it is named, a file."""

    def run(data: Path | None = None, schema: str = SCHEMA_YAML, **options: Any) -> Inspection:
        return inspect(
            parse_schema(schema), live, lambda: contextlib.nullcontext(store), TEMPLATES, data=data, **options
        )

    return run


def problems(found: Inspection) -> list[tuple[str, str, str]]:
    return [(one.check, one.where, one.field) for one in found.findings if not one.is_note]


def one_of(found: Inspection, check: str, field: str = "") -> Finding:
    (finding,) = (one for one in found.findings if (one.check, one.field) == (check, field))
    assert finding.advice
    return finding


def impressions(folder: Path, count: int = 60, **changes: Callable[[dict[str, Any]], Any]) -> Path:
    """Write impressions as CSV, with columns changed by functions of the row, left out if these give None."""
    file = folder / "clicks.csv"
    rows = []
    for number in range(count):
        user, item = number % USERS, number % ITEMS
        row = (
            {"user_id": user, "item_id": item, "clicked": number % 2}
            | raw_user(user)
            | raw_context(number)
            | raw_item(item)
        )
        row |= {name: json.dumps(value) for name, value in row.items() if isinstance(value, list | dict)}
        row = row | {name: change(row) for name, change in changes.items()}
        rows.append({name: value for name, value in row.items() if value is not None or name not in changes})
    with file.open("w", newline="") as target:
        writer = csv.DictWriter(target, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_what_a_version_was_trained_on_matches_it(look: Look, tmp_path: Path) -> None:
    found = look()
    assert problems(found) == []
    assert found.sampled == {"users": USERS, "items": ITEMS}
    found = look(impressions(tmp_path))
    assert problems(found) == []
    assert found.sampled == {"rows": 60, "users": USERS, "items": ITEMS}
    assert look(sample := impressions(tmp_path), count=7).sampled == {"rows": 7, "users": 7, "items": 7}, sample


def test_a_field_that_no_hash_has_is_named_with_the_one_that_is_meant(look: Look, store: redis.Redis) -> None:
    for key in store.scan_iter("ctr:v1:user:*"):
        gender = store.hget(key, "gender")
        store.hdel(key, "gender")
        store.hset(key, "gendre", str(gender))
    found = look()
    assert problems(found) == [("lacking", "users", "gender")]
    finding = one_of(found, "lacking", "gender")
    assert "gendre, which nothing reads, is named alike" in finding.message
    assert finding.share == 1.0
    assert one_of(found, "unread", "gendre").is_note


def test_a_field_that_requests_have_less_often_than_training_is_named(
    look: Look, store: redis.Redis, tmp_path: Path
) -> None:
    for number in range(0, USERS, 2):
        store.hdel(f"ctr:v1:user:{number}", "gender")
    assert problems(look()) == []
    finding = one_of(look(impressions(tmp_path)), "lacking", "gender")
    assert "50% of the hashes lack it, and 0% of the file's rows" in finding.message


def test_values_that_fit_no_slot_are_counted(look: Look, store: redis.Redis) -> None:
    for number in range(3):
        store.hset(f"ctr:v1:item:{number}", "popularity", "many")
    store.hset("ctr:v1:item:4", "rating", "1" * 70_000)
    found = look()
    assert problems(found) == [("invalid", "items", "popularity"), ("invalid", "items", "rating")]
    finding = one_of(found, "invalid", "popularity")
    assert f"3 of {ITEMS} values fit no slot, such as 'many'" in finding.message
    assert finding.share == pytest.approx(3 / ITEMS)
    assert len(one_of(found, "invalid", "rating").message) < 200


def test_categories_that_the_version_does_not_know_are_counted(look: Look, store: redis.Redis) -> None:
    for number in range(USERS):
        store.hset(f"ctr:v1:user:{number}", "gender", "female" if number % 4 else "F")
    finding = one_of(look(), "unknown", "gender")
    assert finding.share == pytest.approx(0.75)
    assert "does not know 75% of 40 values, such as 'female'" in finding.message
    assert problems(look(max_unknown=0.8)) == []


def test_ids_that_are_written_otherwise_are_noticed(look: Look, store: redis.Redis, tmp_path: Path) -> None:
    for number in range(USERS):
        store.rename(f"ctr:v1:user:{number}", f"ctr:v1:user:u{number}")
    assert problems(look()) == [("unknown", "users", "user_id")]
    found = look(impressions(tmp_path))
    assert problems(found) == [("ids", "users", ""), ("unknown", "users", "user_id")]
    assert (
        "40 of 40 users of clicks.csv are not in the store; stored are ids such as 'u" in one_of(found, "ids").message
    )


def test_a_template_that_finds_no_hash_is_said_with_what_is_there(look: Look, store: redis.Redis) -> None:
    for number in range(ITEMS):
        store.rename(f"ctr:v1:item:{number}", f"product:{number}")
    finding = one_of(look(), "keys")
    assert finding.where == "items"
    assert "no hash has a key like ctr:v1:item:{id}; there are product:N (60)" in finding.message
    assert "CTR_ITEM_KEY" in finding.advice
    store.flushall()
    assert [one.where for one in look().findings if "the store is empty" in one.message] == ["users", "items"]


def test_keys_of_another_type_are_counted(look: Look, store: redis.Redis) -> None:
    store.set("ctr:v1:user:packed", "{}")
    assert "1 of the keys hold no hash, such as ctr:v1:user:packed" in one_of(look(), "keys").message


def test_types_that_differ_between_file_and_store_are_named(look: Look, store: redis.Redis, tmp_path: Path) -> None:
    codes = {"F": "1", "M": "0"}
    for number in range(USERS):
        store.hset(f"ctr:v1:user:{number}", "gender", codes[raw_user(number)["gender"]])
    found = look(impressions(tmp_path), max_unknown=1.0)
    finding = one_of(found, "types", "gender")
    assert "clicks.csv has texts such as 'F', 'M', the users in the store have numbers such as '1', '0'" in (
        finding.message.replace("'M', 'F'", "'F', 'M'").replace("'0', '1'", "'1', '0'")
    )


def test_the_same_values_in_two_spellings_are_no_difference(look: Look, store: redis.Redis, tmp_path: Path) -> None:
    """A list as JSON in the store and divided by its separator in the file encodes alike."""
    file = impressions(tmp_path, genres=lambda row: "|".join(json.loads(row["genres"])))
    assert problems(look(file)) == []


def test_a_schema_that_differs_is_named_field_by_field(look: Look) -> None:
    changed = SCHEMA_YAML.replace("buckets: 4", "buckets: 8").replace("name: year", "name: decade, source: year")
    found = look(schema=changed)
    by_field = {one.field: one.message for one in found.findings if one.check == "schema"}
    assert set(by_field) == {"age", "decade", "year"}
    assert "buckets is 8, was 4" in by_field["age"]
    assert "has no such field" in by_field["decade"]
    reordered = SCHEMA_YAML.splitlines()
    reordered[3], reordered[2] = reordered[2], reordered[3]
    assert "the order of fields" in one_of(look(schema="\n".join(reordered)), "schema").message


def test_columns_that_a_file_lacks_are_named(look: Look, tmp_path: Path) -> None:
    def gone(row: dict[str, Any]) -> None:
        return None

    file = impressions(tmp_path, hour=gone, hours=lambda row: 1, popularity=gone)
    found = look(file)
    assert problems(found) == [("lacking", "clicks.csv", "hour"), ("lacking", "clicks.csv", "popularity")]
    assert "hours, which no field reads, is named alike" in one_of(found, "lacking", "hour").message


def test_a_file_of_one_side_needs_that_side_alone(look: Look, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode({"id": n, **raw_item(n)}) for n in range(ITEMS)))
    assert problems(look(file)) == []
    file.write_text('{"sku": 1, "colour": "red"}\n')
    assert "no field reads any of its columns: sku, colour" in one_of(look(file), "file").message


def test_values_of_a_file_are_judged_as_those_of_the_store(look: Look, tmp_path: Path) -> None:
    found = look(impressions(tmp_path, rating=lambda row: "good"))
    assert problems(found) == [("invalid", "clicks.csv", "rating")]
    assert "60 of 60 values fit no slot, such as 'good'" in one_of(found, "invalid", "rating").message


def test_rows_that_cannot_be_read_are_said(look: Look, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_bytes(b"{broken\n" + b"\n".join(msgspec.json.encode({"id": n, **raw_item(n)}) for n in range(9)))
    assert "1 of the first 10 rows cannot be read: line 1" in one_of(look(file), "file").message
    with pytest.raises(DataError):
        look(tmp_path / "nowhere.csv")


def test_a_store_that_cannot_be_read_is_a_finding_and_the_file_is_looked_at_all_the_same(
    live: Artifact, tmp_path: Path
) -> None:
    @contextlib.contextmanager
    def closed() -> Iterator[redis.Redis]:
        raise StoreError("Redis does not answer: connection refused")
        yield

    found = inspect(small_schema(), live, closed, TEMPLATES, data=impressions(tmp_path, rating=lambda row: "good"))
    assert problems(found) == [("invalid", "clicks.csv", "rating"), ("store", "store", "")]


def test_without_a_version_nothing_is_unknown(store: redis.Redis) -> None:
    store.hset("ctr:v1:user:1", "gender", "other")
    found = inspect(small_schema(), None, lambda: contextlib.nullcontext(store), TEMPLATES, max_unknown=0.0)
    assert problems(found) == []


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("red", "text"), ("12", "number"), ("-1.5e3", "number"), ("1.2.3", "text"), ("TRUE", "boolean"),
        (True, "boolean"),
        ('["a"]', "list"), ("[a", "text"), ('{"a": 1}', "object"), (["a"], "list"), ({"a": 1}, "object"), (3, "number"),
    ],
)  # fmt: skip
def test_kinds_of_values(value: object, kind: str) -> None:
    assert kind_of(value) == kind


def test_users_without_any_value_are_told_from_those_that_were_not_loaded(
    look: Look, store: redis.Redis, tmp_path: Path
) -> None:
    """A hash without fields does not exist: who has no value in the file cannot be missing from the store."""
    fields = raw_user(0).keys() - {"user_id"}
    empty = {name: lambda row, name=name: row.get(name, "") if row["user_id"] else "" for name in fields}
    file = impressions(tmp_path, **empty)
    store.delete("ctr:v1:user:0")
    found = look(file)
    assert problems(found) == []
    assert "nothing can be stored of 1 of the users of clicks.csv" in one_of(found, "ids").message
    for number in range(1, USERS):
        store.delete(f"ctr:v1:user:{number}")
    found = look(file)
    assert problems(found) == [("keys", "users", "")]


def test_users_are_looked_for_whose_features_are_in_another_file(
    look: Look, store: redis.Redis, tmp_path: Path
) -> None:
    for number in range(USERS):
        store.delete(f"ctr:v1:user:{number}")
        store.hset(f"ctr:v1:user:u{number}", "age", "30")
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id,clicked\n" + "".join(f"{n},{n % ITEMS},{n % 2}\n" for n in range(USERS)))
    findings = look(events)
    lacking = {one.field for one in findings.findings if (one.check, one.where) == ("lacking", "events.csv")}
    assert lacking == raw_context(0).keys(), "those of the request alone"
    found = one_of(findings, "ids")
    assert f"{USERS} of {USERS} users of events.csv are not in the store" in found.message
    assert not found.is_note


def test_columns_that_a_broken_export_left_empty_are_named(look: Look, tmp_path: Path) -> None:
    fields = raw_user(1).keys() - {"user_id"}
    found = look(impressions(tmp_path, **{name: lambda row: "" for name in fields}))
    lacking = {one.field for one in found.findings if one.check == "lacking"}
    assert lacking == fields
    assert all("none of the file's rows has it" in one.message for one in found.findings if one.check == "lacking")


def test_a_file_without_any_id_is_told_of(look: Look, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text("user_id,age\n" + ",30\n" * 20)
    assert one_of(look(file), "ids", "user_id").message == "none of 20 rows has an id"


def test_a_table_with_labels_is_never_advised_to_be_loaded(look: Look, store: redis.Redis, tmp_path: Path) -> None:
    for number in range(1, USERS):
        store.delete(f"ctr:v1:user:{number}")
    for number in range(ITEMS):
        store.hdel(f"ctr:v1:item:{number}", "year", *(["rating"] if number % 2 else []))
    found = look(impressions(tmp_path))
    assert problems(found) == [("ids", "users", ""), ("lacking", "items", "rating"), ("lacking", "items", "year")]
    for one in found.findings:
        assert "which `ctr train --export DIR` writes: clicks.csv has labels" in one.advice, one
    items = tmp_path / "items.jsonl"
    items.write_bytes(b"\n".join(msgspec.json.encode({"id": n, **raw_item(n)}) for n in range(ITEMS)))
    for one in look(items).findings:
        assert "--export" not in one.advice
