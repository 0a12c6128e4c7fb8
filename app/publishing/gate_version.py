"""Gate a version with the settings' thresholds and a sample of the feature store."""

from __future__ import annotations

import contextlib

from app.errors import ArtifactError
from app.publishing.demo_features import CLEAR, is_of_demo
from app.publishing.feature_sample import read_feature_sample
from app.publishing.reporter import SILENT, Reporter
from app.registry.artifact.manifest import GoldenRequest
from app.registry.gate.gate import GateRefused, run_gate
from app.registry.gate.gate_report import OUT_OF_ROOM, GateReport
from app.registry.gate.gate_task import FeatureSample, GateLimits, GateThresholds
from app.registry.store.model_store import ModelStore
from app.settings import Settings


def gate_version(
    store: ModelStore,
    version: int,
    settings: Settings,
    reporter: Reporter = SILENT,
    *,
    forced: bool = False,
    better: bool = False,
    options: str = "",
) -> GateReport:
    """Run the gate on a published version and return its report.

    Args:
        forced: let the version pass however it compares with the live one and with the feature store.
        better: it was measured to be better than the live one on the same rows, so that it may differ from it.
        options: of `ctr promote`, by which it would have the label that it is judged for.

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
            report = run_gate(
                store, version, thresholds=thresholds, limits=limits, sample=sample, forced=forced, better=better
            )
        except GateRefused as error:
            hint = _what_to_do(store, version, error, sample, settings, forced, options)
            raise ArtifactError(error.reason, f"{error}{hint}") from error
    for check in report.checks:
        if not check.passed:
            reporter.notify(f"let pass by --force: {check.detail}")
    return report


def _what_to_do(
    store: ModelStore,
    version: int,
    refused: GateRefused,
    sample: FeatureSample | None,
    settings: Settings,
    forced: bool,
    options: str,
) -> str:
    """Say what helps against a refusal, and `--force` only where it does."""
    refusal = refused.refusal
    stays = (
        f"it stays {' and '.join(refused.labels)}, and nothing else" if refused.labels else "it stays without a label"
    )
    if not refusal.can_be_forced:
        return f"; {stays}: train it again, --force would not help"
    room = f"; give its checks more by {OUT_OF_ROOM[refusal.reason]}" if refusal.reason in OUT_OF_ROOM else ""
    if refusal.reason == "schema" and sample is not None:
        if is_of_demo(sample, settings):
            room = f"; what the store holds is the demo's: `{CLEAR}` removes it"
        else:
            room = "; load the users and items that it was trained with (`ctr load`)"
    if forced:
        return room
    return f"{room}; {stays} until `ctr promote {version}{options} --force --model {store.name}`"
