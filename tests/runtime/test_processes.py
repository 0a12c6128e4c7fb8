"""Where `ctr serve` listens, and the address that it prints."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from app.errors import ConfigError
from app.runtime import processes
from app.runtime.processes import ServedApplication, listen, serve
from app.settings import Settings

HAS_IPV6 = socket.has_ipv6
try:
    with socket.socket(socket.AF_INET6) as _probe:
        _probe.bind(("::1", 0))
except OSError:
    HAS_IPV6 = False


def settings(**given: Any) -> Settings:
    return Settings(_env_file=None, port=0, **given)


@pytest.mark.parametrize(
    ("host", "url", "reached_at"),
    [
        ("127.0.0.1", "http://127.0.0.1:", "127.0.0.1"),
        ("0.0.0.0", "http://0.0.0.0:", "127.0.0.1"),
        ("localhost", "http://localhost:", "127.0.0.1"),
        ("", "http://127.0.0.1:", "127.0.0.1"),
        pytest.param("::", "http://[::]:", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param("::1", "http://[::1]:", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param("[::1]", "http://[::1]:", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
    ],
)
def test_the_address_that_is_printed_is_listened_at(
    host: str, url: str, reached_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []

    def connect(settings: Settings, factory: str, listener: socket.socket) -> None:
        with listener:
            socket.create_connection((reached_at, listener.getsockname()[1]), 5).close()

    monkeypatch.setattr(processes, "run_worker", connect)
    serve(settings(host=host, root_path="/ctr"), "unused", announced.append)
    assert announced[0].startswith(url)
    assert announced[0].endswith("/ctr")


@pytest.mark.parametrize("host", ["no.such.host.invalid", "1.2.3.4.5", "::g", "203.0.113.1"])
def test_an_address_that_is_not_this_machines_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        listen(settings(host=host), shared=False)
    assert "choose another with --host" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_port_that_is_taken_is_named() -> None:
    with listen(settings(), shared=False) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: .*--port"):
            listen(Settings(_env_file=None, port=port), shared=False)


def refuse(settings: Settings) -> ServedApplication:
    """Stands for `app.main.create_app` with settings that no service can be built from."""
    raise ConfigError("CTR_DEVICE=cuda, but there is none")


@pytest.mark.parametrize("workers", [1, 2])
def test_settings_that_a_worker_finds_wrong_end_the_start(
    workers: int, monkeypatch: pytest.MonkeyPatch, restored_signals: None
) -> None:
    monkeypatch.setattr(processes, "POLL_S", 0.02)
    with pytest.raises(ConfigError, match=r"^CTR_DEVICE=cuda, but there is none$"):
        serve(settings(workers=workers), f"{__name__}:refuse")


@pytest.fixture
def restored_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
