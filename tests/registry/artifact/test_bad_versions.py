"""Twenty kinds of bad version, each made live while the old one serves: each is refused, and the old one goes on."""

from __future__ import annotations

import asyncio
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
from app.registry.artifact.load import load
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES, FileProof
from app.registry.artifact.manifest_file import read_manifest, write_manifest
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
from tests.registry.torchscript.variants import Endless, Slow, modified_model, publish_model, retrained_model
from tests.users import as_nobody

LIVE, BAD = 2, 3
NOBODY = 65534
Damage = Callable[[ModelStore], object]


def in_folder(damage: Callable[[Path], object]) -> Damage:
    return lambda store: damage(store.path(BAD))


def truncate_tables(folder: Path) -> None:
    os.truncate(folder / TABLES, (folder / TABLES).stat().st_size // 2)


def empty_program(folder: Path) -> None:
    os.truncate(folder / PROGRAM, 0)


def write_wrong_hash(folder: Path) -> None:
    files = read_manifest(folder).files
    rewrite_manifest(folder, files=files | {PROGRAM: FileProof("0" * 64, files[PROGRAM].size)})


def claim_another_version(folder: Path) -> None:
    write_manifest(folder, msgspec.structs.replace(read_manifest(folder), version=LIVE))


def remove_permission(folder: Path) -> None:
    (folder / PROGRAM).chmod(0)


def remove_signature(store: ModelStore) -> None:
    (store.path(BAD) / SIGNATURE).unlink()


def sign_with_wrong_key(store: ModelStore) -> None:
    private, _ = key_pair(store.folder.parent.parent, "theirs")
    shutil.rmtree(store.path(BAD))
    assert publish_model(ModelStore.open(store.folder.parent, store.name, private, []), retrained_model(seed=2)) == BAD


def replay_version_1(store: ModelStore) -> None:
    shutil.rmtree(store.path(BAD))
    shutil.copytree(store.path(1), store.path(BAD))


DAMAGES: dict[str, tuple[str, Damage]] = {
    "truncated": ("hash", in_folder(truncate_tables)),
    "0 bytes": ("file", in_folder(empty_program)),
    "a hole in a table": ("hash", in_folder(punch_hole)),
    "one bit flipped": ("hash", in_folder(lambda folder: flip(folder / PROGRAM))),
    "NaN weights": ("finite", in_folder(put_nan_in_table)),
    "wrong schema": ("schema", in_folder(rename_schema_field)),
    "wrong hash": ("hash", in_folder(write_wrong_hash)),
    "no manifest": ("file", in_folder(delete(MANIFEST))),
    "manifest of another version": ("manifest", in_folder(claim_another_version)),
    "newer format": ("format", in_folder(claim_newer_format)),
    "symlink": ("file", in_folder(replace_by_link(TABLES))),
    "FIFO": ("file", in_folder(replace_by_fifo(PROGRAM))),
    "folder in a file's place": ("file", in_folder(replace_by_folder(TABLES))),
    "no permission": ("file", in_folder(remove_permission)),
}
TRUST: dict[str, tuple[str, Damage]] = {
    "unsigned": ("unsigned", remove_signature),
    "wrong key": ("signature", sign_with_wrong_key),
    "replayed": ("replayed", replay_version_1),
}
BEHAVIOUR = {
    "never-ending forward": ("timeout", lambda: retrained_model(Endless)),
    "ten times slower": ("latency", lambda: retrained_model(Slow)),
    "scores shifted": ("shift", lambda: modified_model(lambda model: model.calibration_2[1].add_(2.0))),
}


def test_they_are_twenty() -> None:
    assert len(DAMAGES | TRUST | BEHAVIOUR) == 20


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="ctr-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Traffic:
    """Requests to the live version, which has to answer all of them alike."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.requests = 0
        self.expected = self.request()

    def request(self) -> list[float]:
        stable = self.lifecycle.live.stable
        assert stable is not None
        assert stable.version == LIVE
        return score(stable)

    async def run(self) -> None:
        while True:
            assert self.request() == self.expected
            self.requests += 1
            await asyncio.sleep(0.002)


async def refusal_reason(store: ModelStore, allowed: AbstractContextManager[None]) -> str:
    """Point a service from LIVE to BAD, and return the reason for which it refuses; LIVE serves throughout."""

    async def prepare(_: Artifact) -> None:
        pass

    lifecycle = Lifecycle(store, prepare=prepare, retire=lambda _: None, poll_s=60)
    await lifecycle.refresh()
    traffic = Traffic(lifecycle)
    requests = asyncio.create_task(traffic.run())
    await asyncio.sleep(0.01)
    store.promote(BAD)
    with allowed:
        assert not await lifecycle.refresh()
    await asyncio.sleep(0.01)
    assert not requests.done(), requests.exception()
    requests.cancel()
    await lifecycle.stop()
    assert traffic.requests > 1
    assert lifecycle.status().fallback
    (problem,) = lifecycle.status().problems
    assert (problem.label, problem.version) == ("stable", BAD)
    assert 10 < len(problem.message) < 500
    return problem.reason


def fill_store(store: ModelStore) -> ModelStore:
    for seed in range(LIVE + 1):
        publish_model(store, retrained_model(seed=seed), live=seed < LIVE)
    return store


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_version(open_folder: Path, kind: str) -> None:
    store = fill_store(ModelStore(open_folder / "model_store", "deepfm"))
    reason, damage = DAMAGES[kind]
    damage(store)
    allowed = as_nobody() if kind == "no permission" else nullcontext()
    assert asyncio.run(refusal_reason(store, allowed)) == reason


@pytest.mark.parametrize("kind", TRUST)
def test_an_untrusted_version(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("cryptography", reason="the extra `signing` is not installed")
    private, public = key_pair(tmp_path, "ours")
    store = fill_store(ModelStore.open(tmp_path / "model_store", "deepfm", private, [public]))
    reason, damage = TRUST[kind]
    damage(store)
    assert asyncio.run(refusal_reason(store, nullcontext())) == reason


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_a_version_that_misbehaves(store: ModelStore, kind: str, request: pytest.FixtureRequest) -> None:
    """The gate refuses it, and so does a service, without running it, because the gate did."""
    if kind != "never-ending forward":
        request.getfixturevalue("gate_in_process")
    fill_store(store)
    shutil.rmtree(store.path(BAD))
    reason, model = BEHAVIOUR[kind]
    publish_model(store, model())
    with pytest.raises(ArtifactError, match=f"version {BAD} is refused") as refused:
        run_gate(store, BAD, thresholds=THRESHOLDS, limits=GateLimits(6.0 if reason == "timeout" else 60.0, 4096))
    assert refused.value.reason == reason
    assert store.pointer().stable == LIVE
    assert asyncio.run(asyncio.wait_for(refusal_reason(store, nullcontext()), 60)) == "gate"


def test_a_thousand_random_bit_flips(tmp_path: Path) -> None:
    """Every bit of every file is equally likely."""
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
