"""Tests of the limit on descriptors, and of the kernel's table of them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from app.runtime.descriptors import RESERVE, connections_that_fit, make_room, raise_limit
from tests.processes import table_of_descriptors


def test_the_soft_limit_is_raised_and_a_reserve_is_kept() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/dev/fd"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + RESERVE + 10, before[1]))
        assert 5 <= connections_that_fit() <= 10
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(before[1], 1_048_576)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the size of the table is read from /proc")
def test_the_table_holds_all_connections_before_they_come() -> None:
    before, opened = table_of_descriptors(os.getpid()), set(os.listdir("/dev/fd"))
    make_room(before + 1000)
    assert table_of_descriptors(os.getpid()) >= before + 1000
    assert set(os.listdir("/dev/fd")) == opened


def test_room_is_made_as_far_as_the_limit_goes() -> None:
    script = """
import resource
from app.runtime.descriptors import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
make_room(1000)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
