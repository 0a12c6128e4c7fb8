"""Of several rows of one entity the newest is stored, whatever form its time has."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.errors import DataError
from app.features.key_template import KeyTemplate
from app.features.loading.feature_loader import FeatureLoader, LoadSummary
from app.features.loading.newest_rows import NewestRows
from app.features.loading.record_file import Record, RecordFile
from app.features.redis_client import open_client
from tests.shared_cases import case

USER = KeyTemplate("ctr:v1:user:{id}")


def load(path: Path, url: str, **options: Any) -> LoadSummary:
    with open_client(url) as client:
        return FeatureLoader(client, USER, **options).load(RecordFile(path))


@pytest.mark.parametrize("newest", [None, "updated_at"])
def test_a_history_in_csv_ends_with_what_is_stored(
    newest: str | None, valkey_url: str, redis_client: redis.Redis
) -> None:
    result = load(case("03/users_history.csv"), valkey_url, id_field="user_id", newest=newest)
    assert (result.loaded, result.older, result.bad) == (10, 20, 0)
    assert redis_client.hgetall("ctr:v1:user:u4") == {"age": "22", "plan": "paid", "updated_at": "1790172800"}


def test_a_history_in_parquet_goes_by_its_microseconds(
    tmp_path: Path, valkey_url: str, redis_client: redis.Redis
) -> None:
    history = pl.read_parquet(case("03/users_history.parquet"))
    history.reverse().with_columns(pl.col("event_timestamp").dt.epoch("us")).write_parquet(tmp_path / "history.parquet")
    result = load(tmp_path / "history.parquet", valkey_url, newest="event_timestamp")
    assert (result.loaded, result.older) == (40, 80)
    newest = history.filter(pl.col("event_timestamp") == history["event_timestamp"].max())
    for user, age, _ in newest.iter_rows():
        assert redis_client.hget(f"ctr:v1:user:{user}", "age") == str(age)


def test_a_newer_row_that_is_bad_leaves_the_one_before(
    tmp_path: Path, valkey_url: str, redis_client: redis.Redis
) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,plan,at\n1,free,2026-11-01\n1,paid,2026-11-02\n1,trial,soon\n")
    result = load(path, valkey_url, newest="at", max_bad=0.5)
    assert (result.loaded, result.older, result.bad) == (1, 1, 1)
    assert "line 4: at: is no time: write it as" in result.problems[0]
    assert redis_client.hget("ctr:v1:user:1", "plan") == "paid"


def test_a_column_of_times_that_is_not_there_is_named(tmp_path: Path, valkey_url: str) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,plan\n1,free\n")
    with pytest.raises(DataError, match="when: there is no such column, only id, plan"):
        load(path, valkey_url, newest="when")


def test_rows_that_are_merged_each_say_something(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> None:
    path = tmp_path / "users.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(row) for row in ({"id": 1, "a": 1, "b": 1}, {"id": 1, "b": 2})))
    load(path, valkey_url, merge=True)
    assert redis_client.hgetall("ctr:v1:user:1") == {"a": "1", "b": "2"}


MOMENTS = st.datetimes(datetime.fromisoformat("2001-01-01"), datetime.fromisoformat("2099-12-31"))
FORMS = {
    "seconds": lambda at: at.timestamp(),
    "milliseconds": lambda at: at.timestamp() * 1e3,
    "microseconds as text": lambda at: str(at.timestamp() * 1e6),
    "nanoseconds": lambda at: at.timestamp() * 1e9,
    "ISO": lambda at: at.isoformat(),
    "ISO elsewhere": lambda at: at.astimezone(timezone(timedelta(hours=-9, minutes=-30))).isoformat(" "),
    "a datetime without a zone": lambda at: at.replace(tzinfo=None),
}


@given(st.lists(st.tuples(MOMENTS, st.sampled_from(sorted(FORMS))), min_size=1, max_size=8))
def test_the_newest_is_so_in_any_form_of_its_time(rows: list[tuple[datetime, str]]) -> None:
    moments = [moment.replace(microsecond=0, tzinfo=UTC) for moment, _ in rows]
    newest = NewestRows("at")
    records = [
        Record(row, {"at": FORMS[form](at)}, "")
        for row, ((_, form), at) in enumerate(zip(rows, moments, strict=True), 1)
    ]
    for record in records:
        newest.add("u", record, newest.time_of(record))
    held = [record.row for record in records if newest.holds("u", record)]
    # Text and units round a moment by less than the second that moments are apart.
    best = max(moments)
    assert len(held) == 1
    assert moments[held[0] - 1] == best
    assert newest.older == len(rows) - 1


@pytest.mark.parametrize("at", [date(2026, 11, 2), "2026-11-02T00:00:00Z", b"2026-11-02", 1793577600, "1793577600000"])
def test_forms_of_one_day(at: object) -> None:
    assert NewestRows("at").time_of(Record(1, {"at": at}, "")) == 1793577600
