from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from app.runtime.file_lock import lock, locked, try_lock, unlock


def test_an_exclusive_lock_excludes_all_others_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    with locked(path):
        assert not try_lock(other)
        assert not try_lock(other, shared=True)
        with pytest.raises(BlockingIOError, match="locked by another"), locked(path, blocking=False):
            pass
    assert try_lock(other)
    unlock(other)
    with locked(path, blocking=False):
        pass
    os.close(other)


def test_shared_locks_exclude_only_an_exclusive_one(tmp_path: Path) -> None:
    first, second, third = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(3))
    lock(first, shared=True)
    assert try_lock(second, shared=True)
    assert not try_lock(third)
    os.close(first)
    assert not try_lock(third)
    os.close(second)
    assert try_lock(third), "closing the last descriptor released the lock"
    os.close(third)


def test_a_blocking_lock_waits(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held, acquired_at = threading.Event(), []

    def wait_for_it() -> None:
        held.wait()
        with locked(path):
            acquired_at.append(time.monotonic())

    waiter = threading.Thread(target=wait_for_it)
    waiter.start()
    with locked(path):
        held.set()
        time.sleep(0.05)
        released_at = time.monotonic()
    waiter.join()
    assert acquired_at[0] >= released_at


def test_the_content_of_a_locked_file_is_kept_and_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("process 1\n")
    with locked(path) as descriptor:
        assert os.pread(descriptor, 100, 0) == b"process 1\n"
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"2")
    assert path.read_text() == "2"
