"""The gate's process: `python -m app.registry.gate.checks`, a task on stdin, a line per check on stdout.

The first failure ends it: what comes later is asked of a version that works.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from app.errors import ArtifactError
from app.features.encoder import Encoder
from app.features.fields import Numeric
from app.features.slots import EMPTY_KEY, Slots
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import ArtifactLoader
from app.registry.gate.gate import FeatureSample, GateTask
from app.registry.gate.gate_report import GateCheck
from app.stats import spearman

CANDIDATES = 500
TIMING_S = 1.0
"""Spent on each of the two timings, at most; a model that needs longer for one turn is timed once."""
TIMING_TURNS = 30
SAMPLE_USERS, SAMPLE_ITEMS = 64, 512

Entities = list[tuple[str, Mapping[str, Any]]]
Floats = npt.NDArray[np.float64]


def main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=GateTask)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a program may print
    _limit(task)
    torch.set_num_threads(1)
    with torch.inference_mode(), answers:
        for check in checks(task):
            answers.write(msgspec.json.encode(check) + b"\n")
            answers.flush()
            if not check.passed and not check.comparison:
                return


def checks(task: GateTask) -> Iterator[GateCheck]:
    """In order; the caller stops after one that makes the rest pointless."""
    started = time.perf_counter()
    loader = ArtifactLoader()
    try:
        new = loader.load(Path(task.folder), version=task.version, manifest_sha256=task.manifest_sha256)
    except ArtifactError as error:
        yield GateCheck("integrity", False, error.reason, str(error))
        return
    yield GateCheck("integrity", True, figures={"seconds": round(time.perf_counter() - started, 3)})
    if task.sample is not None:
        yield from _schema(new, task.sample, task.thresholds.known_keys)
    live, said = _live(task, loader)
    if said:
        yield GateCheck("live", True, detail=said)
    users, items = _entities(new, live, task.sample)
    new_UN = _scores(new, users, items)
    live_UN = _scores(live, users, items) if live else None
    yield _shape(new_UN)
    if live_UN is not None:
        yield from _shift(new_UN, live_UN, task)
    yield _latency(new, live, users, items, task.thresholds.latency_ratio)


def _limit(task: GateTask) -> None:
    """Memory beyond what is taken now, processor time, and no file may be written."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + task.limits.memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    seconds = int(task.limits.timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _live(task: GateTask, loader: ArtifactLoader) -> tuple[Artifact | None, str]:
    if task.live_folder is None:
        return None, task.no_live
    try:
        digest = task.live_manifest_sha256
        return loader.load(Path(task.live_folder), version=task.live_version, manifest_sha256=digest), ""
    except ArtifactError as error:
        return None, f"the live version {task.live_version} cannot be compared with: {error}"


def _schema(new: Artifact, sample: FeatureSample, least: float) -> Iterator[GateCheck]:
    """Do the entities in the store look as those that the version was trained on?"""
    vocabulary_V = np.sort(new.program.vocabulary_V.numpy())
    figures: dict[str, float] = {}
    worst: dict[str, str] = {}
    for encoder, raws in ((new.user_encoder, sample.users), (new.item_encoder, sample.items)):
        shares = _known(encoder, raws, vocabulary_V) if raws else {}
        if shares:
            figures[f"known_{encoder.side}"] = round(float(np.mean(list(shares.values()))), 4)
            worst[f"known_{encoder.side}"] = min(shares, key=lambda name: shares[name])
    low = [name for name, share in figures.items() if share < least]
    figures |= {"users": len(sample.users), "items": len(sample.items)}
    if low:
        name = low[0]
        detail = f"{figures[name]:.0%} of what the store holds is known to the version ({name}), {least:.0%} is asked"
        yield GateCheck("schema", False, "schema", f"{detail}; least of all {worst[name]}", figures, comparison=True)
    else:
        yield GateCheck("schema", True, figures=figures)


