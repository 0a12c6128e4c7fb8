"""What a service of several processes promises: workers are replaced, restarted in turn and stopped in order."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.processes import has_ended, listening_ports, table_of_descriptors
from tests.runtime.processes.applications import MAX_CONNECTIONS
from tests.runtime.processes.conftest import Service, Start, until


def test_workers_that_die_or_hang_are_replaced_and_the_log_says_why_once(start: Start) -> None:
    service = start(worker_timeout_s=1)
    first = service.listening()
    killed, stopped = first
    os.kill(killed, signal.SIGKILL)
    until(lambda: len(service.listening() - {killed}) == 2)
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: len(service.listening() - first) == 2)
    with pytest.raises((http.client.HTTPException, OSError)):
        service.get("/block")
    until(lambda: len(service.lines("worker_hung")) == 2)
    hung = {line["pid"] for line in service.lines("worker_hung")}
    until(lambda: len(service.listening() - hung) == 2)
    assert service.get() in map(str, service.listening())
    assert [line["pid"] for line in service.lines("worker_died")] == [killed]
    assert [line["exit_code"] for line in service.lines("worker_died")] == [-signal.SIGKILL]
    assert stopped in hung


def test_a_fork_server_that_dies_takes_no_worker_along_and_is_replaced(start: Start) -> None:
    service = start(workers=1)
    worker = int(service.get())
    fork_server = next(pid for pid, name in service.children().items() if name == "ctr-fork-server")
    os.kill(fork_server, signal.SIGKILL)
    until(lambda: service.lines("fork_server_died"))
    assert service.get() == str(worker)
    os.kill(worker, signal.SIGKILL)
    until(lambda: service.listening() - {worker})
    assert int(service.get()) != worker


def test_a_worker_looks_for_garbage_though_nobody_did_while_it_was_imported(start: Start) -> None:
    assert start(workers=1).get("/collecting") == "1"


def test_a_worker_has_room_for_all_its_connections_before_they_come(start: Start) -> None:
    worker = int(start(workers=1).get())
    assert table_of_descriptors(worker) >= MAX_CONNECTIONS


def test_a_worker_listens_once_it_has_started_up_and_failed_starts_are_tried_again(
    start: Start, tmp_path: Path
) -> None:
    starting = tmp_path / "starting"
    starting.touch()
    service = start("create_twice_dying", wait=False, workers=1)
    until(lambda: (tmp_path / "tries").exists() and len((tmp_path / "tries").read_text()) == 3)
    until(lambda: service.lines("Waiting for application startup."))
    pid = next(pid for pid, name in service.children().items() if name == "ctr-worker-1")
    assert listening_ports(pid) == set()
    starting.unlink()
    service.wait_for_address()
    assert service.get() == str(pid)
    assert listening_ports(pid) == {service.port}
    assert len(service.lines("worker_died")) == 2


class Client:
    """Asks again and again over one connection, which it opens again where it was closed; retries a request once."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stopped = threading.Event()
        self.answered = self.failed = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = self._service.connect()
        while not self._stopped.is_set():
            for attempt in range(2):
                try:
                    connection.request("GET", "/")
                    connection.getresponse().read()
                    self.answered += 1
                    break
                except (http.client.HTTPException, OSError):
                    connection.close()
                    self.failed += attempt
            self._stopped.wait(0.005)  # a pause leaves the processor to the workers that start
        connection.close()

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def test_a_rolling_restart_fails_no_request(start: Start, tmp_path: Path) -> None:
    service = start()
    with Client(service) as client, Client(service) as other:
        for _ in range(2):
            before = service.listening()
            service.tell(signal.SIGHUP)
            until(lambda before=before: len(service.listening() - before) == 2 and len(service.listening()) == 2)
    assert client.failed == other.failed == 0
    assert client.answered > 0

    before = service.listening()
    (tmp_path / "not-ready").touch()
    service.tell(signal.SIGHUP)
    # The old ones say that they are not ready either: there is nothing to lose.
    until(lambda: len(service.listening() - before) == 2)


def test_a_rolling_restart_stops_where_the_new_worker_does_not_start(start: Start, tmp_path: Path) -> None:
    service = start("create_unless_broken")
    before = service.listening()
    (tmp_path / "broken").touch()
    service.tell(signal.SIGHUP)
    until(lambda: service.lines("rolling_restart_stopped"))
    assert service.lines("worker_died")[-1]["problem"] == "it is broken"
    assert service.listening() == before


def test_a_stop_signal_drains_then_finishes_what_was_asked_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    service = start(drain_s=2)
    idle = service.connect()
    idle.request("GET", "/ready")
    assert idle.getresponse().read() == b"1"
    children = service.children()
    assert sorted(children.values()) == ["ctr-fork-server", "ctr-worker-1", "ctr-worker-2"]
    service.tell(signal.SIGTERM)
    until(lambda: service.get("/ready") == "0")
    idle.request("GET", "/ready")
    answer = idle.getresponse()
    assert answer.read() == b"0"
    assert answer.getheader("connection") == "close"
    slow = service.connect()
    slow.request("GET", "/slow")
    until((tmp_path / "slow").exists)
    service.tell(signal.SIGTERM)  # no more draining
    assert int(slow.getresponse().read()) in children
    slow.close()
    assert service.wait() == 0
    assert all(has_ended(child) for child in children)
    assert list(service.temporary.iterdir()) == []
    assert service.lines("worker_not_stopped") == []


def test_what_does_not_end_within_the_grace_is_cut_off(start: Start, tmp_path: Path) -> None:
    service = start(workers=1, shutdown_grace_s=0.5)
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nbegun")
        until((tmp_path / "upload").exists)
        service.tell(signal.SIGINT)
        assert service.wait() == 0


def test_no_process_outlives_a_supervisor_that_was_killed(start: Start) -> None:
    service = start()
    children = service.children()
    os.kill(next(iter(service.listening())), signal.SIGSTOP)
    service.tell(signal.SIGKILL)
    service.wait()
    for child in children:
        until(lambda child=child: has_ended(child))
    assert list(service.temporary.iterdir()) == []


@pytest.mark.parametrize("factory", ["refuse", "no_such_function"])
def test_settings_and_applications_that_cannot_be_used_end_the_start(start: Start, factory: str) -> None:
    service = start(factory, wait=False)
    assert service.wait() == 1
    assert service.log().splitlines()[-1] in {
        "CTR_DEVICE=cuda, but there is none",
        "tests.runtime.processes.applications:no_such_function cannot be imported; why is said above",
    }
