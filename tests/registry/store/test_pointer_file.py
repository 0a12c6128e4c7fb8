"""The pointer is always whole, changes label by label, and its history says where to go back to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.errors import ArtifactError
from app.registry.store.history import HISTORY
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, CanaryPointer, Pointer
from app.runtime.read_only import remove_folder
from tests.registry.store.publishers import python


def test_the_pointer_is_whole_at_every_moment(store: ModelStore) -> None:
    """Another process reads while this one writes 300 times."""
    reader = python(
        "import sys; from pathlib import Path; from app.registry.store.model_store import ModelStore\n"
        "store = ModelStore(Path(sys.argv[1]), 'deepfm'); seen = set(); print('ready', flush=True)\n"
        "while True:\n"
        "    pointer = store.pointer(); seen.add(pointer.stable)\n"
        "    assert pointer.stable and (pointer.stable == 300 or pointer.canary.version == pointer.stable + 1)\n"
        "    if pointer.stable == 300: break\n"
        "print(len(seen))",
        store.folder.parent,
    )
    store.update_pointer(stable=1, canary=CanaryPointer(2, 0.5))
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    for version in range(2, 301):
        store.update_pointer(stable=version, canary=CanaryPointer(version + 1, 1 / version))
    seen = int(reader.communicate(timeout=600)[0])
    assert reader.returncode == 0
    assert seen > 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize("file", [HISTORY, POINTER])
def test_a_fifo_in_a_files_place_holds_nobody_up(store: ModelStore, file: str) -> None:
    store.update_pointer(stable=1)
    (store.folder / file).unlink()
    os.mkfifo(store.folder / file)
    assert store.promote(2).stable == 2
    assert store.pointer().stable == 2
    assert store.history()[-1] == 2


def test_labels_change_one_by_one(store: ModelStore) -> None:
    store.update_pointer(stable=7)
    store.update_pointer(canary=CanaryPointer(8, 0.05), shadow=9)
    assert (store.folder / POINTER).read_text() == '{"stable":7,"canary":{"version":8,"share":0.05},"shadow":9}\n'
    assert store.promote(8) == Pointer(stable=8, shadow=9), "the canary has become stable"
    assert store.promote(9, "canary", 0.25) == Pointer(stable=8, canary=CanaryPointer(9, 0.25), shadow=9)
    assert store.promote(10, "shadow") == Pointer(stable=8, canary=CanaryPointer(9, 0.25), shadow=10)
    with pytest.raises(ArtifactError):
        store.promote(9, "canary", 1.5)
    with pytest.raises(ArtifactError):
        store.update_pointer(stable=-1)
    assert store.pointer() == Pointer(stable=8, canary=CanaryPointer(9, 0.25), shadow=10)


def test_a_damaged_pointer_is_repaired_by_the_next_promotion(store: ModelStore) -> None:
    store.update_pointer(stable=1)
    (store.folder / POINTER).write_bytes(b"{")
    with pytest.raises(ArtifactError):
        store.pointer()
    assert store.promote(2) == store.pointer() == Pointer(stable=2)


def test_the_last_good_version_is_remembered(store: ModelStore, source: Path) -> None:
    for _ in range(6):
        store.publish_copy(source)
    for stable in (2, 5, 3, 6):
        store.update_pointer(stable=stable)
    store.update_pointer(shadow=4)
    assert (store.folder / HISTORY).read_bytes() == b"[2,5,3,6]"
    assert store.rollback_candidates(before=6) == [3, 5, 2, 4, 1]
    store.roll_back(3)
    assert store.rollback_candidates(before=3) == [5, 2, 1]
    assert store.pointer() == Pointer(stable=3, shadow=4)
    remove_folder(store.path(5))
    assert store.rollback_candidates(before=3) == [2, 1], "one that is gone is nothing to return to"
    store.roll_back(1)  # never stable before
    assert store.rollback_candidates(before=1) == [2]
    (store.folder / HISTORY).write_bytes(b"\xff")
    assert store.rollback_candidates() == [6, 4, 3, 2, 1]
    store.update_pointer(stable=4)
    assert (store.folder / HISTORY).read_bytes() == b"[4]"