def _known(
    encoder: Encoder, raws: Mapping[str, Mapping[str, str]], vocabulary_V: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Per stored field, the share of its values that training saw; 0 where no entity has the field."""
    slots = encoder.encode_many(list(raws.values()), list(raws), lambda _: None)
    absent = encoder.encode({}, None, lambda _: None)
    known_NS = np.isin(slots.keys, vocabulary_V)
    shares = {}
    for field, place in encoder.layout:
        if field.entity == "context":
            continue
        if isinstance(field, Numeric):
            values_NS = slots.values[:, place]
            given_NS = np.isfinite(values_NS) & (values_NS != absent.values[place])
            shares[field.name] = float(given_NS.any())
        else:
            keys_NS = slots.keys[:, place]
            given_NS = (keys_NS != EMPTY_KEY) & (keys_NS != absent.keys[place])
            given = int(given_NS.sum())
            shares[field.name] = float((known_NS[:, place] & given_NS).sum() / given) if given else 0.0
    return shares


def _entities(new: Artifact, live: Artifact | None, sample: FeatureSample | None) -> tuple[Entities, Entities]:
    """Users and items of both versions' golden requests, and some of the store's."""
    users: Entities = []
    items: Entities = []
    for artifact in (new, live):
        for golden in artifact.manifest.golden if artifact else ():
            users.append((golden.user_id, golden.user))
            items += zip(golden.item_ids, golden.items, strict=True)
    if sample is not None:
        users += list(sample.users.items())
        items += list(sample.items.items())
    return users[:SAMPLE_USERS], items[:SAMPLE_ITEMS]


def _encoded(encoder: Encoder, entities: Entities) -> Slots:
    ids, raws = zip(*entities, strict=True)
    return encoder.encode_many(raws, ids, lambda _: None)


def _scores(artifact: Artifact, users: Entities, items: Entities) -> Floats:
    """Of every user with every item, [U, N]."""
    users_US = _encoded(artifact.user_encoder, users)
    items_ND = artifact.encode_items(_encoded(artifact.item_encoder, items))
    states = (artifact.encode_user(Slots(*row)) for row in zip(*users_US, strict=True))
    return torch.stack([artifact.score(user_D, items_ND) for user_D in states]).double().numpy()


def _shape(scores_UN: Floats) -> GateCheck:
    figures = {"scores": float(scores_UN.size)}
    bad = int((~np.isfinite(scores_UN)).sum())
    if bad:
        return GateCheck("scores", False, "finite", f"{bad} of {scores_UN.size} scores are not finite", figures)
    figures |= {"least": float(scores_UN.min()), "mean": float(scores_UN.mean()), "most": float(scores_UN.max())}
    if figures["least"] < 0 or figures["most"] > 1:
        return GateCheck("scores", False, "range", "scores are not all between 0 and 1", figures)
    return GateCheck("scores", True, figures=figures)


def _shift(new_UN: Floats, live_UN: Floats, task: GateTask) -> Iterator[GateCheck]:
    if not np.isfinite(live_UN).all() or live_UN.mean() <= 0:
        yield GateCheck("shift", True, detail="the live version's scores are nothing to compare with")
        return
    most, least = task.thresholds.ctr_ratio, task.thresholds.rank_correlation
    ratio = float(new_UN.mean() / live_UN.mean())
    figures = {"ctr_ratio": round(ratio, 4)}
    if np.ptp(live_UN) > 0:
        figures["rank_correlation"] = round(spearman(new_UN.ravel(), live_UN.ravel()), 4)
    order = figures.get("rank_correlation", 1.0)
    if not 1 / most <= ratio <= most:
        detail = f"its mean score is {ratio:.2f} times that of version {task.live_version}, {most:g} is allowed"
        yield GateCheck("shift", False, "shift", detail, figures, comparison=True)
    elif order < least:
        detail = f"its order agrees with version {task.live_version} by {order:.2f} (Spearman), {least:g} is asked"
        yield GateCheck("shift", False, "order", detail, figures, comparison=True)
    else:
        yield GateCheck("shift", True, figures=figures)


def _latency(new: Artifact, live: Artifact | None, users: Entities, items: Entities, most: float) -> GateCheck:
    """Best of interleaved turns, so that a busy machine slows both."""
    artifacts = [new, *([live] if live else [])]
    parts: dict[str, list[Callable[[], object]]] = {"request": [], "items": []}
    for artifact in artifacts:
        user = Slots(*(part[0] for part in _encoded(artifact.user_encoder, users[:1])))
        chosen = [items[n % len(items)] for n in range(CANDIDATES)]
        slots = _encoded(artifact.item_encoder, chosen)
        items_ND = artifact.encode_items(slots)
        parts["request"].append(lambda a=artifact, u=user, i=items_ND: _request(a, u, i))  # type: ignore[misc]
        parts["items"].append(lambda a=artifact, s=slots: a.encode_items(s))  # type: ignore[misc]
    figures: dict[str, float] = {}
    for name, calls in parts.items():
        best = _best(calls)
        figures[f"{name}_ms"] = round(best[0] * 1e3, 4)
        if live is not None:
            figures[f"{name}_ratio"] = round(best[0] / best[1], 3)
    slow = [name for name in parts if figures.get(f"{name}_ratio", 0.0) > most]
    if slow and live is not None:
        ratio = figures[f"{slow[0]}_ratio"]
        what = "scoring" if slow[0] == "request" else "encoding"
        detail = f"{what} {CANDIDATES} items takes {ratio:.1f} times as long as with version {live.version}"
        detail += f", {most:g} is allowed"
        return GateCheck("latency", False, "latency", detail, figures, comparison=True)
    return GateCheck("latency", True, figures=figures)


def _request(artifact: Artifact, user: Slots, items_ND: Tensor) -> object:
    return artifact.score(artifact.encode_user(user), items_ND)


def _best(calls: list[Callable[[], object]]) -> list[float]:
    """Seconds of the fastest turn of each."""
    best = [float("inf")] * len(calls)
    until = time.perf_counter() + TIMING_S
    for _ in range(TIMING_TURNS):
        for number, call in enumerate(calls):
            began = time.perf_counter()
            call()
            best[number] = min(best[number], time.perf_counter() - began)
        if time.perf_counter() > until:
            break
    return best


if __name__ == "__main__":
    main()
