"""A lifecycle whose callbacks are recorded, and what its tests ask of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.lifecycle.snapshot import SwapEvent
from app.registry.store.model_store import ModelStore
from tests.factories import raw_context, raw_item, raw_user


class Recorder:
    """Stands for the rest of the service: records what a lifecycle calls, and fails where a test says so."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.retired: list[int] = []
        self.events: list[SwapEvent] = []
        self.refuse: dict[int, Exception] = {}

    async def prepare(self, artifact: Artifact) -> None:
        self.prepared.append(artifact.version)
        if error := self.refuse.get(artifact.version):
            raise error

    def retire(self, artifact: Artifact) -> None:
        self.retired.append(artifact.version)

    def outcomes(self) -> list[tuple[str, str, int | None]]:
        return [(event.outcome, event.label, event.version) for event in self.events]


def make(store: ModelStore, seen: Recorder, **options: Any) -> Lifecycle:
    """Make a lifecycle that polls fast, retires at once and tells `seen`."""
    options = {"poll_s": 0.01, "grace_s": 0.0} | options
    return Lifecycle(store, prepare=seen.prepare, retire=seen.retire, on_event=seen.events.append, **options)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def versions(lifecycle: Lifecycle) -> dict[str, int]:
    return lifecycle.status().versions


def flip(path: Path, offset: int = 100) -> None:
    """Replace a file by one with one bit flipped; processes that have mapped the file keep what they have."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.with_suffix(".new").write_bytes(raw)
    os.replace(path.with_suffix(".new"), path)


def score(artifact: Artifact) -> list[float]:
    user = artifact.user_encoder.encode(raw_user(1) | raw_context(1), "1")
    items = artifact.item_encoder.encode_many([raw_item(n) for n in range(4)], [str(n) for n in range(4)])
    return artifact.score(artifact.encode_user(user), artifact.encode_items(items)).tolist()
