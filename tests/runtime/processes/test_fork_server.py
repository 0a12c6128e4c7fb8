"""What makes a fork of the fork server safe: it has imported the application, and has one thread."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from app.commands.serve import APPLICATION
from app.runtime.processes.fork_server import ForkServer
from app.settings import Settings
from tests.runtime.processes.conftest import until


@pytest.mark.slow
def test_it_has_one_thread_after_it_has_imported_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("OMP", "OPENBLAS"):  # as tests/__init__.py has set it
        monkeypatch.delenv(f"{library}_NUM_THREADS")
    fork_server = ForkServer(Settings(_env_file=None), APPLICATION)
    try:
        until(fork_server.imported)
        assert len(os.listdir(f"/proc/{fork_server.pid}/task")) == 1
        assert "libtorch_cpu" in Path(f"/proc/{fork_server.pid}/maps").read_text()
    finally:
        fork_server.kill()
    assert fork_server.exit_code() == -signal.SIGKILL
