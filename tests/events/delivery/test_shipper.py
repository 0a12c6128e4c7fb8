"""What is recorded gets to the bucket, whoever ends meanwhile; and what has no room while it is away is counted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")
pytest.importorskip("obstore", reason="obstore is not installed: pip install ctr-serving[events-s3]")

from obstore.store import LocalStore, MemoryStore

from app.errors import ConfigError
from app.events.delivery.bucket import Bucket
from app.events.delivery.log_destination import DeliveryError
from app.events.delivery.shipper import Shipper
from app.events.delivery.spool_limit import SpoolLimit, folder_size
from app.events.event_log import EventLog
from app.events.event_queue import EventQueue
from app.events.event_writer import EventWriter
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.settings import Settings
from tests.events.delivery.object_server import ObjectServer, object_server
from tests.events.records import block, click, impression, item
from tests.events.test_event_writer import rows
from tests.waiting import until

ROOT = Path(__file__).parents[3]


class Away:
    """A bucket that can be away."""

    def __init__(self, folder: Path, *, is_away: bool = False) -> None:
        folder.mkdir(exist_ok=True)
        self.bucket = Bucket(LocalStore(folder))
        self.is_away = is_away
        self.names: list[str] = []

    def deliver(self, name: str, path: Path) -> None:
        if self.is_away:
            raise DeliveryError("the bucket is away")
        self.bucket.deliver(name, path)
        self.names.append(name)

    def close(self) -> None:
        pass


def event_log(spool: Path, destination: Away, *, spool_bytes: int = 1 << 30, buffer: int = 10_000) -> EventLog:
    return EventLog(
        EventQueue(buffer),
        spool,
        segment_s=1.0,
        segment_bytes=1 << 26,
        spool_bytes=spool_bytes,
        open_destination=lambda: destination,
        place="a bucket",
    )


def put(log: EventLog, first: int, count: int) -> None:
    for number in range(first, first + count):
        log.queue.put(item(number))
        log.queue.put(block(impression(number)))
        log.queue.put(click(number))


def ids(folder: Path) -> Counter[str]:
    return Counter(row["impression_id"] for row in rows(folder, IMPRESSIONS))


def test_everything_is_in_the_bucket_once_the_log_has_stopped(tmp_path: Path) -> None:
    bucket = Away(tmp_path / "bucket")
    log = event_log(tmp_path / "spool", bucket)
    log.start()
    put(log, 0, 500)
    until(lambda: log.deliveries()["delivered"] >= 3)
    put(log, 500, 500)
    log.stop()
    assert ids(tmp_path / "bucket") == {f"impression-{number}": 1 for number in range(1000)}
    assert len(rows(tmp_path / "bucket", ITEMS)) == len(rows(tmp_path / "bucket", FEEDBACK)) == 1000
    assert not list((tmp_path / "spool").rglob("*.parquet"))
    assert log.lost() == {}
    kinds = [name.partition("/")[0] for name in bucket.names]
    assert kinds.index(ITEMS) < kinds.index(IMPRESSIONS)


def test_while_the_bucket_is_away_the_spool_keeps_it_and_nothing_is_lost(tmp_path: Path) -> None:
    bucket = Away(tmp_path / "bucket", is_away=True)
    log = event_log(tmp_path / "spool", bucket)
    log.start()
    for number in range(6):
        put(log, 100 * number, 100)
        time.sleep(0.5)
    until(lambda: log.deliveries()["failed"] >= 2)
    assert log.delivery_problem == "the bucket is away"
    assert log.problem == ""
    until(lambda: log.spool_bytes() > 0)
    bucket.is_away = False
    until(lambda: not log.delivery_problem)
    log.stop()
    assert ids(tmp_path / "bucket") == {f"impression-{number}": 1 for number in range(600)}
    assert log.lost() == {}


def test_beyond_the_bound_of_the_spool_records_are_counted_and_those_kept_arrive(tmp_path: Path) -> None:
    bucket = Away(tmp_path / "bucket", is_away=True)
    log = event_log(tmp_path / "spool", bucket, spool_bytes=1 << 16, buffer=300)
    log.start()
    sent = 0
    while "full" not in log.problem or not log.lost()[IMPRESSIONS]:
        put(log, sent, 10)
        sent += 10
        time.sleep(0.05)
        assert sent < 20_000
    assert folder_size(tmp_path / "spool") < 1 << 20
    bucket.is_away = False
    until(lambda: not log.problem and not log.delivery_problem)
    put(log, sent, 20)
    sent += 20
    log.stop()
    arrived = ids(tmp_path / "bucket")
    assert max(arrived.values()) == 1
    assert len(arrived) + log.lost()[IMPRESSIONS] == sent
    assert f"impression-{sent - 1}" in arrived


def test_what_a_killed_worker_has_left_is_delivered_by_the_next(tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from tests.events.delivery.test_shipper import Away, event_log, put
log = event_log(Path(sys.argv[1]) / "spool", Away(Path(sys.argv[1]) / "bucket", is_away=True))
log.start()
put(log, 0, 300)
while log.written()["feedback"] < 300:
    time.sleep(0.01)
print("written", flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
    log = event_log(tmp_path / "spool", Away(tmp_path / "bucket"))
    log.start()
    put(log, 300, 1)
    log.stop()
    assert ids(tmp_path / "bucket") == {f"impression-{number}": 1 for number in range(301)}


def test_one_of_two_workers_delivers_and_the_other_takes_over(tmp_path: Path) -> None:
    first, second = (
        event_log(tmp_path / "spool", Away(tmp_path / "bucket")),
        event_log(tmp_path / "spool", Away(tmp_path / "bucket")),
    )
    for log in (first, second):
        log.start()
    put(first, 0, 100)
    put(second, 100, 100)
    until(lambda: len(ids(tmp_path / "bucket")) == 200)
    first.stop()
    put(second, 200, 100)
    until(lambda: len(ids(tmp_path / "bucket")) == 300)
    second.stop()
    assert set(ids(tmp_path / "bucket").values()) == {1}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    with object_server() as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{state.port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        yield state


def test_s3_over_http(server: ObjectServer, tmp_path: Path) -> None:
    bucket = Bucket.open("s3://shop/ctr/events")
    file = tmp_path / "file"
    file.write_bytes(b"x" * 1000)
    name = "impressions/date=2026-11-29/hour=14/w-1.parquet"
    bucket.deliver(name, file)
    assert server.objects == {f"shop/ctr/events/{name}": b"x" * 1000}
    [found] = bucket.files("impressions")
    assert (found.name, found.size) == (name, 1000)
    bucket.fetch(name, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"x" * 1000
    bucket.delete(name)
    assert server.objects == {}
    with pytest.raises(FileNotFoundError):
        bucket.deliver(name, tmp_path / "not there")
    server.status = 403
    with pytest.raises(DeliveryError):
        bucket.deliver(name, file)


def test_a_silent_bucket_is_in_nobodys_way(server: ObjectServer, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "hash.json").write_text("{}")
    server.silent.set()
    shipper = Shipper(tmp_path, lambda: Bucket.open("s3://shop/events"), look_every_s=0.01)
    shipper.start()
    until(lambda: server.requests)
    # While the upload hangs, other threads have the interpreter: the longest pause is far from the upload's.
    longest, last = 0.0, time.monotonic()
    ends = last + 1.0
    while (now := time.monotonic()) < ends:
        longest, last = max(longest, now - last), now
    assert longest < 0.9
    server.silent.clear()
    until(lambda: shipper.outcomes["delivered"] == 1)
    shipper.stop()


def test_the_settings_name_a_bucket_and_how_much_may_wait_for_it(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, events="s3://shop/events", events_spool=tmp_path, events_spool_mb=2)  # type: ignore[call-arg]
    log = EventLog.from_settings(settings)
    log.start()
    log.stop()
    assert (tmp_path / ".spool").is_dir()
    with pytest.raises(ConfigError, match="lifecycle"):
        EventLog.from_settings(settings.model_copy(update={"events_keep_days": 1.0}))


def test_memory_is_a_bucket_too(tmp_path: Path) -> None:
    bucket = Bucket(MemoryStore())
    (tmp_path / "file").write_text("one")
    bucket.deliver("schemas/a.json", tmp_path / "file")
    (tmp_path / "file").write_text("two")
    bucket.deliver("schemas/a.json", tmp_path / "file")
    bucket.fetch("schemas/a.json", tmp_path / "again")
    assert (tmp_path / "again").read_text() == "two"
    bucket.delete("schemas/a.json")
    bucket.delete("schemas/a.json")
    assert list(bucket.files("schemas")) == []


def test_waits_grow_while_it_fails_and_begin_anew(tmp_path: Path) -> None:
    shipper = Shipper(tmp_path, lambda: Away(tmp_path / "bucket"))
    waits = []
    for failures in range(12):
        shipper._failures = failures
        waits.append(shipper._wait_s())
    assert waits[0] == 1.0
    assert all(0.5 * 2 ** (n - 1) <= waits[n] <= 2 ** (n - 1) for n in range(1, 7))
    assert all(30 <= wait <= 60 for wait in waits[8:])


def test_the_size_of_the_spool_is_looked_at_now_and_then(tmp_path: Path) -> None:
    now = [0.0]
    limit = SpoolLimit(tmp_path / "spool", 100, lambda: now[0])
    assert (limit.size, limit.is_full) == (0, False)
    (tmp_path / "spool" / "a" / "b").mkdir(parents=True)
    (tmp_path / "spool" / "a" / "b" / "file").write_bytes(b"x" * 100)
    assert limit.size == 0
    now[0] = 5.0
    assert (limit.size, limit.is_full) == (100, True)


def test_a_full_spool_still_finishes_what_is_open(tmp_path: Path) -> None:
    queue, now = EventQueue(100), [0.0]
    limit = SpoolLimit(tmp_path, 1, lambda: now[0])
    writer = EventWriter(queue, tmp_path, segment_s=3600, limit=limit)
    queue.put(item(1))
    writer._turn()
    now[0] = 10.0
    with pytest.raises(OSError, match="full"):
        writer._turn()
    assert len(rows(tmp_path, ITEMS)) == 1
