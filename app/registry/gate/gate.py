"""The gate: a version is tried in a process of its own before it goes live (docs/adr/0003).

The program of a version is code that was written elsewhere. It may never end, take all memory or crash; whatever it
does, it does to that process, and what is left is a report that says why the version was refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from app.errors import ArtifactError
from app.registry.artifact.load import read_manifest_bytes
from app.registry.artifact.manifest import now
from app.registry.gate.gate_report import GateCheck, GateReport, write_report
from app.registry.store.model_store import ModelStore

PACKAGE_ROOT = str(Path(__file__).parents[3])
MAX_DETAIL = 300


class GateThresholds(msgspec.Struct, frozen=True):
    """What a version may differ by from the live one; advice is in `app.settings`."""

    ctr_ratio: float
    rank_correlation: float
    latency_ratio: float
    known_keys: float


class GateLimits(msgspec.Struct, frozen=True):
    timeout_s: float
    memory_mb: int
    """Beyond what an idle process has."""


class FeatureSample(msgspec.Struct, frozen=True):
    """Entities of the live feature store, raw, by id."""

    users: dict[str, dict[str, str]] = {}
    items: dict[str, dict[str, str]] = {}


class GateTask(msgspec.Struct, frozen=True):
    """What the process is told."""

    folder: str
    version: int
    manifest_sha256: str
    live_folder: str | None
    live_version: int | None
    live_manifest_sha256: str | None
    no_live: str
    """Why there is no live version to compare with, where there is none."""
    sample: FeatureSample | None
    thresholds: GateThresholds
    limits: GateLimits


def run_gate(
    store: ModelStore,
    version: int,
    *,
    thresholds: GateThresholds,
    limits: GateLimits,
    sample: FeatureSample | None = None,
    forced: bool = False,
) -> GateReport:
    """Try a published version, against the stable one if there is one, and keep the report beside it.

    Args:
        sample: of the live feature store; None leaves that check out.
        forced: comparisons are made but decide nothing; what cannot be served is refused all the same.

    Raises ArtifactError where the version is refused, with the reason of the first check that failed.
    """
    began = time.monotonic()
    live = None
    with contextlib.suppress(ArtifactError):  # a damaged pointer names no version to compare with
        stable = store.pointer().stable
        live = stable if stable != version else None
    checks, digest = _trusted(store, version)
    live_digest, no_live = None, "no version is live: nothing to compare with"
    if live is not None:
        doubts, live_digest = _trusted(store, live)  # it is run here too, where the signing key may be
        if live_digest is None:
            no_live = f"the live version {live} cannot be compared with: {doubts[0].detail}"
    if digest is not None:
        task = GateTask(
            folder=str(store.path(version)),
            version=version,
            manifest_sha256=digest,
            live_folder=str(store.path(live)) if live and live_digest else None,
            live_version=live,
            live_manifest_sha256=live_digest,
            no_live=no_live,
            sample=sample,
            thresholds=thresholds,
            limits=limits,
        )
        checks += _tried(task)
    report = GateReport(
        version=version,
        manifest_sha256=digest or "",
        against=live,
        created_at=now(),
        passed=all(check.passed or (forced and check.comparison) for check in checks),
        forced=forced,
        seconds=round(time.monotonic() - began, 3),
        checks=checks,
    )
    if store.path(version).is_dir():
        write_report(store.path(version), report)
    if report.refusal is not None:
        raise ArtifactError(report.refusal.reason, f"version {version} is refused: {report.refusal.detail}")
    return report


def _trusted(store: ModelStore, version: int) -> tuple[list[GateCheck], str | None]:
    """The manifest's signature, where one is asked for, and its hash; None where it cannot be trusted."""
    folder = store.path(version)
    try:
        raw = read_manifest_bytes(folder)
        if store.trust is None:
            return [], hashlib.sha256(raw).hexdigest()
        store.trust.check_manifest(folder, raw)
    except ArtifactError as error:
        return [GateCheck("signature" if store.trust else "integrity", False, error.reason, str(error))], None
    return [GateCheck("signature", True)], hashlib.sha256(raw).hexdigest()


def _tried(task: GateTask) -> list[GateCheck]:
    """What the process reported, and what became of it."""
    command = [sys.executable, "-P", "-W", "ignore", "-m", "app.registry.gate.checks"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CTR_")}
    environment |= {"PYTHONPATH": PACKAGE_ROOT, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    # A session of its own, so that what it may have started ends with it.
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
    ) as process:
        timed_out = False
        try:
            out, problems = process.communicate(msgspec.json.encode(task), task.limits.timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
            _end(process)
            out, problems = process.communicate()
        except BaseException:
            _end(process)
            raise
    checks = []
    for line in out.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):  # the last line of a killed process
            checks.append(msgspec.json.decode(line, type=GateCheck))
    if timed_out or process.returncode == -signal.SIGXCPU:
        detail = f"the checks did not end within {task.limits.timeout_s:g} s; {_after(checks)}"
        checks.append(GateCheck("time", False, "timeout", detail))
    elif process.returncode:
        said = problems.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        memory = "memory" in said[-1].lower()
        detail = f"the checks crashed; {_after(checks)}: {said[-1][:MAX_DETAIL]}"
        checks.append(GateCheck("memory" if memory else "crash", False, "memory" if memory else "crash", detail))
    return checks


def _after(checks: list[GateCheck]) -> str:
    return f"the last to end was {checks[-1].name}" if checks else "none came to an end"


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
