"""`gate.json`: what the gate found out about a version, kept beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from app.errors import ArtifactError
from app.registry.mapped import Mapped
from app.registry.writing import fsync, replace

REPORT = "gate.json"
MAX_REPORT_BYTES = 1 << 20


class Check(msgspec.Struct, frozen=True):
    name: str
    passed: bool
    reason: str = ""
    """One short word where it did not pass, as in `ArtifactError.reason`."""
    detail: str = ""
    figures: dict[str, float] = {}
    comparison: bool = False
    """It compares with the live version or the store; a version that fails may still be wanted."""


class Report(msgspec.Struct, frozen=True):
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
    checks: list[Check]

    @property
    def refusal(self) -> Check | None:
        """Why it was refused."""
        return None if self.passed else next((check for check in self.checks if not check.passed), None)


def read_report(folder: Path) -> Report | None:
    """None where there is none that can be read: a version need not have one."""
    try:
        with Mapped(folder / REPORT, MAX_REPORT_BYTES) as mapped:
            return msgspec.json.decode(mapped.view, type=Report)
    except (ArtifactError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def write_report(folder: Path, report: Report) -> None:
    """Raises ArtifactError("file")."""
    try:
        replace(folder / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
        fsync(folder)
    except OSError as error:
        raise ArtifactError("file", f"{folder / REPORT} cannot be written: {error.strerror}") from error


def refused_earlier(folder: Path, manifest: bytes) -> Check | None:
    """Why the gate refused the version with this manifest, where it did and nobody has asked again since."""
    report = read_report(folder)
    if report is None or report.manifest_sha256 != hashlib.sha256(manifest).hexdigest():
        return None
    return report.refusal
