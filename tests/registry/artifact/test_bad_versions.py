"""Twenty kinds of bad version, each pointed at while the old one serves: refused with a reason, and nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import pytest

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write_manifest
from app.registry.artifact.load import load, read_manifest
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES, FileProof
from app.registry.artifact.signing import SIGNATURE
from app.registry.gate.gate import run_gate
from app.registry.gate.gate_task import GateLimits
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.model_store import ModelStore
from tests.factories import write_tiny
from tests.registry.artifact.damages import (
    claim_newer_format,
    delete,
    punch_hole,
    put_nan_in_table,
    rename_schema_field,
    replace_by_fifo,
    replace_by_folder,
    replace_by_link,
    rewrite_manifest,
)
from tests.registry.artifact.test_signing import key_pair
from tests.registry.gate.test_gate import THRESHOLDS
from tests.registry.lifecycle.lifecycles import flip, score
from tests.registry.torchscript.variants import Endless, Slow, alike, changed, publish_model

LIVE, BAD = 2, 3
NOBODY = 65534
Damage = Callable[[ModelStore], object]


def to(damage: Callable[[Path], object]) -> Damage:
    return lambda store: damage(store.path(BAD))


def truncated(folder: Path) -> None:
    os.truncate(folder / TABLES, (folder / TABLES).stat().st_size // 2)


def empty(folder: Path) -> None:
    os.truncate(folder / PROGRAM, 0)


def a_wrong_hash(folder: Path) -> None:
    files = read_manifest(folder).files
    rewrite_manifest(folder, files=files | {PROGRAM: FileProof("0" * 64, files[PROGRAM].size)})


def of_another_version(folder: Path) -> None:
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), version=LIVE))


def without_permission(folder: Path) -> None:
    (folder / PROGRAM).chmod(0)


def unsigned(store: ModelStore) -> None:
    (store.path(BAD) / SIGNATURE).unlink()


def of_a_wrong_key(store: ModelStore) -> None:
    private, _ = key_pair(store.folder.parent.parent, "theirs")
    shutil.rmtree(store.path(BAD))
    assert publish_model(ModelStore.open(store.folder.parent, store.name, private, []), alike(seed=2)) == BAD


def replayed(store: ModelStore) -> None:
    shutil.rmtree(store.path(BAD))
    shutil.copytree(store.path(1), store.path(BAD))


DAMAGES: dict[str, tuple[str, Damage]] = {
    "truncated": ("hash", to(truncated)),
    "0 bytes": ("file", to(empty)),
    "a hole in a table": ("hash", to(punch_hole)),
    "one bit flipped": ("hash", to(lambda folder: flip(folder / PROGRAM))),
    "NaN weights": ("finite", to(put_nan_in_table)),
    "wrong schema": ("schema", to(rename_schema_field)),
    "wrong hash": ("hash", to(a_wrong_hash)),
    "no manifest": ("file", to(delete(MANIFEST))),
    "manifest of another version": ("manifest", to(of_another_version)),
    "newer format": ("format", to(claim_newer_format)),
    "symlink": ("file", to(replace_by_link(TABLES))),
    "FIFO": ("file", to(replace_by_fifo(PROGRAM))),
    "folder in a file's place": ("file", to(replace_by_folder(TABLES))),
    "no permission": ("file", to(without_permission)),
}
TRUST: dict[str, tuple[str, Damage]] = {
    "unsigned": ("unsigned", unsigned),
    "wrong key": ("signature", of_a_wrong_key),
    "replayed": ("replayed", replayed),
}
BEHAVIOUR = {
    "never-ending forward": ("timeout", lambda: alike(Endless)),
    "ten times slower": ("latency", lambda: alike(Slow)),
    "scores shifted": ("shift", lambda: changed(lambda model: model.calibration_2[1].add_(2.0))),
}


def test_they_are_twenty() -> None:
    assert len(DAMAGES | TRUST | BEHAVIOUR) == 20


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that an ordinary user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="ctr-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read any file; where the tests run as root, this part of them does not."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


class Serving:
    """Asks the live version over and over, and keeps what went wrong."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.asked = 0
        self.expected = self.ask()

    def ask(self) -> list[float]:
        stable = self.lifecycle.live.stable
        assert stable is not None
        assert stable.version == LIVE
        return score(stable)

    async def throughout(self) -> None:
        while True:
            assert self.ask() == self.expected
            self.asked += 1
            await asyncio.sleep(0.002)


