"""publish, promote, rollback and models, as people run them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from app.commands.models import models
from app.commands.promote import promote
from app.commands.publish import publish
from app.commands.rollback import rollback
from app.errors import ArtifactError, ConfigError
from app.registry.artifact.manifest import PROGRAM
from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer, Pointer
from tests.command_line import Terminal
from tests.factories import publish_tiny, write_tiny

cli = typer.Typer()
for command in (publish, promote, rollback, models):
    cli.command()(command)


def run(store: ModelStore, *arguments: str) -> Result:
    store_options = ["--model", store.name, "--model-store", str(store.folder.parent)]
    return CliRunner().invoke(cli, [*arguments, *store_options], catch_exceptions=False)


def answer(store: ModelStore, *arguments: str) -> dict[str, Any]:
    result = run(store, *arguments, "--json")
    assert result.exit_code == 0
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of two seeds are nothing alike here, so they are not compared; the gate's own tests do that."""
    settings = {"CTR_RATIO": 1e9, "RANK_CORRELATION": -1, "LATENCY_RATIO": 1e9}
    for name, value in settings.items():
        monkeypatch.setenv(f"CTR_GATE_{name}", str(value))
    monkeypatch.setenv("CTR_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CTR_REDIS_URL", "")


@pytest.fixture
def version_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "trained"
    folder.mkdir()
    write_tiny(folder, seed=4)
    return folder


@pytest.mark.usefixtures("gate_in_process")
def test_publish_makes_a_version_live(store: ModelStore, version_dir: Path) -> None:
    publish_tiny(store)
    document = answer(store, "publish", str(version_dir))
    assert document["version"] == 2
    assert document["serving"] == {"stable": 2}
    assert Path(document["version_dir"]) == store.path(2)
    assert answer(store, "publish", str(version_dir), "--no-live")["serving"] == {"stable": 2}
    assert store.versions() == [1, 2, 3]


@pytest.mark.usefixtures("gate_in_process")
def test_publish_prunes_to_the_setting(store: ModelStore, version_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_KEEP_VERSIONS", "2")
    for _ in range(3):
        store.publish_copy(version_dir)
    assert answer(store, "publish", str(version_dir))["pruned"] == [1, 2]
    assert store.versions() == [3, 4]


def test_publish_refuses_a_bad_folder_and_changes_nothing(store: ModelStore, version_dir: Path) -> None:
    publish_tiny(store)
    (version_dir / PROGRAM).write_bytes(b"x")
    for bad in (version_dir, version_dir / "absent"):
        with pytest.raises(ArtifactError):
            run(store, "publish", str(bad))
    assert (store.versions(), store.pointer()) == ([1], Pointer(stable=1))


@pytest.mark.usefixtures("gate_in_process")
def test_promote_gives_each_label(store: ModelStore) -> None:
    for seed in range(3):
        publish_tiny(store, seed, labels=())
    run(store, "promote", "1")
    run(store, "promote", "2", "--as", "canary", "--share", "0.2")
    run(store, "promote", "3", "--as", "shadow")
    assert store.pointer() == Pointer(stable=1, canary=CanaryPointer(2, 0.2), shadow=3)
    document = answer(store, "promote", "2")
    gate = document.pop("gate")
    assert (gate["passed"], gate["against"], gate["version"]) == (True, 1, 2)
    assert document == {
        "model": store.name, "version": 2, "label": "stable", "serving": {"stable": 2, "shadow": 3}, "problem": None
    }  # fmt: skip
    assert run(store, "promote", "2", "--as", "canary", "--share", "1.1").exit_code == 2
    assert run(store, "promote", "2", "--as", "best").exit_code == 2
    with pytest.raises(ConfigError, match=r"of a canary \(--as canary\), and stable answers everybody"):
        run(store, "promote", "1", "--share", "0.5")
    with pytest.raises(ConfigError, match="2 is stable: a canary is another version beside it"):
        run(store, "promote", "2", "--as", "canary")
    assert store.pointer() == Pointer(stable=2, shadow=3)


def test_promote_names_the_versions_there_are(store: ModelStore) -> None:
    with pytest.raises(ConfigError, match=r"no version 7.*none yet"):
        run(store, "promote", "7")
    publish_tiny(store)
    publish_tiny(store)
    with pytest.raises(ConfigError, match=r"no version 7.*1, 2"):
        run(store, "promote", "7")


@pytest.mark.usefixtures("gate_in_process")
def test_promote_refuses_what_does_not_load(store: ModelStore) -> None:
    publish_tiny(store)
    publish_tiny(store, 1, labels=())
    good = (store.path(2) / PROGRAM).read_bytes()
    (store.path(2) / PROGRAM).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"model\.pt"):
        run(store, "promote", "2")
    (store.path(2) / PROGRAM).write_bytes(good)
    with pytest.raises(ArtifactError, match=r"was refused: model\.pt.*--force"):
        run(store, "promote", "2")
    assert store.pointer() == Pointer(stable=1)
    assert answer(store, "models")["versions"][1]["gate"]["checks"][0]["reason"] == "hash"
    assert "refused:" in run(store, "models").stdout
    assert answer(store, "promote", "2", "--force")["serving"] == {"stable": 2}, "judged again, and found good"


