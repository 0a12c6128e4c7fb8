"""Fixtures of all tests: one thread for torch, a quiet hypothesis, an empty model store, a Valkey.

What takes long to import is imported where it is used: this file is read too by the process that shares out the tests
among workers, before it starts them, and that one needs none of it.
"""

from __future__ import annotations

import functools
import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis

    from app.registry.gate.gate_report import GateCheck
    from app.registry.gate.gate_task import GateTask
    from app.registry.store.model_store import ModelStore


def pytest_collection(session: pytest.Session) -> None:
    """Shared machines pause for longer than any honest deadline; a failing example is replayed from .hypothesis."""
    from hypothesis import HealthCheck, settings

    gc.disable()  # all that is imported until they are collected stays
    settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("shared")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have no later collection of garbage walk what stays anyway: the tests and the modules, a million objects."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell in the background has the tests ignore interrupts, nohup hang-ups; so would the processes they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _plain_tracebacks() -> None:
    """structlog by default draws the local variables of every frame, which takes seconds where they are tables."""
    import structlog

    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(scope="session", autouse=True)
def _commands_are_built_once() -> Iterator[None]:
    """Typer builds all commands of `ctr` anew for each that is run, which takes as long as many a test."""
    import typer.main
    import typer.testing

    built_once = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", built_once)
        patch.setattr(typer.testing, "_get_command", built_once)
        yield


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """An empty store for the model `MODEL_NAME`; its root is `store.folder.parent`."""
    from app.registry.store.model_store import ModelStore
    from tests.factories import MODEL_NAME

    return ModelStore(tmp_path / "model_store", MODEL_NAME)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey, shared by all tests; take `redis_client` too to find it empty."""
    from app.features.loading.embedded_valkey import EmbeddedValkey

    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def redis_client(valkey_url: str) -> Iterator[redis.Redis]:
    """A client (text, not bytes) of an emptied Valkey."""
    import redis

    with redis.Redis.from_url(valkey_url, decode_responses=True) as client:
        client.flushall()
        yield client


def checks_in_process(task: GateTask) -> list[GateCheck]:
    """Run the gate's checks here; task and checks are written as JSON and read again, as on the way to a process."""
    import msgspec
    import torch

    from app.registry.gate import checks
    from app.registry.gate.gate_report import GateCheck
    from app.registry.gate.gate_task import GateTask

    found: list[GateCheck] = []
    task = msgspec.json.decode(msgspec.json.encode(task), type=GateTask)
    with torch.inference_mode():
        for check in checks.checks(task):
            found.append(msgspec.json.decode(msgspec.json.encode(check), type=GateCheck))
            if not check.passed and not check.comparison:
                break
    return found


@pytest.fixture
def gate_in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's checks without their process, which takes two seconds to import torch: what only a process can
    do (be ended, be refused memory, be lost) is in tests/registry/gate/test_gate.py."""
    from app.registry.gate import gate

    monkeypatch.setattr(gate, "run_checks", checks_in_process)


@pytest.fixture
def unrendered() -> Iterator[None]:
    """Reports of trainings without the rendering of their drawings, which is tests/training/report's matter."""
    from tests.drawings import drawings_unrendered

    with drawings_unrendered():
        yield
