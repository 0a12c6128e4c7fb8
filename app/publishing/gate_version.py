"""What publish, promote and train share: the store with its keys, the gate with its settings, pruning."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from app.commands.output import console
from app.errors import ArtifactError, CtrError
from app.settings import Settings

if TYPE_CHECKING:
    from app.registry.gate.gate import FeatureSample
    from app.registry.gate.gate_report import GateReport
    from app.registry.store.model_store import ModelStore

USERS, ITEMS = 32, 256
SCAN_COUNT, MAX_SCANS = 1000, 100


def open_store(settings: Settings) -> ModelStore:
    """Raises ConfigError."""
    from app.registry.store.model_store import ModelStore

    return ModelStore.open(settings.model_store, settings.model, settings.signing_key, settings.trusted_keys)


def gate_version(store: ModelStore, version: int, *, settings: Settings, forced: bool = False) -> GateReport:
    """Judge a version with a sample of the feature store, where one is reachable. Raises ArtifactError: refused."""
    from app.registry.gate.gate import GateLimits, GateThresholds, run_gate

    thresholds = GateThresholds(
        settings.gate_ctr_ratio, settings.gate_rank_correlation, settings.gate_latency_ratio, settings.gate_known_keys
    )
    limits = GateLimits(settings.gate_timeout_s, settings.gate_memory_mb)
    with console.status(f"checking version {version}"):
        sample = _sample(settings)
        try:
            report = run_gate(store, version, thresholds=thresholds, limits=limits, sample=sample, forced=forced)
        except ArtifactError as error:
            again = (
                ""
                if forced
                else f"; it stays without a label until `ctr promote {version} --force --model {store.name}`"
            )
            raise ArtifactError(error.reason, f"{error}{again}") from error
    for check in report.checks:
        if not check.passed:
            console.print(f"let pass by --force: {check.detail}", markup=False)
    return report


def check_not_refused(store: ModelStore, version: int) -> None:
    """Raises ArtifactError where the gate refused it before; what cannot be read is the gate's to say."""
    from app.registry.artifact.load import read_manifest_bytes
    from app.registry.gate.gate_report import recorded_refusal

    refused = None
    with contextlib.suppress(ArtifactError):
        refused = recorded_refusal(store.path(version), read_manifest_bytes(store.path(version)))
    if refused is not None:
        raise ArtifactError(
            refused.reason, f"version {version} was refused: {refused.detail}; --force has it judged again"
        )


def prune_old_versions(store: ModelStore, settings: Settings) -> list[int]:
    """The versions that were removed."""
    from app.registry.store.pruning import prune

    removed = prune(store, settings.keep_versions)
    if removed:
        console.print(f"pruned {', '.join(map(str, removed))}: CTR_KEEP_VERSIONS is {settings.keep_versions}")
    return removed


def _sample(settings: Settings) -> FeatureSample | None:
    """Some users and items; None where there is no store, or it holds neither."""
    import redis

    from app.features.loading.embedded_valkey import EmbeddedValkey
    from app.features.loading.loader import open_client
    from app.registry.gate.gate import FeatureSample

    folder = settings.data_dir / "valkey"
    if not settings.redis_url and not any((folder / name).exists() for name in ("server.json", "features.rdb")):
        return None
    try:
        with contextlib.ExitStack() as stack:
            url = settings.redis_url or stack.enter_context(EmbeddedValkey(folder)).url
            client = stack.enter_context(open_client(url))
            sample = FeatureSample(_some(client, settings.user_key, USERS), _some(client, settings.item_key, ITEMS))
    except (redis.RedisError, CtrError) as error:
        console.print(f"not compared with the feature store: {error}", markup=False)
        return None
    return sample if sample.users or sample.items else None


def _some(client: Any, template: str, count: int) -> dict[str, dict[str, str]]:
    """Hashes under these keys, by id. The scan is cut short where such keys are rare among others."""
    from app.features.store import KeyTemplate

    keys, found, cursor = KeyTemplate(template), [], 0
    for _ in range(MAX_SCANS):
        cursor, page = client.scan(cursor, match=keys.pattern, count=SCAN_COUNT, _type="HASH")
        found += page
        if not cursor or len(found) >= count:
            break
    pipeline = client.pipeline(transaction=False)
    for key in found[:count]:
        pipeline.hgetall(key)
    hashes = {}
    for key, raw in zip(found, pipeline.execute(), strict=False):
        entity = keys.id(key.decode(errors="replace"))
        if entity is not None:
            hashes[entity] = {_text(name): _text(value) for name, value in raw.items()}
    return hashes


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
