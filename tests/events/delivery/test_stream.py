"""What is recorded gets through a stream into a folder, once, whoever is killed; what the stream dropped is counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")


import redis

from app.errors import ConfigError, StoreError
from app.events.delivery.log_destination import DeliveryError, open_destination
from app.events.delivery.log_place import LogPlace, log_place
from app.events.delivery.stream_drain import DrainCounts, drain_stream
from app.events.event_log import EventLog
from app.events.records import FEEDBACK, IMPRESSIONS, ITEMS
from app.events.segment import segment_name, write_segment
from app.events.segment_columns import to_batch
from app.features.loading.valkey_server import free_port
from app.settings import Settings
from tests.command_line import Ctr, command_line
from tests.events.delivery.test_shipper import ROOT, ids, put
from tests.events.records import AT_US, blocks, impression
from tests.events.test_event_writer import rows
from tests.redis_servers import RedisServer, servers
from tests.waiting import until

PROGRAM = next(iter(servers().values()))
GROUP = "ctr-drain"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisServer(PROGRAM, folder) as server:
        yield server


def raw_client(port: int) -> redis.Redis:
    return redis.Redis(port=port)


def place(port: int) -> LogPlace:
    return log_place(f"redis://127.0.0.1:{port}/ctr-events")


def event_log(spool: Path, port: int, **settings: Any) -> EventLog:
    named = {"events": f"redis://127.0.0.1:{port}/ctr-events", "events_spool": spool, "events_segment_s": 1.0}
    return EventLog.from_settings(Settings(_env_file=None, **named, **settings))  # type: ignore[arg-type]


def drained(port: int, folder: Path) -> DrainCounts:
    counts = DrainCounts()
    drain_stream(place(port), folder, counts, group=GROUP)
    return counts


def files(folder: Path, count: int) -> list[tuple[str, Path]]:
    """Write files of one answer each."""
    names = [segment_name(IMPRESSIONS, AT_US, f"w-{number}") for number in range(count)]
    for number, name in enumerate(names):
        write_segment(folder, name, [to_batch(IMPRESSIONS, blocks([impression(number)]))])
    return [(str(name), folder / str(name)) for name in names]


def test_records_go_through_a_stream_into_a_folder(server: RedisServer, tmp_path: Path) -> None:
    log = event_log(tmp_path / "spool", server.port)
    log.start()
    put(log, 0, 300)
    until(lambda: log.deliveries()["delivered"] >= 3)
    assert drained(server.port, tmp_path / "log").records == 900
    put(log, 300, 300)
    log.stop()
    assert drained(server.port, tmp_path / "log") == DrainCounts(files=3, records=900)
    assert drained(server.port, tmp_path / "log") == DrainCounts()
    assert ids(tmp_path / "log") == {f"impression-{number}": 1 for number in range(600)}
    assert len(rows(tmp_path / "log", ITEMS)) == len(rows(tmp_path / "log", FEEDBACK)) == 600
    assert log.lost() == {}


def test_while_the_server_is_away_the_spool_keeps_it(tmp_path: Path) -> None:
    port = free_port()
    log = event_log(tmp_path / "spool", port)
    log.start()
    put(log, 0, 200)
    until(lambda: log.deliveries()["failed"] >= 2)
    assert "does not answer" in log.delivery_problem
    (tmp_path / "redis").mkdir()
    server = RedisServer(PROGRAM, tmp_path / "redis")
    server.port = port
    with server:
        until(lambda: not log.delivery_problem)
        log.stop()
        assert drained(server.port, tmp_path / "log").records == 600
    assert log.lost() == {}


def test_a_server_that_is_full_is_tried_again(server: RedisServer, tmp_path: Path) -> None:
    [(name, path)] = files(tmp_path / "spool", 1)
    destination = open_destination(place(server.port), 1000)
    with raw_client(server.port) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(DeliveryError, match="maxmemory"):
            destination.deliver(name, path)
        client.config_set("maxmemory", 0)
        destination.deliver(name, path)
        destination.close()
        [(_, entry)] = client.xrange("ctr-events")
    assert {key.decode() for key in entry} == {"name", "rows", "data", "sender", "number"}
    assert (entry[b"rows"], entry[b"number"]) == (b"1", b"1")


def test_what_was_read_and_not_written_is_written_by_the_next(server: RedisServer, tmp_path: Path) -> None:
    destination = open_destination(place(server.port), 1000)
    for name, path in files(tmp_path / "spool", 20):
        destination.deliver(name, path)
    destination.close()
    with raw_client(server.port) as client:
        client.xgroup_create("ctr-events", GROUP, id="0")
        assert client.xreadgroup(GROUP, "drain", {"ctr-events": ">"}, 12)
    assert drained(server.port, tmp_path / "log") == DrainCounts(files=20, records=20)
    with server.client as client:
        assert client.xpending("ctr-events", GROUP)["pending"] == 0


def test_what_is_sent_twice_is_there_once(server: RedisServer, tmp_path: Path) -> None:
    for _ in range(2):
        destination = open_destination(place(server.port), 1000)
        for name, path in files(tmp_path / "spool", 3):
            destination.deliver(name, path)
        destination.close()
    assert drained(server.port, tmp_path / "log").trimmed == 0
    assert set(ids(tmp_path / "log").values()) == {1}


def test_files_that_the_stream_dropped_are_counted(server: RedisServer, tmp_path: Path) -> None:
    destination = open_destination(place(server.port), 1000)
    sent = files(tmp_path / "spool", 30)
    for name, path in sent[:10]:
        destination.deliver(name, path)
    assert drained(server.port, tmp_path / "log").files == 10
    for name, path in sent[10:]:
        destination.deliver(name, path)
    destination.close()
    with server.client as client:
        client.xtrim("ctr-events", maxlen=5, approximate=False)
    assert drained(server.port, tmp_path / "log") == DrainCounts(files=5, records=5, trimmed=15)


def test_a_folder_that_begins_late_misses_nothing(server: RedisServer, tmp_path: Path) -> None:
    destination = open_destination(place(server.port), 1000)
    for name, path in files(tmp_path / "spool", 10):
        destination.deliver(name, path)
    destination.close()
    with server.client as client:
        client.xtrim("ctr-events", maxlen=4, approximate=False)
    assert drained(server.port, tmp_path / "log") == DrainCounts(files=4, records=4)


def test_a_stream_keeps_about_its_length(server: RedisServer, tmp_path: Path) -> None:
    [(name, path)] = files(tmp_path / "spool", 1)
    destination = open_destination(place(server.port), 100)
    for _ in range(400):
        destination.deliver(name, path)
    destination.close()
    with server.client as client:
        assert 100 <= client.xlen("ctr-events") < 250


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "../../outside.json", "data": "{}"},
        {"name": "schemas/../../outside.json", "data": "{}"},
        {"name": "impressions/date=2026-11-29/hour=14/w-1.parquet", "data": "no parquet"},
        {"name": "others/date=2026-11-29/hour=14/w-1.parquet", "data": "x"},
        {"any": "thing"},
        {"name": b"\xff", "data": b"\xff", "number": b"\xff"},
    ],
)
def test_entries_that_are_no_files_of_a_log_are_left_out(server: RedisServer, tmp_path: Path, entry: Any) -> None:
    [(name, path)] = files(tmp_path / "spool", 1)
    with server.client as client:
        client.xadd("ctr-events", entry)
    destination = open_destination(place(server.port), 1000)
    destination.deliver(name, path)
    destination.close()
    assert drained(server.port, tmp_path / "log") == DrainCounts(files=1, records=1, foreign=1)
    assert not list(tmp_path.glob("*outside*"))


def test_a_second_drain_of_a_folder_is_refused(server: RedisServer, tmp_path: Path) -> None:
    from app.runtime.file_lock import locked

    (tmp_path / "log").mkdir()
    with locked(tmp_path / "log" / ".drain.lock"), pytest.raises(ConfigError, match="another"):
        drained(server.port, tmp_path / "log")


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        drained(free_port(), tmp_path / "log")


def test_one_that_follows_outlives_a_server_that_is_away_for_days(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pauses_s: list[float] = []

    def sleep(pause_s: float) -> None:
        pauses_s.append(pause_s)
        if len(pauses_s) == 3000:
            raise KeyboardInterrupt

    monkeypatch.setattr("app.events.delivery.stream_drain.time.sleep", sleep)
    monkeypatch.setattr("app.events.delivery.stream_drain.open_client", Mock(side_effect=StoreError("away")))
    with pytest.raises(KeyboardInterrupt):
        drain_stream(place(free_port()), tmp_path / "log", DrainCounts(), group=GROUP, follow=True)
    assert pauses_s[:7] == [2, 4, 8, 16, 32, 60, 60]
    assert set(pauses_s[6:]) == {60}


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctr:
    monkeypatch.delenv("CTR_EVENTS", raising=False)
    return command_line(monkeypatch, capsys)


def test_the_command_says_what_it_drained(ctr: Ctr, server: RedisServer, tmp_path: Path) -> None:
    destination = open_destination(place(server.port), 1000)
    for name, path in files(tmp_path / "spool", 3):
        destination.deliver(name, path)
    destination.close()
    url = f"redis://127.0.0.1:{server.port}/ctr-events"
    status, out, _ = ctr("events", "drain", "--events", url, "--out", str(tmp_path / "log"), "--json")
    assert (status, json.loads(out)) == (0, {"files": 3, "records": 3, "trimmed": 0, "foreign": 0})
    status, out, err = ctr("events", "drain", "--events", "folder", "--out", str(tmp_path / "log"))
    assert (status, out) == (1, "")
    assert "no stream" in err


def test_one_that_follows_writes_what_comes_until_it_is_interrupted(server: RedisServer, tmp_path: Path) -> None:
    url = f"redis://127.0.0.1:{server.port}/ctr-events"
    program = "from app.cli import main; main()"
    arguments = ["events", "drain", "--events", url, "--out", str(tmp_path / "log"), "--follow", "--json"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        destination = open_destination(place(server.port), 1000)
        for number, (name, path) in enumerate(files(tmp_path / "spool", 3)):
            destination.deliver(name, path)
            until(lambda number=number: len(ids(tmp_path / "log")) == number + 1)
        destination.close()
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert json.loads(out)["files"] == 3