@pytest.mark.faults
@pytest.mark.usefixtures("gate_in_process")
def test_promote_refuses_what_compares_badly_unless_forced(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_GATE_RANK_CORRELATION", "0.9")
    publish_tiny(store)
    publish_tiny(store, 1, labels=())
    with pytest.raises(ArtifactError, match=r"Spearman.*ctr promote 2 --force") as refused:
        run(store, "promote", "2")
    assert (refused.value.reason, store.pointer()) == ("order", Pointer(stable=1))
    with pytest.raises(ArtifactError, match="was refused"):
        run(store, "promote", "2")
    assert answer(store, "promote", "2", "--force")["serving"] == {"stable": 2}
    assert "forced" in run(store, "models").stdout


def test_rollback_returns_step_by_step(store: ModelStore) -> None:
    for seed in range(4):
        publish_tiny(store, seed, labels=())
    for version in (1, 3, 4):
        store.promote(version)
    assert answer(store, "rollback")["serving"] == {"stable": 3}
    assert answer(store, "rollback")["serving"] == {"stable": 1}
    with pytest.raises(ConfigError, match="no earlier version"):
        run(store, "rollback")
    assert store.pointer().stable == 1


def test_rollback_passes_over_what_no_longer_loads(store: ModelStore) -> None:
    for seed in range(3):
        publish_tiny(store, seed)
    (store.path(2) / PROGRAM).write_bytes(b"x")
    document = answer(store, "rollback")
    assert (document["version"], store.pointer().stable) == (1, 1)
    assert [(refused["version"], refused["reason"]) for refused in document["passed_over"]] == [(2, "hash")]


def test_rollback_takes_a_canary_away(store: ModelStore) -> None:
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary",))
    with pytest.raises(ConfigError, match="--to names a version to make stable again; --as canary only"):
        run(store, "rollback", "--as", "canary", "--to", "1")
    assert answer(store, "rollback", "--as", "canary")["serving"] == {"stable": 1}
    before = store.pointer_bytes()
    done = run(store, "rollback", "--as", "canary")
    assert f"{store.name} has no canary: nothing was changed" in done.stderr
    assert store.pointer_bytes() == before


def test_models_lists_labels_metrics_and_damage(store: ModelStore) -> None:
    assert answer(store, "models") == {"model": store.name, "serving": {}, "problem": None, "versions": []}
    assert "ctr train --publish" in run(store, "models").stderr
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary", "shadow"))
    publish_tiny(store, 2, labels=())
    (store.path(3) / "manifest.json").write_bytes(b"{")
    first, second, third = answer(store, "models")["versions"]
    assert (first["version"], first["labels"], first["architecture"]) == (1, ["stable"], "deepfm")
    assert first["metrics"]["test"] == {"auc": 0.75, "log_loss": 0.55}
    assert second["labels"] == ["canary", "shadow"]
    assert third["problem"].startswith("manifest.json cannot be read")
    shown = run(store, "models").stdout
    assert "0.7500" in shown
    assert "canary" in shown
    (store.folder / "serving.json").write_bytes(b"{")
    assert "serving.json" in answer(store, "models")["problem"]


def test_rollback_to_one_that_was_stable_and_to_no_other(store: ModelStore) -> None:
    for seed in range(3):
        publish_tiny(store, seed)
    publish_tiny(store, 3, labels=())
    store.promote(1)
    store.promote(3)
    for other in (3, 4, 9):
        with pytest.raises(ConfigError, match=f"no version {other} to return to; stable before 3 were: 1, 2"):
            run(store, "rollback", "--to", str(other))
    assert answer(store, "rollback", "--to", "2")["serving"] == {"stable": 2}
    assert store.history() == [1, 2]
    (store.path(1) / PROGRAM).write_bytes(b"x")
    with pytest.raises(ArtifactError):
        run(store, "rollback", "--to", "1")
    assert store.pointer() == Pointer(stable=2)


@pytest.mark.usefixtures("gate_in_process")
def test_a_canary_that_was_taken_out_stays_out_until_it_is_asked_for_again(store: ModelStore) -> None:
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary",))
    store.withdraw(2, GateCheck(WITHDRAWN, False, "shift", "its mean score is 2.00 times stable's", comparison=True))
    shown = answer(store, "models")
    assert shown["serving"] == {"stable": 1}
    assert shown["versions"][1]["gate"]["checks"][0]["reason"] == "shift"
    with pytest.raises(ArtifactError, match=r"version 2 was refused: its mean score is 2\.00 times stable's"):
        run(store, "promote", "2", "--as", "canary")
    assert answer(store, "promote", "2", "--as", "canary", "--force")["serving"]["canary"]["version"] == 2
    store.load(2)


def test_the_table_says_which_rows_each_version_was_tested_on(store: ModelStore) -> None:
    for rows, day in ((4000, "03"), (2000, "10")):
        part = {"rows": rows, "from": f"2026-11-{day}T00:00:00+00:00", "to": f"2026-11-{day}T12:30:00+00:00"}
        with store.staging() as staged:
            write_tiny(staged, data={"test": part})
            store.publish(staged)
    shown = run(store, "models")
    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    assert rows[0] == ["version", "labels", "created", "model", "AUC", "log loss", "gate", "test rows"]
    assert [row[-1] for row in rows[1:]] == [
        "4,000, 2026-11-03 00:00 to 2026-11-03 12:30",
        "2,000, 2026-11-10 00:00 to 2026-11-10 12:30",
    ]
    assert "cannot be compared" in shown.stderr


@pytest.mark.usefixtures("gate_in_process")
def test_the_table_can_be_read_in_eighty_columns(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    part = {"rows": 4000, "from": "2026-11-03T00:00:00+00:00", "to": "2026-11-13T12:30:00+00:00"}
    with store.staging() as staged:
        write_tiny(staged, data={"test": part})
        version = store.publish(staged)
    run(store, "promote", str(version))
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    models(store.name, store.folder.parent)
    said = terminal.shown
    for words in (
        "version",
        "labels",
        "created",
        "loss",
        "test rows",
        "deepfm",
        "passed",
        "2026-11-13 12:30",
    ):
        assert words in said, said
    assert re.search(r"\d{4}-\d\d-\d\d +│deepfm", said), said
    assert "\N{HORIZONTAL ELLIPSIS}" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_who_wants_forward_again_is_told_how(store: ModelStore) -> None:
    for _ in range(2):
        publish_tiny(store)
    run(store, "rollback")
    with pytest.raises(ConfigError, match=r"no version 2 to return to.*none; `ctr promote 2` makes it stable"):
        run(store, "rollback", "--to", "2")
    with pytest.raises(ConfigError, match=r"stable before 1 were: none$"):
        run(store, "rollback", "--to", "9")
