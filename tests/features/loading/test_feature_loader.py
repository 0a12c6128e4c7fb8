"""Files through a real Valkey and back: what serving reads must encode as the file's own values do."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, DataError, EncodingError, StoreError
from app.features.encoder import Encoder
from app.features.key_template import KeyTemplate
from app.features.loading.feature_loader import FeatureLoader, LoadSummary
from app.features.loading.record_file import RecordFile
from app.features.loading.stored_text import stored_text
from app.features.redis_client import open_client
from tests.factories import ITEMS, raw_item, small_schema

KEY = KeyTemplate("ctr:v1:item:{id}")
ROWS = [{"id": str(number), **raw_item(number)} for number in range(ITEMS)]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(small_schema(), "item")


@pytest.fixture
def load(redis_client: redis.Redis, valkey_url: str, encoder: Encoder) -> Callable[..., LoadSummary]:
    def run(path: Path, **options: Any) -> LoadSummary:
        with open_client(valkey_url) as client:
            return FeatureLoader(client, KEY, **{"encoder": encoder, **options}).load(RecordFile(path))

    return run


def json_lines(path: Path, rows: list[Any]) -> Path:
    content = b"\n".join(msgspec.json.encode(row) for row in rows)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def comma_separated(path: Path, rows: list[dict[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t" if ".tsv" in path.name else ",")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: stored_text(value, name) for name, value in row.items()})
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return path


WRITERS = {
    "items.jsonl": json_lines,
    "items.ndjson.gz": json_lines,
    "items.csv": comma_separated,
    "items.csv.gz": comma_separated,
    "items.tsv": comma_separated,
    "items.parquet": parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_serving_reads_encodes_as_the_raw_values_do(
    name: str, tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis, encoder: Encoder
) -> None:
    result = load(WRITERS[name](tmp_path / name, ROWS))
    assert (result.loaded, result.bad, result.problems) == (ITEMS, 0, [])
    assert redis_client.dbsize() == ITEMS
    for row in ROWS:
        stored = redis_client.hgetall(KEY.key(row["id"]))
        direct, served = encoder.encode(row, row["id"]), encoder.encode(stored, row["id"])
        np.testing.assert_array_equal(direct.keys, served.keys)
        np.testing.assert_array_equal(direct.values, served.values)


def test_values_are_written_as_the_contract_says(
    tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis
) -> None:
    row = {
        "id": 7,
        "genres": ["Sci-Fi", "Drama"],
        "tags": {"Drama": 3.0, "Comedy": None},
        "year": 1990.0,
        "popularity": 14616,
        "rating": 0.1,
        "seen": True,
        "empty": "",
        "nothing": None,
        "title": "Amélie",
    }
    load(json_lines(tmp_path / "items.jsonl", [row]))
    assert redis_client.hgetall("ctr:v1:item:7") == {
        "genres": '["Sci-Fi","Drama"]',
        "tags": '{"Drama":3.0}',
        "year": "1990",
        "popularity": "14616",
        "rating": "0.1",
        "seen": "true",
        "title": "Amélie",
    }


def test_a_hash_is_replaced_whole(tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis) -> None:
    load(json_lines(tmp_path / "items.jsonl", [{"id": "1", "year": 1990, "rating": 3}, {"id": "2", "year": 1}]))
    load(json_lines(tmp_path / "items.jsonl", [{"id": "1", "year": 1991}, {"id": "2"}]))
    assert redis_client.hgetall("ctr:v1:item:1") == {"year": "1991"}
    assert not redis_client.exists("ctr:v1:item:2")


def test_other_keys_are_left_alone(tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis) -> None:
    redis_client.set("somebody:else", "1")
    redis_client.hset("ctr:v1:item:9", "year", "1")
    load(json_lines(tmp_path / "items.jsonl", [{"id": "1", "year": 1990}]))
    assert redis_client.dbsize() == 3


def test_another_id_column_and_key(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> None:
    path = comma_separated(tmp_path / "movies.csv", [{"movieId": 1, "year": 1990}])
    with open_client(valkey_url) as client:
        FeatureLoader(client, KeyTemplate("mf:{id}"), id_field="movieId").load(RecordFile(path))
    assert redis_client.hgetall("mf:1") == {"year": "1990"}


def test_an_id_that_is_also_a_feature_is_stored(
    tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis
) -> None:
    load(json_lines(tmp_path / "items.jsonl", [{"year": 1990, "rating": 3}]), id_field="year")
    assert redis_client.hgetall("ctr:v1:item:1990") == {"year": "1990", "rating": "3"}


BAD_ROWS = {
    "not JSON": (b'{"id": "new", "year": }', "is not JSON"),
    "not an object": (b"[1]", "is not a JSON object"),
    "no id": (b'{"year": 1990}', "there is no such column, only year"),
    "an empty id": (b'{"id": "", "year": 1990}', "id: is empty"),
    "a null id": (b'{"id": null, "year": 1990}', "id: is empty"),
    "an id that is a list": (b'{"id": [[1]]}', "a list of lists"),
    "a word for a number": (b'{"id": "new", "year": "MCMXC"}', "year: expected a number"),
    "a number too large": (b'{"id": "new", "year": 1e39}', "does not fit a 32-bit float"),
    "nested lists": (b'{"id": "new", "genres": [["Drama"]]}', "genres: a list of lists"),
    "weights that are words": (b'{"id": "new", "tags": {"Drama": "much"}}', "a weight must be a finite number"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_and_left_out_or_stops_the_load(
    name: str, tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis
) -> None:
    line, reason = BAD_ROWS[name]
    path = json_lines(tmp_path / "items.jsonl", ROWS)
    path.write_bytes(path.read_bytes() + b"\n\n" + line + b"\n")
    with pytest.raises(DataError, match=r"1 of 61 rows are bad.*nothing was written") as refused:
        load(path)
    assert f"line {ITEMS + 2}: " in str(refused.value)
    assert reason in str(refused.value)
    assert redis_client.dbsize() == 0

    result = load(path, max_bad=0.02)
    assert (result.loaded, result.bad) == (ITEMS, 1)
    assert reason in result.problems[0]
    assert redis_client.dbsize() == ITEMS
    assert redis_client.hget("ctr:v1:item:0", "year") == str(ROWS[0]["year"])


def test_the_first_ten_bad_rows_are_shown(tmp_path: Path, load: Callable[..., LoadSummary]) -> None:
    path = json_lines(tmp_path / "items.jsonl", [{"id": str(number), "year": "?"} for number in range(25)])
    with pytest.raises(DataError) as refused:
        load(path)
    assert str(refused.value).count("line ") == 10
    assert "and 15 more" in str(refused.value)


def test_without_a_schema_any_value_is_taken(tmp_path: Path, load: Callable[..., LoadSummary]) -> None:
    path = json_lines(tmp_path / "items.jsonl", [{"id": "1", "year": "MCMXC"}])
    assert load(path, encoder=None).loaded == 1


BAD_FILES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("items.jsonl", b"", "is empty"),
    "a header alone": ("items.csv", b"id,year\n", "holds no rows"),
    "one array": ("items.jsonl", b'[{"id": 1}]', "one object on each line"),
    "a short row": ("items.csv", b"id,year\n1,1990\n2\n", "line 3: row: has 1 cells, the header 2"),
    "a name twice": ("items.csv", b"id,year,year\n1,2,3\n", "'year' twice"),
    "an open quote": ("items.csv", b'id,year\n1,"1990\n', "line 2: row: opens a double quote and does not close it"),
    "not UTF-8": ("items.csv", b"id,year\n1,\xff\n", "line 2: row: is not UTF-8"),
    "not gzip": ("items.csv.gz", b"id,year\n", "cannot be read"),
    "gzip cut short": ("items.jsonl.gz", gzip.compress(b'{"id": "1"}\n' * 1000)[:-20], "cannot be read"),
    "not Parquet": ("items.parquet", b"id,year\n", "cannot be read"),
    "another id column": ("items.csv", b"movieId,year\n1,1990\n", "id: there is no such column, only movieId, year"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, load: Callable[..., LoadSummary], redis_client: redis.Redis
) -> None:
    file, content, reason = BAD_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as refused:
        load(tmp_path / file)
    assert reason in str(refused.value)
    assert str(tmp_path / file) in str(refused.value)
    assert redis_client.dbsize() == 0


def test_files_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        RecordFile(tmp_path / "items.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="no file in this folder"):
        RecordFile(tmp_path / "folder.csv")
    for name in ("items", "items.xlsx", "items.gz", "items.parquet.gz"):
        (tmp_path / name).write_text("x")
        with pytest.raises(ConfigError, match=r"should end in \.csv|save it as CSV"):
            RecordFile(tmp_path / name)


def test_parquet_is_read_in_pieces(tmp_path: Path) -> None:
    records = RecordFile(parquet(tmp_path / "items.parquet", ROWS), parquet_rows=7)
    assert [record.values["id"] for record in records] == [row["id"] for row in ROWS]
    assert [record.row for record in records] == list(range(1, ITEMS + 1))
    assert records.fraction == 1.0


def test_a_parquet_map_is_a_weighted_list() -> None:
    assert stored_text([{"key": "Drama", "value": 3.0}], "tags") == '{"Drama":3.0}'


def test_redis_that_is_gone_or_refuses(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> None:
    path = json_lines(tmp_path / "items.jsonl", ROWS)
    with pytest.raises(StoreError, match="does not answer: Connection refused"):
        open_client("redis://127.0.0.1:1/0")
    stranger = "redis://:wrong@" + valkey_url.split("@")[1]
    with pytest.raises(StoreError, match=r"refused: the user or the password .* is wrong") as refused:
        open_client(stranger)
    assert ":wrong@" not in str(refused.value)
    with open_client(valkey_url) as client:
        redis_client.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(StoreError, match="refused: it has too few replicas"):
                FeatureLoader(client, KEY).load(RecordFile(path))
        finally:
            redis_client.config_set("min-replicas-to-write", 0)
    with pytest.raises(ConfigError, match="scheme"):
        open_client("http://127.0.0.1")


def test_a_server_that_gives_up_on_the_way_says_how_far_it_came(
    tmp_path: Path, valkey_url: str, redis_client: redis.Redis
) -> None:
    path = json_lines(tmp_path / "items.jsonl", [{"id": str(number), "n": number} for number in range(1000)])

    def fill(phase: str, rows: int, _: float) -> None:
        if phase == "loading" and rows == 500:
            redis_client.config_set("maxmemory", "1")

    try:
        with open_client(valkey_url) as client, pytest.raises(StoreError, match=r"maxmemory.*500 rows were written"):
            FeatureLoader(client, KEY, on_progress=fill).load(RecordFile(path))
    finally:
        redis_client.config_set("maxmemory", "0")
    assert redis_client.dbsize() == 500


def test_readers_never_see_half_an_entity(tmp_path: Path, valkey_url: str, redis_client: redis.Redis) -> None:
    names = [f"f{number}" for number in range(20)]
    rows = [{"id": str(number), **dict.fromkeys(names, "x")} for number in range(400)]
    path = json_lines(tmp_path / "items.jsonl", rows)
    seen: set[int] = set()
    with open_client(valkey_url) as client:
        loader = FeatureLoader(client, KEY, on_progress=lambda *_: seen.add(redis_client.hlen("ctr:v1:item:399")))
        loader.load(RecordFile(path))
        seen.clear()
        loader.load(RecordFile(path))
    assert seen == {20}


def test_progress_is_reported_to_the_end(tmp_path: Path, load: Callable[..., LoadSummary]) -> None:
    calls: list[tuple[str, int, float]] = []
    path = json_lines(tmp_path / "items.jsonl.gz", [{"id": str(number)} for number in range(2000)])
    load(path, on_progress=lambda *call: calls.append(call))
    for phase in ("checking", "loading"):
        assert [call for call in calls if call[0] == phase][-1] == (phase, 2000, 1.0)
    assert all(0.0 <= fraction <= 1.0 for _, _, fraction in calls)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
def test_any_value_has_a_text_or_raises_the_one_error(value: Any) -> None:
    try:
        text = stored_text(value, "field")
    except EncodingError:
        return
    assert text is None or text.encode()


@given(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(codec="utf-8")).filter(lambda text: text[:1] not in ("[", "{"))
)
def test_the_text_encodes_as_the_value(value: Any) -> None:
    encoder = Encoder(small_schema(), "user")
    for name in ("gender", "age"):
        text = stored_text(value, name)
        try:
            direct = encoder.encode({name: value})
        except EncodingError:
            with pytest.raises(EncodingError):
                encoder.encode({name: text})
            continue
        if name == "age" and isinstance(value, bool):
            continue
        served = encoder.encode({name: text} if text is not None else {})
        np.testing.assert_array_equal(direct.keys, served.keys)
        assert all(
            a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(direct.values, served.values, strict=True)
        )
