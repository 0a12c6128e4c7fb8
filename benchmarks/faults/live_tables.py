"""Tables of the live version that are written to or cut under the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import msgspec

from app.registry.artifact.manifest import TABLES
from app.registry.store.model_store import ModelStore
from benchmarks.faults.bed import FaultBed
from benchmarks.faults.row import Check, Row
from benchmarks.faults.service import Service
from benchmarks.soak.versions import publish

NAME = "bench"
FOUND_S = 1.0
"""How long a change may go unnoticed."""
WATCHED_S = 4.0


@dataclass
class Watched:
    """Answers to one request while a file changes."""

    wrong: int = 0
    """Answers with other scores that do not say so, later than FOUND_S."""
    early: int = 0
    """The same, before."""
    marked: int = 0
    failed: int = 0
    answers: int = 0


@contextlib.contextmanager
def copied_store(bed: FaultBed, name: str) -> Iterator[tuple[Service, ModelStore]]:
    """Run a service on a model store of its own, with another version to write over the live one's files."""
    root = bed.testbed.folder / name
    (other,) = publish(bed.testbed, NAME, [99])
    source = ModelStore(bed.testbed.folder / "models", NAME)
    for number, version in ((1, 1), (2, other)):
        shutil.copytree(source.path(version), root / NAME / str(number))
    store = ModelStore(root, NAME)
    store.update_pointer(stable=1)
    with bed.service(name, settings={"CTR_MODEL_STORE": str(root)}) as service:
        yield service, store


def _overwritten(bed: FaultBed) -> Sequence[Check]:
    with copied_store(bed, "overwritten") as (service, store):
        tables = store.path(1) / TABLES
        published = bed.testbed.versions[NAME] / TABLES
        mode = stat.filemode(published.stat().st_mode)
        body = _items_with_features(bed)
        before = _scores(service, body)
        with tables.open("r+b") as live, (store.path(2) / TABLES).open("rb") as other:  # what `cp` does
            shutil.copyfileobj(other, live)
        copied = _watch(service, body, before)
        alive = service.process.exit_code(0) is None
        health = service.health() if alive else {"status": "gone", "reasons": []}
    return [
        Check(f"versions are written {mode}", "w" not in mode),
        *_watched("overwritten by `cp`", copied),
        Check(f"/health afterwards: {health['status']} {health['reasons']}", alive),
    ]


def _truncated(bed: FaultBed) -> Sequence[Check]:
    with copied_store(bed, "truncated") as (service, store):
        body = _items_with_features(bed)
        before = _scores(service, body)
        tables = store.path(1) / TABLES
        os.truncate(tables, tables.stat().st_size // 3)
        cut = _watch(service, body, before)
        ended = service.process.exit_code(0)
        health = {"status": "gone", "reasons": []} if ended is not None else service.health()
    return [
        Check("the process lives on" if ended is None else f"the process ended: {ended}", ended is None),
        *_watched("cut to a third", cut),
        Check(f"/health afterwards: {health['status']} {health['reasons']}", ended is None),
    ]


def _items_with_features(bed: FaultBed) -> bytes:
    """Return a request that reads the tables: features of the request are in no cache."""
    catalogue = bed.testbed.catalogue
    raw = catalogue.raw("item", 0, 100)
    items = [str(number) for number in range(len(raw))]
    features = dict(zip(items, raw, strict=True))
    return msgspec.json.encode({"user_id": "3", "item_ids": items, "item_features": features})


def _ask(service: Service, body: bytes) -> httpx.Response:
    answer = service.client.post(f"{service.url}/rank", content=body, headers=service.headers, timeout=10)
    service.secrets.look(answer.content, "/rank")
    return answer


def _scores(service: Service, body: bytes) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in _ask(service, body).json()["items"]}


def _watch(service: Service, body: bytes, before: dict[str, float]) -> Watched:
    """Ask the same again and again for a few seconds."""
    seen, began = Watched(), time.monotonic()
    while (at := time.monotonic() - began) < WATCHED_S:
        try:
            answer = _ask(service, body)
            document = answer.json()
        except (httpx.HTTPError, ValueError):
            seen.failed += 1
            time.sleep(0.05)
            continue
        seen.answers += 1
        if answer.status_code != 200:
            seen.failed += 1
        elif document["degraded"]:
            seen.marked += 1
        elif any(abs(before[item["item_id"]] - item["score"]) > 1e-6 for item in document["items"]):
            seen.wrong += at > FOUND_S
            seen.early += at <= FOUND_S
    return seen


def _watched(what: str, seen: Watched) -> list[Check]:
    return [
        Check(
            f"{what}: {seen.wrong} of {seen.answers} answers have other scores and do not say so ({seen.early} more in "
            f"the first second; {seen.marked} are marked)",
            seen.wrong == 0 and seen.answers > 0,
        ),
        Check(f"{what}: {seen.failed} requests failed", seen.failed == 0),
    ]


ROWS = (
    Row(
        "tables-overwritten",
        "live tables overwritten in place (`cp`)",
        "versions are written read-only; what is live cannot change, or is found within a second and withdrawn",
        _overwritten,
        "found",
    ),
    Row("tables-truncated", "live tables truncated", "never a crash, no other scores", _truncated, "found"),
)
