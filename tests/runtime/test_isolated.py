"""A module in a process of its own: ended in time, refused memory, killed, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from app.runtime.isolated import IsolatedModule, IsolatedResult
from tests.processes import has_ended
from tests.runtime.misbehaving import Behaviour
from tests.waiting import until

MISBEHAVING = "tests.runtime.misbehaving"


def run(behaviour: str, path: Path | str = "", *, timeout_s: float = 30.0, grace_s: float = 0.0) -> IsolatedResult[int]:
    module = IsolatedModule(MISBEHAVING, timeout_s=timeout_s, interrupt_grace_s=grace_s)
    return module.run(Behaviour(behaviour, str(path)), int)


def test_answers_come_back_in_order() -> None:
    assert run("answer") == IsolatedResult([1, 2], 0, False, "exit status 0")


def test_what_is_printed_is_no_answer() -> None:
    result = run("print")
    assert result.answers == [1, 2]
    assert result.reason == "a word of a library"


def test_garbage_on_the_stream_is_left_out() -> None:
    assert run("garbage").answers == [1, 2]


def test_a_process_that_does_not_end_is_ended_and_its_answers_are_kept() -> None:
    began = time.monotonic()
    result = run("sleep", timeout_s=3.0)
    assert time.monotonic() - began < 20
    assert (result.answers, result.timed_out, result.exit_status) == ([1], True, -signal.SIGKILL)


def test_with_grace_it_may_clear_up_after_an_interrupt(tmp_path: Path) -> None:
    result = run("clear up", tmp_path / "cleared", timeout_s=3.0, grace_s=10.0)
    assert result.timed_out
    assert (tmp_path / "cleared").read_text() == "interrupted"


def test_one_that_ignores_the_interrupt_is_killed(tmp_path: Path) -> None:
    assert run("ignore", timeout_s=3.0, grace_s=0.5).exit_status == -signal.SIGKILL


def test_memory_beyond_the_limit_is_refused() -> None:
    result = run("take memory")
    assert result.exit_status == 1
    assert result.reason.startswith("MemoryError")


def test_processor_time_beyond_the_limit_ends_it() -> None:
    assert run("spin").exit_status == -signal.SIGXCPU


def test_no_file_can_be_written(tmp_path: Path) -> None:
    result = run("write", tmp_path / "file")
    assert result.exit_status in (1, -signal.SIGXFSZ)
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_bytes() == b""


def test_a_killed_process_leaves_its_whole_answers() -> None:
    result = run("die")
    assert (result.answers, result.exit_status) == ([1], -signal.SIGKILL)
    assert result.reason == f"exit status {-signal.SIGKILL}"


@pytest.mark.parametrize("behaviour", ["leave a child", "leave a child and sleep"])
def test_nothing_it_started_is_left_behind(tmp_path: Path, behaviour: str) -> None:
    run(behaviour, tmp_path / "pid", timeout_s=3.0)
    child = int((tmp_path / "pid").read_text())
    until(lambda: has_ended(child))


def test_interrupt_ends_it_from_another_thread(tmp_path: Path) -> None:
    module = IsolatedModule(MISBEHAVING, timeout_s=60.0)
    results: list[IsolatedResult[int]] = []
    request = Behaviour("clear up", str(tmp_path / "cleared"))
    thread = threading.Thread(target=lambda: results.append(module.run(request, int)))
    thread.start()
    due = time.monotonic() + 30
    while not (tmp_path / "cleared").exists() and time.monotonic() < due:
        time.sleep(0.01)
    module.interrupt()
    thread.join(30)
    assert (tmp_path / "cleared").read_text() == "interrupted"
    assert not results[0].timed_out


def test_its_environment_has_none_of_the_services_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_ADMIN_KEY", "secret")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    environment = IsolatedModule(MISBEHAVING, timeout_s=1.0, environment={"CTR_MODEL": "deepfm"}).environment
    assert not {"CTR_ADMIN_KEY", "PROMETHEUS_MULTIPROC_DIR"} & environment.keys()
    assert environment["CTR_MODEL"] == "deepfm"
    assert environment["PATH"] == os.environ["PATH"]
