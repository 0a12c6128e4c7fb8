"""`gate.json`: what the gate found out about a version, kept beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from app.errors import ArtifactError
from app.registry.artifact.manifest import now
from app.registry.artifact.mapped_file import MappedFile
from app.runtime.durable_file import fsync_path, replace_file

REPORT = "gate.json"
MAX_REPORT_BYTES = 1 << 20
WITHDRAWN = "withdrawn"
"""Name of the check that stands for what a version did in service, or what an operator said of it."""


class GateCheck(msgspec.Struct, frozen=True):
    name: str
    passed: bool
    reason: str = ""
    """One short word where it did not pass, as in `ArtifactError.reason`."""
    detail: str = ""
    figures: dict[str, float] = {}
    comparison: bool = False
    """It compares with the live version or the store; a version that fails may still be wanted."""


class GateReport(msgspec.Struct, frozen=True):
    version: int
    manifest_sha256: str
    """Of the manifest that was looked at: another one under the same number was not."""
    against: int | None
    """The version that was live."""
    created_at: str
    passed: bool
    forced: bool
    """Somebody asked for it although a comparison failed."""
    seconds: float
    checks: list[GateCheck]

    @property
    def refusal(self) -> GateCheck | None:
        """Why it was refused."""
        return None if self.passed else next((check for check in self.checks if not check.passed), None)


def read_report(folder: Path) -> GateReport | None:
    """None where there is none that can be read: a version need not have one."""
    try:
        with MappedFile(folder / REPORT, MAX_REPORT_BYTES) as mapped:
            return msgspec.json.decode(mapped.view, type=GateReport)
    except (ArtifactError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def write_report(folder: Path, report: GateReport) -> None:
    """Raises ArtifactError("file")."""
    try:
        replace_file(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        fsync_path(folder)
    except OSError as error:
        raise ArtifactError("file", f"{folder / REPORT} cannot be written: {error.strerror}") from error


def write_refusal(folder: Path, version: int, manifest: bytes, refusal: GateCheck, against: int | None) -> None:
    """Add to a version's report that it is refused after all. Raises ArtifactError("file")."""
    digest = hashlib.sha256(manifest).hexdigest()
    earlier = read_report(folder)
    known = earlier is not None and earlier.manifest_sha256 == digest
    checks = [check for check in earlier.checks if check.name != WITHDRAWN] if earlier is not None and known else []
    # Ahead of those that a forced promotion let pass: the first that failed is the reason.
    write_report(folder, GateReport(version, digest, against, now(), False, False, 0.0, [refusal, *checks]))


def recorded_withdrawal(folder: Path, manifest_sha256: str) -> GateCheck | None:
    """Why the version with this manifest was taken out of service, where nobody has asked for it again since."""
    report = read_report(folder)
    if report is None or report.manifest_sha256 != manifest_sha256:
        return None
    return report.refusal if report.refusal is not None and report.refusal.name == WITHDRAWN else None


def recorded_refusal(folder: Path, manifest: bytes) -> GateCheck | None:
    """Why the gate refused the version with this manifest, where it did and nobody has asked again since."""
    report = read_report(folder)
    if report is None or report.manifest_sha256 != hashlib.sha256(manifest).hexdigest():
        return None
    return report.refusal
