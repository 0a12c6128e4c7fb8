"""A shell in which blocks of the documentation run as they are: `ctr` and `python` on its path, and a free port."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.features.loading.valkey_server import free_port
from tests.pages import ROOT

TIMEOUT_S = 900
Shell = dict[str, str]
"""The environment of such a shell."""


def make_shell(folder: Path) -> Shell:
    """Return the environment of a shell; its commands are put into a folder below this one."""
    commands = folder / "bin"
    commands.mkdir()
    for name, arguments in (("ctr", "-c 'from app.cli import main; main()' \"$@\""), ("python", '"$@"')):
        (commands / name).write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}\n")
        (commands / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
    paths = {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    return environment | paths | {"CTR_PORT": str(free_port())}


def run(folder: Path, shell: Shell, script: str) -> str:
    """Run a block to its end, and return what it wrote."""
    ended = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", script], cwd=folder, env=shell, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout
    assert "Traceback" not in ended.stdout
    return ended.stdout


@contextmanager
def served(folder: Path, shell: Shell, script: str) -> Iterator[httpx.Client]:
    """Run a script that ends in `exec ctr serve`, and yield a client of the service once it is ready."""
    service = subprocess.Popen(
        ["/bin/bash", "-c", script], cwd=folder, env=shell, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{shell['CTR_PORT']}", timeout=60) as client:
            _wait_until_ready(client, service)
            yield client
    finally:
        service.send_signal(signal.SIGINT)
        service.wait(60)


def _wait_until_ready(client: httpx.Client, service: subprocess.Popen[bytes], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while service.poll() is None and time.monotonic() < deadline:
        try:
            if client.get("/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"it does not serve; its status is {service.poll()}")
