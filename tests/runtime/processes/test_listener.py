"""The address of a service: which names it may have, and who may bind it."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from app.errors import ConfigError
from app.runtime.processes.listener import addresses_of, bind, reserve
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
    ("host", "reached_at"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("", "127.0.0.1"),
        pytest.param("::", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param("::1", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
        pytest.param("[::1]", "::1", marks=pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")),
    ],
)
def test_workers_share_an_address_that_is_reserved_and_connections_are_refused_until_one_listens(
    host: str, reached_at: str
) -> None:
    with reserve(settings(host=host)) as reserved:
        port = reserved.getsockname()[1]
        own = Settings(_env_file=None, host=host, port=port)
        with bind(own) as first, bind(own) as second:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((reached_at, port), 5)
            first.listen()
            second.listen()
            socket.create_connection((reached_at, port), 5).close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "1.2.3.4.5", "::g", "203.0.113.1"])
def test_an_address_that_is_not_this_machines_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(ConfigError) as refused:
        reserve(settings(host=host))
    assert "choose another with --host" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_port_at_which_another_service_listens_is_named() -> None:
    with reserve(settings()) as reserved:
        taken = Settings(_env_file=None, port=reserved.getsockname()[1])
        with bind(taken) as listener:
            listener.listen()
            said = rf"127\.0\.0\.1:{taken.port}: another program has the port; .*--port or CTR_PORT"
            with pytest.raises(ConfigError, match=said):
                reserve(taken)


def test_the_admin_has_an_address_of_its_own() -> None:
    assert addresses_of(settings()) == [settings()]
    with reserve(settings()) as reserved:
        port = reserved.getsockname()[1]
        both = settings(host="::1", admin_key="key", admin_port=port)
        all_callers, operators = addresses_of(both)
        assert all_callers == both
        assert (operators.host, operators.port) == ("127.0.0.1", port)
        with bind(operators) as listener:
            listener.listen()
            with pytest.raises(ConfigError, match=rf":{port}: .*another program has the port; .*CTR_ADMIN_PORT"):
                reserve(operators)
