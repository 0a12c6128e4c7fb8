"""The gate's process: `python -m app.registry.gate.checks`, a GateTask on stdin, a GateCheck a line on stdout.

The process ends after the first failure that is no comparison: later checks presume a version that works.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch

from app.errors import ArtifactError
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import ArtifactLoader
from app.registry.gate.gate_report import GateCheck
from app.registry.gate.gate_task import FeatureSample, GateTask
from app.registry.gate.latency import check_latency
from app.registry.gate.scores import check_shift, check_values
from app.registry.gate.served_version import Entities, ServedVersion
from app.registry.gate.vocabulary import check_vocabulary
from app.runtime.isolated import answer_stream, limit_resources, read_request

MAX_USERS, MAX_ITEMS = 64, 512


def main() -> None:
    """Read the task and write each check as soon as it is made."""
    task = read_request(GateTask)
    with answer_stream() as answer:
        limit_resources(memory_mb=task.limits.memory_mb, processor_s=task.limits.timeout_s)
        torch.set_num_threads(1)
        with torch.inference_mode():
            for check in checks(task):
                answer(check)
                if not check.passed and not check.comparison:
                    return


def checks(task: GateTask) -> Iterator[GateCheck]:
    """Make the checks in order; the caller stops after a failure that makes the rest pointless."""
    loader = ArtifactLoader()
    started = time.perf_counter()
    try:
        new = loader.load(Path(task.folder), version=task.version, manifest_sha256=task.manifest_sha256)
    except ArtifactError as error:
        yield GateCheck("integrity", False, error.reason, str(error))
        return
    yield GateCheck("integrity", True, figures={"seconds": round(time.perf_counter() - started, 3)})
    if task.sample is not None:
        yield check_vocabulary(new, task.sample, task.thresholds.known_keys)
    live, problem = _load_live(task, loader)
    if problem:
        yield GateCheck("live", True, detail=problem)
    users, items = _entities(new, live, task.sample)
    new_version = ServedVersion(new, users, items)
    live_version = ServedVersion(live, users, items) if live else None
    new_UN = new_version.scores()
    yield check_values(new_UN)
    if live_version is not None:
        yield check_shift(new_UN, live_version.scores(), live_version.version, task.thresholds, task.better)
    yield check_latency(new_version, live_version, task.thresholds.latency_ratio)


def _load_live(task: GateTask, loader: ArtifactLoader) -> tuple[Artifact | None, str]:
    """Load the live version, or return None and the reason if there is none or it cannot be loaded."""
    if task.live_folder is None:
        return None, task.no_live_reason
    try:
        digest = task.live_manifest_sha256
        return loader.load(Path(task.live_folder), version=task.live_version, manifest_sha256=digest), ""
    except ArtifactError as error:
        return None, f"the live version {task.live_version} cannot be compared with: {error}"


def _entities(new: Artifact, live: Artifact | None, sample: FeatureSample | None) -> tuple[Entities, Entities]:
    """Collect the users and items of both versions' golden requests, and some of the store's."""
    users: Entities = []
    items: Entities = []
    for artifact in (new, live):
        for golden in artifact.manifest.golden if artifact else ():
            users.append((golden.user_id, golden.user))
            items += zip(golden.item_ids, golden.items, strict=True)
    if sample is not None:
        users += list(sample.users.items())
        items += list(sample.items.items())
    return users[:MAX_USERS], items[:MAX_ITEMS]


if __name__ == "__main__":
    main()
