"""Sealed memory cannot change, other processes find it, and it goes when its last user does."""

from __future__ import annotations

import gc
import mmap
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.runtime.sealed_memory import find_sealed, map_sealed, write_sealed

ROOT = Path(__file__).parents[2]
CONTENT = os.urandom(3 * 4096 + 17)
FIND = """
import os, sys
from app.runtime.sealed_memory import find_sealed, map_sealed
found = find_sealed(sys.argv[1], int(sys.argv[2]))
if found is None:
    print("none")
else:
    print(os.fstat(found).st_ino, bytes(map_sealed(found)).hex())
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memfd")


@pytest.fixture
def name() -> str:
    return f"ctr-test-{uuid.uuid4().hex}"


def parts() -> Iterator[memoryview]:
    for start in range(0, len(CONTENT), 5000):
        yield memoryview(CONTENT)[start : start + 5000]


def found_by_another_process(name: str, size: int) -> list[str]:
    command = [sys.executable, "-c", FIND, name, str(size)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split()


def test_nothing_changes_it(name: str) -> None:
    descriptor = write_sealed(name, parts())
    view = map_sealed(descriptor)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"x", 0)
    for size in (0, 2 * len(CONTENT)):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 0, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(OSError, match=r"not permitted|denied"):
        os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_TRUNC)
    assert bytes(view) == CONTENT


def test_another_process_finds_it_by_name_and_size_until_it_is_let_go(name: str) -> None:
    view = map_sealed(write_sealed(name, parts()))
    found = find_sealed(name, len(CONTENT))
    assert found is not None
    inode = os.fstat(found).st_ino
    os.close(found)
    assert found_by_another_process(name, len(CONTENT)) == [str(inode), CONTENT.hex()]
    assert found_by_another_process(name, len(CONTENT) + 1) == ["none"]
    assert found_by_another_process(name[:-1], len(CONTENT)) == ["none"]
    del view
    gc.collect()
    due = time.monotonic() + 60
    while (again := find_sealed(name, len(CONTENT))) is not None:
        os.close(again)
        assert time.monotonic() < due
        time.sleep(0.005)


def test_memory_that_may_still_change_is_not_taken(name: str) -> None:
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, CONTENT)
    assert find_sealed(name, len(CONTENT)) is None
    os.close(descriptor)


def test_what_cannot_be_written_leaves_nothing(name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_sealed(name, parts())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    due = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < due
        time.sleep(0.005)


def test_an_error_of_the_source_is_passed_on(name: str) -> None:
    def broken() -> Iterator[memoryview]:
        yield memoryview(CONTENT)
        raise ValueError("cut short")

    with pytest.raises(ValueError, match="cut short"):
        write_sealed(name, broken())
    assert find_sealed(name, len(CONTENT)) is None
