"""`gate.json`: the gate's report on a version, kept beside it, and refusals since."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from app.errors import ArtifactError
from app.registry.artifact.manifest import now
from app.registry.artifact.version_file import read_version_file
from app.runtime.durable_file import fsync_path, replace_file
from app.runtime.read_only import opened_for_writing

REPORT = "gate.json"
MAX_REPORT_BYTES = 1 << 20
OUT_OF_ROOM = {"timeout": "CTR_GATE_TIMEOUT_S", "memory": "CTR_GATE_MEMORY_MB"}
"""Reasons that say nothing of the version itself, and the settings that give its checks more room."""
WITHDRAWN = "withdrawn"
"""The name of the check that says why a version was taken out of service, by its monitor or by an operator."""


class GateCheck(msgspec.Struct, frozen=True):
    """One thing that was checked about a version."""

    name: str
    passed: bool
    reason: str = ""
    """One short word if the check did not pass, as in `ArtifactError.reason`."""
    detail: str = ""
    figures: dict[str, float] = {}
    comparison: bool = False
    """True if it compares with the live version or the feature store; a version that fails may still be wanted."""

    @property
    def can_be_forced(self) -> bool:
        """Whether judging the version again by force may let it pass: what cannot be served is refused all the same."""
        return self.comparison or self.name == WITHDRAWN or self.reason in OUT_OF_ROOM


class GateReport(msgspec.Struct, frozen=True):
    """All checks of a version, and the decision."""

    version: int
    manifest_sha256: str
    """The hash of the checked manifest: a report does not apply to another manifest under the same number."""
    against: int | None
    """The version that was live; None if none was."""
    created_at: str
    passed: bool
    forced: bool
    """True if failed comparisons were to be ignored."""
    seconds: float
    checks: list[GateCheck]
    better_than: int | None = None
    """The version that it was measured to be better than on the same rows, then or at an earlier judgement."""

    @property
    def refusal(self) -> GateCheck | None:
        """The first check that failed, if the version is refused."""
        return None if self.passed else next((check for check in self.checks if not check.passed), None)


def read_report(folder: Path) -> GateReport | None:
    """Read a version's report; None if there is none or it cannot be read, since no version needs one."""
    try:
        return msgspec.json.decode(read_version_file(folder / REPORT, MAX_REPORT_BYTES), type=GateReport)
    except (ArtifactError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def write_report(folder: Path, report: GateReport) -> None:
    """Replace a version's report. The caller holds the store's lock. Raises ArtifactError("file")."""
    try:
        with opened_for_writing(folder):
            replace_file(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
            fsync_path(folder)
    except OSError as error:
        raise ArtifactError("file", f"{folder / REPORT} cannot be written: {error.strerror}") from error


def write_refusal(folder: Path, version: int, manifest: bytes, refusal: GateCheck, against: int | None) -> None:
    """Add to a version's report that it is refused after all.

    Args:
        manifest: the bytes of its manifest.
        against: the version that was live.

    Raises:
        ArtifactError: `file` if the report cannot be written.
    """
    digest = hashlib.sha256(manifest).hexdigest()
    earlier = read_report(folder)
    checks: list[GateCheck] = []
    if earlier is not None and earlier.manifest_sha256 == digest:
        checks = [check for check in earlier.checks if check.name != WITHDRAWN]
    # Ahead of those that a forced promotion let pass: the first that failed is the reason.
    write_report(folder, GateReport(version, digest, against, now(), False, False, 0.0, [refusal, *checks]))


def recorded_withdrawal(folder: Path, manifest_sha256: str) -> GateCheck | None:
    """Return why the version with this manifest was taken out of service, unless it was judged again since."""
    report = read_report(folder)
    if report is None or report.manifest_sha256 != manifest_sha256:
        return None
    return report.refusal if report.refusal is not None and report.refusal.name == WITHDRAWN else None


def recorded_refusal(folder: Path, manifest: bytes) -> GateCheck | None:
    """Return why the version with this manifest was refused, unless it was judged again since."""
    report = read_report(folder)
    if report is None or report.manifest_sha256 != hashlib.sha256(manifest).hexdigest():
        return None
    return report.refusal
