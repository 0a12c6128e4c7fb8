"""The gate: a version is tried in a process of its own before it goes live (docs/adr/0003).

The program of a version is code that was written elsewhere. It may never end, take all memory or crash, but only in
that process; the report then says why the version was refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from collections.abc import Sequence

from app.errors import ArtifactError
from app.registry.artifact.manifest import now
from app.registry.artifact.manifest_file import read_manifest_bytes
from app.registry.gate.gate_report import GateCheck, GateReport, read_report, write_report
from app.registry.gate.gate_task import FeatureSample, GateLimits, GateTask, GateThresholds
from app.registry.store.model_store import ModelStore
from app.runtime.isolated import IsolatedModule

CHECKS_MODULE = "app.registry.gate.checks"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def run_gate(
    store: ModelStore,
    version: int,
    *,
    thresholds: GateThresholds,
    limits: GateLimits,
    sample: FeatureSample | None = None,
    forced: bool = False,
    better: bool = False,
) -> GateReport:
    """Try a published version, against the stable one if there is one, and keep the report beside it.

    Args:
        sample: of the live feature store; None leaves that check out.
        forced: comparisons are made but decide nothing; what cannot be served is refused all the same.
        better: it was measured to be better than the stable one on the same rows, so that its scores may differ. False
            keeps what an earlier report of the same manifest says: the rows may be gone.

    Raises:
        GateRefused: the version is refused, with the reason of the first check that failed. If only a comparison
            refused a version that has a label, the report beside it stays as it was.
    """
    began = time.monotonic()
    live = None
    with contextlib.suppress(ArtifactError):  # a damaged pointer names no version to compare with
        stable = store.pointer().stable
        live = stable if stable != version else None
    checks, digest = _check_signature(store, version)
    better_than = live if better else _known_better_than(store, version, digest)
    live_digest, no_live_reason = None, "no version is live: nothing to compare with"
    if live is not None:
        # The live version is run here too, and the signing key may be on this machine.
        live_checks, live_digest = _check_signature(store, live)
        if live_digest is None:
            no_live_reason = f"the live version {live} cannot be compared with: {live_checks[0].detail}"
    if digest is not None:
        task = GateTask(
            folder=str(store.path(version)),
            version=version,
            manifest_sha256=digest,
            live_folder=str(store.path(live)) if live and live_digest else None,
            live_version=live,
            live_manifest_sha256=live_digest,
            no_live_reason=no_live_reason,
            sample=sample,
            thresholds=thresholds,
            limits=limits,
            better=live is not None and better_than == live,
        )
        checks += run_checks(task)
    report = GateReport(
        version=version,
        manifest_sha256=digest or "",
        against=live,
        created_at=now(),
        passed=all(check.passed or (forced and check.comparison) for check in checks),
        forced=forced,
        seconds=round(time.monotonic() - began, 3),
        checks=checks,
        better_than=better_than,
    )
    labels = _write_report(store, report) if store.path(version).is_dir() else []
    if report.refusal is not None:
        raise GateRefused(report.refusal, version, labels)
    return report


def _write_report(store: ModelStore, report: GateReport) -> list[str]:
    """Write a report beside its version, and return the version's labels. Raises ArtifactError("file").

    A version that has a label keeps the report it has if only a comparison refuses it: processes that start later would
    leave it out, while those that run go on with it.
    """
    labels: list[str] = []
    with store.lock():  # or a promotion between the two would leave a version live that its report refuses
        with contextlib.suppress(ArtifactError):  # a damaged pointer names no version
            labels = store.pointer().labels_of(report.version)
        if not (labels and report.refusal is not None and report.refusal.can_be_forced):
            write_report(store.path(report.version), report)
    return labels


def _known_better_than(store: ModelStore, version: int, digest: str | None) -> int | None:
    """Return the version that this one is known to be better than by its report, of the same manifest."""
    earlier = read_report(store.path(version))
    return earlier.better_than if earlier is not None and earlier.manifest_sha256 == digest else None


class GateRefused(ArtifactError):
    """The gate refused a version; `labels` are those that it has all the same, given before."""

    def __init__(self, refusal: GateCheck, version: int, labels: Sequence[str]) -> None:
        super().__init__(refusal.reason, f"version {version} is refused: {refusal.detail}")
        self.refusal = refusal
        self.labels = labels


def _check_signature(store: ModelStore, version: int) -> tuple[list[GateCheck], str | None]:
    """Check the manifest's signature, if the store trusts keys.

    Returns:
        The check, and the manifest's SHA-256; None for one that cannot be read or is not trusted.
    """
    folder = store.path(version)
    try:
        raw = read_manifest_bytes(folder)
        if store.trust is None:
            return [], hashlib.sha256(raw).hexdigest()
        store.trust.check_manifest(folder, raw)
    except ArtifactError as error:
        return [GateCheck("signature" if store.trust else "integrity", False, error.reason, str(error))], None
    return [GateCheck("signature", True)], hashlib.sha256(raw).hexdigest()


def run_checks(task: GateTask) -> list[GateCheck]:
    """Run the checks in their process; if it does not end well, a last check says how it ended."""
    module = IsolatedModule(CHECKS_MODULE, timeout_s=task.limits.timeout_s, environment=ONE_THREAD)
    result = module.run(task, GateCheck)
    checks = result.answers
    progress = f"the last to end was {checks[-1].name}" if checks else "none came to an end"
    if result.timed_out or result.exit_status == -signal.SIGXCPU:
        detail = f"the checks did not end within {task.limits.timeout_s:g} s; {progress}"
        return [*checks, GateCheck("time", False, "timeout", detail)]
    if result.exit_status:
        name = "memory" if "memory" in result.reason.lower() else "crash"
        return [*checks, GateCheck(name, False, name, f"the checks crashed; {progress}: {result.reason}")]
    return checks
