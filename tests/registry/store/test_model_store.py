"""Publishers that race, die or run out of disk leave whole versions or nothing; the pointer is always whole."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.registry.store.history import HISTORY
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, CanaryPointer, Pointer
from tests.factories import write_tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_tiny(folder)
    (folder / "report.html").write_text("<p>report</p>")
    return folder


def leftovers(store: ModelStore) -> list[str]:
    return [entry.name for entry in store.folder.glob(".tmp-*")]


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
from app.registry.store.model_store import ModelStore

store = ModelStore(Path(sys.argv[1]), "deepfm")
for _ in range(int(sys.argv[3])):
    version = store.publish_copy(Path(sys.argv[2]))
    store.update_pointer(stable=version)
    print(version, flush=True)
"""


def python(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_publishers_in_several_processes_get_distinct_numbers(store: ModelStore, source: Path) -> None:
    publishers = [python(PUBLISHER, store.folder.parent, source, 10) for _ in range(2)]
    numbers = [int(line) for publisher in publishers for line in publisher.communicate(timeout=100)[0].split()]
    assert sorted(numbers) == list(range(1, 21))
    assert store.versions() == sorted(numbers)
    assert store.pointer().stable in numbers
    assert leftovers(store) == []


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from app.registry.store.model_store import ModelStore

torch.set_num_threads(1)
store, source = ModelStore(Path(sys.argv[1]), "deepfm"), Path(sys.argv[2])
for seed in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        while True:
            store.update_pointer(stable=store.publish_copy(source))
    time.sleep(random.Random(seed).uniform(0.0, 0.12))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.faults)])
def test_a_killed_publisher_leaves_nothing_that_loads_by_mistake(store: ModelStore, source: Path, times: int) -> None:
    killer = python(KILLED, store.folder.parent, source, times)
    killer.communicate(timeout=100)
    assert killer.returncode == 0
    versions = store.versions()
    assert versions == list(range(1, len(versions) + 1))
    for version in versions:
        assert load(store.path(version), version=version).version == version
    pointer = store.pointer()  # whole, whenever it was killed
    assert pointer.stable is None or pointer.stable in versions
    assert store.publish_copy(source) == len(versions) + 1, "a dead publisher holds no lock"


class Killed(BaseException):
    pass


class Killer:
    """Stops the publisher before its nth file operation, and then before every clean-up, as SIGKILL would."""

    def __init__(self, at: int) -> None:
        self.left = at

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def killed(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*args, **kwargs)

        return killed


STEPS = [
    (shutil, "copyfile"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "chmod"),
    (Path, "write_bytes"),
    (tempfile, "mkdtemp"),
    (tempfile, "mkstemp"),
]


def test_a_publisher_stopped_at_every_step(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = False
    for at in range(100):
        store = ModelStore(tmp_path / str(at), "deepfm")
        store.update_pointer(stable=store.publish_copy(source))
        with monkeypatch.context() as patch:
            killer = Killer(at)
            for module, name in STEPS:
                patch.setattr(module, name, killer.before(getattr(module, name)))
            patch.setattr(shutil, "rmtree", lambda *_, **__: None)
            with contextlib.suppress(Killed):
                store.update_pointer(stable=store.publish_copy(source))
                finished = True
        assert store.versions() in ([1], [1, 2])
        for version in store.versions():
            load(store.path(version), version=version)
        assert store.pointer().stable in store.versions()
        if finished:
            break
        newest = store.versions()[-1]
        assert store.publish_copy(source) == newest + 1
    assert finished
    assert store.pointer().stable == 2
    assert at >= 20, "the steps are those that were meant"


def test_leftovers_are_swept_after_a_day(store: ModelStore, source: Path) -> None:
    store.folder.mkdir(parents=True)
    old, young = store.folder / ".tmp-old", store.folder / ".tmp-young"
    pointer = store.folder / ".tmp-pointer-old"
    for folder in (old, young):
        folder.mkdir()
        (folder / PROGRAM).write_bytes(b"half")
    pointer.write_bytes(b"half")
    long_ago = time.time() - 2 * 86_400
    os.utime(old, (long_ago, long_ago))
    os.utime(pointer, (long_ago, long_ago))
    store.publish_copy(source)
    assert leftovers(store) == [".tmp-young"], "a publisher may still be at work in it"


@contextlib.contextmanager
def full_disk(at: int) -> Iterator[None]:
    """No file may grow past `at` bytes: the write fails midway, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("at", [0, 10, 5_000, 100_000])
def test_a_full_disk_leaves_the_store_as_it_was(store: ModelStore, source: Path, at: int) -> None:
    store.update_pointer(stable=store.publish_copy(source))

    def train() -> int:
        with store.staging() as staged:
            write_tiny(staged, 1)
            return store.publish(staged)

    publishers: list[Callable[[], int]] = [lambda: store.publish_copy(source), train]
    for publish in publishers:
        with full_disk(at), pytest.raises(ArtifactError) as refused:
            publish()
        assert refused.value.reason == "file"
        assert (store.versions(), leftovers(store)) == ([1], [])
    if at <= 10:
        with full_disk(at), pytest.raises(ArtifactError, match="cannot write"):
            store.update_pointer(shadow=1)
    assert store.pointer() == Pointer(stable=1)
    load(store.path(1), version=1)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own in memory; the test is skipped where none may be mounted."""
    folder.mkdir()
    try:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()[:100]}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("size", ["800k", "804k", "808k", "836k"])
def test_a_disk_that_fills_up_holds_whole_versions_only(tmp_path: Path, source: Path, size: str) -> None:
    with mounted(tmp_path / "disk", size) as disk:
        store = ModelStore(disk, "deepfm")

        def fill() -> None:
            for _ in range(50):
                store.promote(store.publish_copy(source))

        with pytest.raises(ArtifactError) as refused:
            fill()
        assert refused.value.reason == "file"
        versions = store.versions()
        assert len(versions) > 2, "the disk is large enough for some"
        assert leftovers(store) == []
        for version in versions:
            load(store.path(version), version=version)
        assert store.pointer().stable in (versions[-1], versions[-1] - 1)
        for version in versions[:2]:
            shutil.rmtree(store.path(version))
        after = store.publish_copy(source)
        assert store.promote(after).stable == after == versions[-1] + 1, "where there is room again, it goes on"


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
    seen = int(reader.communicate(timeout=60)[0])
    assert reader.returncode == 0
    assert seen > 1


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
    shutil.rmtree(store.path(5))
    assert store.rollback_candidates(before=3) == [2, 1], "one that is gone is nothing to return to"
    store.roll_back(1)  # never stable before
    assert store.rollback_candidates(before=1) == [2]
    (store.folder / HISTORY).write_bytes(b"\xff")
    assert store.rollback_candidates() == [6, 4, 3, 2, 1]
    store.update_pointer(stable=4)
    assert (store.folder / HISTORY).read_bytes() == b"[4]"
