"""Only what a trusted key signed goes live, and going back to an older version takes a signature too."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from app.errors import ArtifactError, ConfigError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.artifact.manifest import MANIFEST, PROGRAM
from app.registry.artifact.manifest_file import write_manifest
from app.registry.artifact.signing import SIGNATURE, Signer, Trust
from app.registry.gate.gate import run_gate
from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.gate.gate_task import GateLimits, GateThresholds
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, Pointer
from tests.factories import publish_tiny

THRESHOLDS, LIMITS = GateThresholds(1.3, 0.5, 5.0, 0.3), GateLimits(60.0, 4096)

pytest.importorskip("cryptography", reason="the extra `signing` is not installed")


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Write PEM files of a private and its public key, as openssl does, and return their paths."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*plain))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "ours")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> ModelStore:
    return ModelStore.open(tmp_path / "model_store", "deepfm", keys[0], [keys[1]])


def open_as_service(signed: ModelStore, keys: tuple[Path, Path]) -> ModelStore:
    """Open the store as a service does, without the private key."""
    return ModelStore.open(signed.folder.parent, signed.name, None, [keys[1]])


def open_without_keys(signed: ModelStore) -> ModelStore:
    """Open the store as an intruder does, who may write there but has no key."""
    return ModelStore(signed.folder.parent, signed.name)


def refusal(store: ModelStore, version: int) -> str:
    with pytest.raises(ArtifactError) as refused:
        store.load(version)
    assert "\n" not in str(refused.value)
    return refused.value.reason


def test_a_signed_version_loads_and_any_trusted_key_will_do(
    signed: ModelStore, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    version = publish_tiny(signed)
    assert (signed.path(version) / SIGNATURE).stat().st_size == 64
    old, new = key_pair(tmp_path, "old")[1], keys[1]
    trusting = ModelStore.open(signed.folder.parent, signed.name, None, [old, new])
    assert trusting.load(version).version == trusting.manifest(version).version == version
    assert open_without_keys(signed).load(version).version == version, "whoever asks for no signature needs none"


def test_an_unsigned_version_is_refused_before_it_is_parsed(signed: ModelStore) -> None:
    version = publish_tiny(open_without_keys(signed))
    (signed.path(version) / MANIFEST).write_bytes(b"[" * 200_000)
    assert refusal(signed, version) == "unsigned"
    with pytest.raises(ArtifactError, match="not signed"):
        signed.manifest(version)


def change_file(change: Callable[[bytes], bytes], file: str = SIGNATURE) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_bytes(change((folder / file).read_bytes()))


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("signature", change_file(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]))),
        ("signature", change_file(lambda raw: raw + b"\0")),
        ("signature", change_file(lambda raw: raw[:63])),
        ("unsigned", change_file(lambda raw: b"")),
        ("signature", change_file(lambda raw: bytes(64))),
        ("signature", change_file(lambda raw: raw + b" ", MANIFEST)),
        ("signature", lambda folder: write_manifest(folder, msgspec.structs.replace(_manifest(folder), metrics={}))),
        ("hash", change_file(lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:], PROGRAM)),
    ],
)
def test_what_was_changed_after_signing_is_refused(
    signed: ModelStore, reason: str, change: Callable[[Path], object]
) -> None:
    version = publish_tiny(signed)
    change(signed.path(version))
    assert refusal(signed, version) == reason


def _manifest(folder: Path) -> msgspec.Struct:
    from app.registry.artifact.manifest_file import read_manifest

    return read_manifest(folder)


def test_another_key_is_refused(signed: ModelStore, tmp_path: Path) -> None:
    theirs = ModelStore.open(signed.folder.parent, signed.name, key_pair(tmp_path, "theirs")[0], [])
    assert refusal(signed, publish_tiny(theirs)) == "signature"


def test_a_signed_version_in_anothers_place_is_refused(signed: ModelStore, keys: tuple[Path, Path]) -> None:
    publish_tiny(signed)
    shutil.copytree(signed.path(1), signed.path(2))
    assert refusal(signed, 2) == "replayed"
    other = ModelStore.open(signed.folder.parent, "other", *keys[:1], [keys[1]])
    shutil.copytree(signed.path(1), other.path(1))
    assert refusal(other, 1) == "replayed"


class Service:
    """A lifecycle that follows a signed store."""

    def __init__(self, store: ModelStore) -> None:
        async def prepare(_: Artifact) -> None:
            pass

        self.lifecycle = Lifecycle(store, prepare=prepare, retire=lambda _: None, poll_s=60, grace_s=0)

    async def stable(self) -> int:
        await self.lifecycle.refresh()
        return self.lifecycle.status().versions["stable"]

    def reason(self) -> str:
        return "".join(problem.reason for problem in self.lifecycle.status().problems)


def test_an_old_version_needs_a_newly_signed_pointer(signed: ModelStore, keys: tuple[Path, Path]) -> None:
    async def test() -> None:
        service = Service(open_as_service(signed, keys))
        pointers = []
        for seed in range(3):
            publish_tiny(signed, seed)
            pointers.append((signed.folder / POINTER).read_bytes())
            assert await service.stable() == seed + 1
        for replayed in pointers[:2]:
            (signed.folder / POINTER).write_bytes(replayed)
            assert (await service.stable(), service.reason()) == (3, "replayed")
        for older in (1, 2):  # 2 is still loaded: that must not make a difference
            open_without_keys(signed).update_pointer(stable=older)
            assert (await service.stable(), service.reason()) == (3, "replayed")
        signed.promote(3)
        assert (await service.stable(), service.reason()) == (3, "")
        signed.roll_back(2)
        assert (await service.stable(), service.reason()) == (2, "")
        open_without_keys(signed).update_pointer(stable=1)
        assert (await service.stable(), service.reason()) == (2, "replayed")
        publish_tiny(signed)
        open_without_keys(signed).update_pointer(stable=4)
        assert (await service.stable(), service.reason()) == (4, ""), "forward needs no signed pointer"

    asyncio.run(test())


def test_a_pointer_of_another_model_allows_nothing(signed: ModelStore, keys: tuple[Path, Path]) -> None:
    async def test() -> None:
        other = ModelStore.open(signed.folder.parent, "other", *keys[:1], [keys[1]])
        for seed in range(2):
            publish_tiny(signed, seed)
        service = Service(open_as_service(signed, keys))
        assert await service.stable() == 2
        publish_tiny(other)
        shutil.copyfile(other.folder / POINTER, signed.folder / POINTER)
        assert (await service.stable(), service.reason()) == (2, "replayed")

    asyncio.run(test())


def test_the_serial_grows_even_within_a_second_and_over_a_lost_pointer(signed: ModelStore) -> None:
    serials = []
    for version in range(1, 5):
        seal = signed.promote(version).seal
        assert seal is not None
        serials.append(seal.serial)
    assert serials == sorted(set(serials))
    (signed.folder / POINTER).unlink()
    assert signed.promote(1).seal is not None
    assert open_without_keys(signed).promote(2).seal is None


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"CTR_SIGNING_KEY: .*key\.pem"):
        Signer.read(path)
    with pytest.raises(ConfigError, match=r"CTR_TRUSTED_KEYS: .*key\.pem"):
        Trust.read([path])


def test_keys_of_another_kind_are_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "ec.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*plain))
    with pytest.raises(ConfigError, match="not an Ed25519 key"):
        Signer.read(path)


@pytest.mark.usefixtures("gate_in_process")
def test_the_gate_runs_no_live_version_that_is_not_trusted(signed: ModelStore) -> None:
    """It runs where the signing key is: there of all places nothing unsigned may."""
    publish_tiny(open_without_keys(signed))
    version = publish_tiny(signed, labels=())
    report = run_gate(signed, version, thresholds=THRESHOLDS, limits=LIMITS)
    assert report.passed
    checks = {check.name: check.detail for check in report.checks}
    assert "shift" not in checks
    assert "1 cannot be compared with: the manifest is not signed" in checks["live"]
    with pytest.raises(ArtifactError) as refused:
        run_gate(signed, 1, thresholds=THRESHOLDS, limits=LIMITS, forced=True)
    assert refused.value.reason == "unsigned"


def test_a_manifest_that_changed_since_it_was_checked_is_not_loaded(signed: ModelStore) -> None:
    version = publish_tiny(signed)
    digest = load(signed.path(version)).manifest_sha256
    assert load(signed.path(version), manifest_sha256=digest).manifest_sha256 == digest
    write_manifest(signed.path(version), msgspec.structs.replace(signed.manifest(version), metrics={}))
    with pytest.raises(ArtifactError, match="changed while") as refused:
        load(signed.path(version), manifest_sha256=digest)
    assert refused.value.reason == "hash"


def test_a_service_without_the_private_key_takes_a_canary_out_and_stays_where_it_was_rolled_back_to(
    signed: ModelStore, keys: tuple[Path, Path]
) -> None:
    async def test() -> None:
        def service() -> Lifecycle:
            async def prepare(_: Artifact) -> None:
                pass

            return Lifecycle(open_as_service(signed, keys), prepare=prepare, retire=lambda _: None, grace_s=0.0)

        for seed in range(2):
            publish_tiny(signed, seed)
        one, other = service(), service()
        for lifecycle in (one, other):
            await lifecycle.refresh()
        signed.roll_back(1)
        publish_tiny(signed, 2, labels=("canary",), share=0.5)
        for lifecycle in (one, other):
            await lifecycle.refresh()
            assert lifecycle.status().versions == {"stable": 1, "canary": 3}
        await one.withdraw(3, GateCheck(WITHDRAWN, False, "shift", "its mean score is 2.00 times stable's"))
        assert signed.pointer() == Pointer(1), "nobody signed it"
        for lifecycle in (one, other, restarted := service()):
            await lifecycle.refresh()
            assert lifecycle.status().versions == {"stable": 1}
        assert [problem.reason for problem in other.status().problems] == ["shift"]
        assert restarted.status().problems == ()
        for lifecycle in (one, other, restarted):
            await lifecycle.stop()

    asyncio.run(asyncio.wait_for(test(), 60))
