"""Publishers that die or run out of disk leave whole versions or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import ArtifactError
from app.registry.artifact.load import load
from app.registry.artifact.manifest import PROGRAM
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.runtime.read_only import remove_folder
from tests.factories import write_tiny
from tests.registry.store.publishers import leftovers, python

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from app.registry.store.model_store import ModelStore

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
    killer.communicate(timeout=900)
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


def leave_some(store: ModelStore, *names: str) -> None:
    for name in names:
        (store.folder / name).mkdir(parents=True)
        (store.folder / name / PROGRAM).write_bytes(b"half")
    (store.folder / ".tmp-pointer-abc").write_bytes(b"half")


def test_the_next_publisher_sweeps_what_killed_ones_left(store: ModelStore, source: Path) -> None:
    with store.staging() as at_work:
        leave_some(store, ".tmp-one", ".tmp-withdrawn-3")
        store.publish_copy(source)
        assert leftovers(store) == [at_work.name], "a publisher is still at work in it"
    assert leftovers(store) == []


def test_where_there_are_no_locks_leftovers_are_swept_after_a_day(
    store: ModelStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, "no locks available")

    leave_some(store, ".tmp-old", ".tmp-young")
    long_ago = time.time() - 2 * 86_400
    os.utime(store.folder / ".tmp-old", (long_ago, long_ago))
    monkeypatch.setattr("app.runtime.file_lock.try_lock", no_locks)
    with store.staging():
        assert ".tmp-young" in leftovers(store)
        assert ".tmp-old" not in leftovers(store)


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
            remove_folder(store.path(version))
        after = store.publish_copy(source)
        assert store.promote(after).stable == after == versions[-1] + 1, "where there is room again, it goes on"
