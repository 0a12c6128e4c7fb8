"""Published versions count up, in however many processes; what is no whole version gets no number."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.registry.gate.gate_report import GateCheck
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.pruning import prune
from app.runtime.read_only import make_read_only
from tests.registry.store.publishers import leftovers, python
from tests.users import as_nobody, folder_of_nobody

__all__ = ["folder_of_nobody"]


def test_versions_count_up_and_load_under_their_number(store: ModelStore, source: Path) -> None:
    assert store.versions() == []
    assert [store.publish_copy(source) for _ in range(3)] == [1, 2, 3]
    assert store.versions() == [1, 2, 3]
    for version in store.versions():
        loaded = load(store.path(version), version=version)
        assert (loaded.version, loaded.manifest.name) == (version, store.name)
        assert (store.path(version) / "report.html").read_text() == "<p>report</p>"
    assert load(source).version == 0, "the source stays as it was"
    assert leftovers(store) == []


def test_a_version_is_read_only_and_can_still_be_judged_withdrawn_and_pruned(
    folder_of_nobody: Path, source: Path
) -> None:
    copied = Path(shutil.copytree(source, folder_of_nobody / "source"))
    make_read_only(copied)  # for everybody to read
    with as_nobody():
        store = ModelStore(folder_of_nobody / "model_store", "deepfm")
        versions = [store.publish_copy(copied) for _ in range(4)]
        for file in (PROGRAM, TABLES, MANIFEST):
            with pytest.raises(PermissionError):
                shutil.copyfile(copied / file, store.path(1) / file)
            with pytest.raises(PermissionError):
                os.truncate(store.path(1) / file, 0)
        for version in versions[:2]:
            store.withdraw(version, GateCheck("withdrawn", False, "operator", "scores drift"))
            refusal = store.refusal(version)
            assert refusal is not None
            assert refusal.detail == "scores drift"
        assert prune(store, 2) == [1, 2]
        store.discard_unlabelled(3)
        assert store.versions() == [4]
        assert leftovers(store) == []


def test_publishing_makes_nothing_live(store: ModelStore, source: Path) -> None:
    store.publish_copy(source)
    assert store.pointer_bytes() is None
    assert store.pointer() == Pointer()


def test_what_is_no_version_is_not_counted(store: ModelStore, source: Path) -> None:
    store.folder.mkdir(parents=True)
    for name in ("0", "01", "-3", "²", "1e3", "latest", "9" * 30, ".tmp-5"):
        (store.folder / name).mkdir()
    assert store.versions() == []
    (store.folder / "4").mkdir()
    assert store.publish_copy(source) == 5, "a number is never taken twice, even of a folder that holds nothing"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "-x", "a b", "x" * 65, "é"])
def test_a_model_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        ModelStore(tmp_path, name)


@pytest.mark.parametrize("file", [PROGRAM, TABLES, MANIFEST])
def test_a_bad_folder_gets_no_number(store: ModelStore, source: Path, tmp_path: Path, file: str) -> None:
    bad = Path(shutil.copytree(source, tmp_path / "bad"))
    raw = bytearray((bad / file).read_bytes())
    raw[len(raw) // 2] ^= 4
    (bad / file).write_bytes(raw)
    damages: list[Callable[[], object]] = [lambda: None, (bad / file).unlink, lambda: os.mkfifo(bad / file)]
    for damage in damages:
        damage()
        with pytest.raises(ArtifactError):
            store.publish_copy(bad)
    assert store.versions() == []
    assert leftovers(store) == []


PUBLISHER = """
import sys
from pathlib import Path
from app.registry.gate.gate_report import GateCheck
from app.registry.store.model_store import ModelStore

store = ModelStore(Path(sys.argv[1]), "deepfm")
for _ in range(int(sys.argv[3])):
    version = store.publish_copy(Path(sys.argv[2]))
    store.update_pointer(stable=version)
    print(version, flush=True)
"""


def test_publishers_in_several_processes_get_distinct_numbers(store: ModelStore, source: Path) -> None:
    publishers = [python(PUBLISHER, store.folder.parent, source, 10) for _ in range(2)]
    numbers = [int(line) for publisher in publishers for line in publisher.communicate(timeout=900)[0].split()]
    assert sorted(numbers) == list(range(1, 21))
    assert store.versions() == sorted(numbers)
    assert store.pointer().stable in numbers
    assert leftovers(store) == []


LIGHT = """
import sys
import app.publishing.isolated_actions, app.registry.store.version_table, app.commands.load, app.features.loading
from app.registry.store.model_store import ModelStore
from pathlib import Path
print(ModelStore(Path(sys.argv[1]), "deepfm").manifest(1).version, "torch" in sys.modules)
"""


def test_what_loads_no_version_does_not_wait_for_torch(store: ModelStore, source: Path) -> None:
    """Its import takes longer than `ctr load`, `ctr models`, or all of a promotion but the gate's process."""
    store.publish_copy(source)
    assert python(LIGHT, store.folder.parent).communicate(timeout=900)[0].split() == ["1", "False"]
