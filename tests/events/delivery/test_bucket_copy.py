"""What is in a bucket is read as what is in a folder; files are fetched once, and again when they have changed."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")
pytest.importorskip("obstore", reason="obstore is not installed: pip install ctr-serving[events-s3]")

from obstore.store import LocalStore

from app.errors import DataError
from app.events.delivery.bucket import Bucket
from app.events.delivery.bucket_copy import bucket_copy, file_times
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS, Record
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import to_batch
from tests.command_line import Ctr, command_line
from tests.events.delivery.object_server import ObjectServer, object_server
from tests.events.records import AT_US, block, blocks, click, impression, item

HOUR_US = 3_600_000_000


def write(folder: Path, hours: int = 3) -> None:
    for hour in range(hours):
        at_us = AT_US + hour * HOUR_US
        kinds: dict[str, list[Record]] = {
            ITEMS: [item(10 * n + k, at_us=at_us) for n in range(20) for k in range(3)],
            IMPRESSIONS: [
                block(impression(n, at_us=at_us)._replace(impression_id=f"impression-{hour}-{n}")) for n in range(20)
            ],
            FEEDBACK: [click(4, at_us=at_us)._replace(request_id=f"impression-{hour}-4", feedback_id=f"{hour}")],
        }
        for kind, records in kinds.items():
            write_segment(folder, segment_name(kind, at_us, f"w-{hour}"), [to_batch(kind, records)])
    (folder / "schemas").mkdir()
    (folder / "schemas" / "hash.json").write_text("{}")


class Counting(Bucket):
    fetched = 0

    def fetch(self, name: str, path: Path) -> None:
        self.fetched += 1
        super().fetch(name, path)


def test_files_are_fetched_once_and_again_when_they_changed(tmp_path: Path) -> None:
    write(tmp_path / "log")
    bucket = Counting(LocalStore(tmp_path / "log"))
    for fetched in (10, 10):
        with bucket_copy(bucket, "s3://shop", tmp_path / "copies") as folder:
            assert len(file_times(folder)) == 9
            assert (folder / "schemas" / "hash.json").read_text() == "{}"
            assert bucket.fetched == fetched
    one, other, *_ = sorted((tmp_path / "log" / "impressions").rglob("*.parquet"))
    os.utime(one, (time.time() + 5, time.time() + 5))
    other.unlink()
    with bucket_copy(bucket, "s3://shop", tmp_path / "copies") as folder:
        assert bucket.fetched == 11
        assert len(file_times(folder)) == 8
        next(folder.rglob("*.parquet")).write_bytes(b"")
    with bucket_copy(bucket, "s3://shop", tmp_path / "copies"):
        assert bucket.fetched == 12


def test_files_of_earlier_hours_are_left_out_and_of_later_ones_but_feedback_which_comes_late(tmp_path: Path) -> None:
    write(tmp_path / "log")
    bucket = Counting(LocalStore(tmp_path / "log"))
    since = datetime.fromtimestamp(AT_US / 1e6, UTC) + timedelta(hours=1)
    with bucket_copy(bucket, "s3://shop", tmp_path / "copies", since) as folder:
        assert len(file_times(folder)) == 6
    assert bucket.fetched == 7
    with bucket_copy(bucket, "s3://shop", tmp_path / "copies", since, since) as folder:
        assert sorted(name.split("/")[0] for name in file_times(folder)) == [FEEDBACK] * 2 + [IMPRESSIONS, ITEMS]


def test_names_that_are_no_files_of_a_log_are_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "log" / "impressions" / "date=x").mkdir(parents=True)
    (tmp_path / "log" / "impressions" / "date=x" / "a.parquet").write_text("x")
    (tmp_path / "log" / "schemas" / "deep").mkdir(parents=True)
    (tmp_path / "log" / "schemas" / "deep" / "a.json").write_text("x")
    bucket = Counting(LocalStore(tmp_path / "log"))
    with bucket_copy(bucket, "s3://shop", tmp_path / "copies"):
        assert bucket.fetched == 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    with object_server() as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{state.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        write(tmp_path / "log")
        for path in (tmp_path / "log").rglob("*.*"):
            if path.is_file():
                state.objects[f"shop/events/{path.relative_to(tmp_path / 'log').as_posix()}"] = path.read_bytes()
        yield state


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    monkeypatch.setenv("CTR_MODEL_STORE", "model_store")
    return command_line(monkeypatch, capsys)


def test_a_bucket_is_joined_to_the_same_bytes_as_a_folder(ctr: Ctr, server: ObjectServer, tmp_path: Path) -> None:
    for events, out in (("log", "from-folder"), ("s3://shop/events", "from-bucket")):
        status, said, err = ctr("join", "--events", events, "--out", out, "--until", "2026-09-21T20:00:00", "--json")
        assert status == 0, err
        assert json.loads(said)["answers"] == 60
        assert json.loads(said)["positives"] == 3
    paths = [path.relative_to("from-folder") for path in Path("from-folder").rglob("*.parquet")]
    assert len(paths) == 6
    for path in paths:
        assert (Path("from-folder") / path).read_bytes() == (Path("from-bucket") / path).read_bytes()
    assert Path("from-bucket/schemas/hash.json").read_text() == "{}"


def test_records_that_may_still_be_on_their_way_are_waited_for(ctr: Ctr, server: ObjectServer) -> None:
    server.objects.clear()
    at_us = int((time.time() - 2 * 3600) * 1e6)
    path = write_segment_of(at_us)
    server.objects[f"shop/events/{path.as_posix()}"] = path.read_bytes()
    spans = [
        json.loads(
            ctr("join", "--events", "s3://shop/events", "--out", lag, "--every", "1m", "--lag", lag, "--json")[1]
        )
        for lag in ("1m", "3h")
    ]
    assert spans[0]["answers"] == 1
    assert spans[1]["answers"] == 0


def write_segment_of(at_us: int) -> Path:
    name = segment_name(IMPRESSIONS, at_us, "w-9")
    write_segment(Path(), name, [to_batch(IMPRESSIONS, blocks([impression(1, items=0, at_us=at_us)]))])
    return Path(str(name))


def test_a_user_is_forgotten_in_the_bucket(ctr: Ctr, server: ObjectServer) -> None:
    before = dict(server.objects)
    assert json.loads(ctr("events", "forget", "4", "--events", "s3://shop/events", "--json")[1]) == {
        "forgotten": 3,
        "waiting": 0,
        "open_files": 0,
    }
    changed = {name for name, body in server.objects.items() if before[name] != body}
    assert {name.split("/")[2] for name in changed} == {"impressions"}
    assert len(before) - len(server.objects) == 3, "no feedback is left on the answers"
    assert json.loads(ctr("events", "forget", "4", "--events", "s3://shop/events", "--json")[1]) == {
        "forgotten": 0,
        "waiting": 0,
        "open_files": 0,
    }


def test_a_bucket_that_is_away_is_said(ctr: Ctr, server: ObjectServer) -> None:
    server.status = 403
    status, out, err = ctr("join", "--events", "s3://shop/events", "--out", "joined")
    assert (status, out) == (1, "")
    assert "s3://shop/events: cannot be read" in " ".join(err.split())
    with pytest.raises(DataError), bucket_copy(Bucket.open("s3://shop/events"), "s3://shop/events", Path("copies")):
        pass


def test_a_stream_is_not_read_in_place(ctr: Ctr) -> None:
    status, _, err = ctr("join", "--events", "redis://localhost:1/events", "--out", "joined")
    assert status == 1
    assert "ctr events drain" in " ".join(err.split())
