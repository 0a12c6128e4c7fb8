"""Gate a version with the settings' thresholds and a sample of the feature store."""

from __future__ import annotations

import contextlib

from app.errors import ArtifactError
from app.publishing.feature_sample import read_feature_sample
from app.publishing.reporter import SILENT, Reporter
from app.registry.artifact.manifest import GoldenRequest
from app.registry.gate.gate import run_gate
from app.registry.gate.gate_report import GateReport
from app.registry.gate.gate_task import GateLimits, GateThresholds
from app.registry.store.model_store import ModelStore
from app.settings import Settings


def gate_version(
    store: ModelStore, version: int, settings: Settings, reporter: Reporter = SILENT, *, forced: bool = False
) -> GateReport:
    """Run the gate on a published version and return its report.

    Args:
        forced: let the version pass however it compares with the live one and with the feature store.

    Raises:
        ArtifactError: the gate refused the version; the message names the command that has it judged again.
    """
    thresholds = GateThresholds(
        ctr_ratio=settings.gate_ctr_ratio,
        rank_correlation=settings.gate_rank_correlation,
        latency_ratio=settings.gate_latency_ratio,
        known_keys=settings.gate_known_keys,
    )
    limits = GateLimits(timeout_s=settings.gate_timeout_s, memory_mb=settings.gate_memory_mb)
    with reporter.busy(f"checking version {version}"):
        golden: list[GoldenRequest] = []
        with contextlib.suppress(ArtifactError):  # the gate says what is wrong with it
            golden = store.manifest(version).golden
        sample = read_feature_sample(settings, reporter, golden)
        try:
            report = run_gate(store, version, thresholds=thresholds, limits=limits, sample=sample, forced=forced)
        except ArtifactError as error:
            hint = f"; it stays without a label until `ctr promote {version} --force --model {store.name}`"
            raise ArtifactError(error.reason, f"{error}{'' if forced else hint}") from error
    for check in report.checks:
        if not check.passed:
            reporter.notify(f"let pass by --force: {check.detail}")
    return report
