"""Promotions and rollbacks as a service runs them: other processes, its settings and none of its secrets."""

from __future__ import annotations

import ast
import inspect
import os
import threading
from pathlib import Path

import pytest

import app.publishing
from app.errors import ActionFailed, ArtifactError, ConfigError
from app.publishing.isolated_actions import MODULE, IsolatedActions, publishing_environment
from app.registry.gate.gate_report import read_report
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.runtime.isolated import IsolatedModule
from app.settings import Settings, publishing_settings
from tests.factories import publish_tiny
from tests.processes import children_of, has_ended
from tests.registry.torchscript.variants import Endless, publish_model, retrained_model
from tests.waiting import PATIENCE_S, until


def settings_of(store: ModelStore, tmp_path: Path, **settings: object) -> Settings:
    store_settings = {"model_store": store.folder.parent, "model": store.name, "data_dir": tmp_path, "redis_url": ""}
    return Settings(**{"gate_latency_ratio": 1e9, **store_settings, **settings})  # type: ignore[arg-type]


def actions(store: ModelStore, tmp_path: Path) -> IsolatedActions:
    return IsolatedActions(settings_of(store, tmp_path))


def test_promote_judges_and_points(store: ModelStore, tmp_path: Path) -> None:
    publish_model(store, retrained_model(), live=True)
    publish_model(store, retrained_model(seed=1))
    isolated = actions(store, tmp_path)
    promotion = isolated.promote(2)
    assert promotion.gate is not None
    assert (promotion.version, promotion.serving, promotion.gate.passed) == (2, Pointer(2), True)
    assert store.pointer() == Pointer(2)
    report = read_report(store.path(2))
    assert report is not None
    assert report.against == 1
    with pytest.raises(ConfigError, match="no version 9"):
        isolated.promote(9)


@pytest.mark.faults
def test_what_the_gate_refuses_comes_back_with_its_reason(store: ModelStore, tmp_path: Path) -> None:
    publish_tiny(store)
    bad = publish_tiny(store, 1, labels=())
    (store.path(bad) / "model.pt").write_bytes(b"")
    with pytest.raises(ArtifactError, match="version 2 is refused") as refused:
        actions(store, tmp_path).promote(bad)
    assert refused.value.reason in ("file", "hash")
    assert store.pointer() == Pointer(1)


def grandchildren() -> set[int]:
    """Return the process ids of the children's children: the gate runs in a process of its own, the command's child."""
    return {grandchild for child in children_of(os.getpid()) for grandchild in children_of(child)}


def test_stopping_ends_the_command_and_the_gates_process(store: ModelStore, tmp_path: Path) -> None:
    publish_model(store, retrained_model(), live=True)
    endless = publish_model(store, retrained_model(Endless))
    isolated, others = actions(store, tmp_path), grandchildren()
    raised: list[Exception] = []

    def promote() -> None:
        try:
            isolated.promote(endless)
        except ActionFailed as error:
            raised.append(error)

    promoting = threading.Thread(target=promote)
    promoting.start()
    gates = until(lambda: grandchildren() - others)
    isolated.stop()
    promoting.join(PATIENCE_S)
    assert len(raised) == 1
    until(lambda: all(has_ended(gate) for gate in gates))
    assert store.pointer() == Pointer(1)
    with pytest.raises(ActionFailed, match="stopping"):
        isolated.promote(endless)


def test_the_process_is_told_the_settings_and_no_secret(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_API_KEYS", "for callers")
    monkeypatch.setenv("CTR_ADMIN_KEY", "an admin's")
    monkeypatch.setenv("CTR_GATE_TIMEOUT_S", "7")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    keys = (tmp_path / "a.pem", tmp_path / "b.pem")
    settings = settings_of(store, tmp_path, trusted_keys=keys)
    environment = IsolatedModule(MODULE, timeout_s=1.0, environment=publishing_environment(settings)).environment
    assert not {"CTR_API_KEYS", "CTR_ADMIN_KEY", "PROMETHEUS_MULTIPROC_DIR"} & environment.keys()
    assert environment["CTR_GATE_TIMEOUT_S"] == "7.0"
    assert environment["CTR_TRUSTED_KEYS"] == f"{keys[0]},{keys[1]}"
    assert "CTR_SIGNING_KEY" not in environment
    assert environment["PATH"] == os.environ["PATH"]
    for name in list(os.environ):
        if name.startswith("CTR_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    again = Settings()
    assert (again.model_store, again.trusted_keys, again.gate_latency_ratio) == (store.folder.parent, keys, 1e9)


def test_a_rollback_returns_and_says_what_it_passed_over(store: ModelStore, tmp_path: Path) -> None:
    for seed in range(3):
        publish_tiny(store, seed)
    (store.path(2) / "model.pt").write_bytes(b"x")
    rollback = actions(store, tmp_path).roll_back()
    assert (rollback.version, rollback.serving) == (1, Pointer(1))
    assert [skipped.version for skipped in rollback.passed_over] == [2]


def test_exactly_the_settings_that_publishing_reads_are_passed_on() -> None:
    read = set()
    sources = [*Path(app.publishing.__file__).parent.glob("*.py"), Path(inspect.getfile(ModelStore))]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("settings", "self._settings"):
                read.add(node.attr)
    assert sorted(read) == sorted(publishing_settings())