async def pointed_at(store: ModelStore, allowed: AbstractContextManager[None]) -> str:
    """The reason for which a service refuses BAD, in place of LIVE, which serves throughout."""

    async def prepare(_: Artifact) -> None:
        pass

    lifecycle = Lifecycle(store, prepare=prepare, retire=lambda _: None, poll_s=60)
    await lifecycle.refresh()
    serving = Serving(lifecycle)
    asking = asyncio.create_task(serving.throughout())
    await asyncio.sleep(0.01)
    store.promote(BAD)
    with allowed:
        assert not await lifecycle.refresh()
    await asyncio.sleep(0.01)
    assert not asking.done(), asking.exception()
    asking.cancel()
    await lifecycle.stop()
    assert serving.asked > 1
    assert lifecycle.status().fallback
    (problem,) = lifecycle.status().problems
    assert (problem.label, problem.version) == ("stable", BAD)
    assert 10 < len(problem.message) < 500
    return problem.reason


def filled(store: ModelStore) -> ModelStore:
    for seed in range(LIVE + 1):
        publish_model(store, alike(seed=seed), live=seed < LIVE)
    return store


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_version(open_folder: Path, kind: str) -> None:
    store = filled(ModelStore(open_folder / "model_store", "deepfm"))
    reason, damage = DAMAGES[kind]
    damage(store)
    allowed = as_nobody() if kind == "no permission" else nullcontext()
    assert asyncio.run(pointed_at(store, allowed)) == reason


@pytest.mark.parametrize("kind", TRUST)
def test_an_untrusted_version(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("cryptography", reason="the extra `signing` is not installed")
    private, public = key_pair(tmp_path, "ours")
    store = filled(ModelStore.open(tmp_path / "model_store", "deepfm", private, [public]))
    reason, damage = TRUST[kind]
    damage(store)
    assert asyncio.run(pointed_at(store, nullcontext())) == reason


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_a_version_that_misbehaves(store: ModelStore, kind: str, request: pytest.FixtureRequest) -> None:
    """The gate refuses it, and because it did a service does too, without running it."""
    if kind != "never-ending forward":
        request.getfixturevalue("gate_in_process")
    filled(store)
    shutil.rmtree(store.path(BAD))
    reason, model = BEHAVIOUR[kind]
    publish_model(store, model())
    with pytest.raises(ArtifactError, match=f"version {BAD} is refused") as refused:
        run_gate(store, BAD, thresholds=THRESHOLDS, limits=GateLimits(6.0 if reason == "timeout" else 60.0, 4096))
    assert refused.value.reason == reason
    assert store.pointer().stable == LIVE
    assert asyncio.run(asyncio.wait_for(pointed_at(store, nullcontext()), 60)) == "gate"


def test_a_thousand_random_bit_flips(tmp_path: Path) -> None:
    """Any bit of any file, each as likely as any other."""
    write_tiny(tmp_path)
    good = {file: (tmp_path / file).read_bytes() for file in (PROGRAM, TABLES, MANIFEST)}
    dice = random.Random(7)
    for file in dice.choices(list(good), [len(raw) for raw in good.values()], k=1000):
        raw, bit = bytearray(good[file]), dice.randrange(8 * len(good[file]))
        raw[bit // 8] ^= 1 << bit % 8
        (tmp_path / file).write_bytes(raw)
        with pytest.raises(ArtifactError) as refused:
            load(tmp_path)
        assert refused.value.reason in {"hash", "manifest", "format"}
        (tmp_path / file).write_bytes(good[file])
    load(tmp_path)
