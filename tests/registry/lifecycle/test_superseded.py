"""Publishers that are faster than a service loads: a version may be gone before it was read."""

from __future__ import annotations

from pathlib import Path

import torch

from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.lifecycle import MAX_READINGS
from app.registry.store.model_store import ModelStore
from app.runtime.read_only import remove_folder
from tests.factories import publish_tiny
from tests.registry.lifecycle.lifecycles import Recorder, make, run, versions


class BusyStore(ModelStore):
    """Other versions are published while one loads, and the one before them is removed."""

    def __init__(self, root: Path, publications: int, *, point: bool = True) -> None:
        super().__init__(root, "deepfm")
        self.publications = publications
        self._labels = ("stable",) if point else ()

    def load(self, version: int, device: torch.device | str = "cpu") -> Artifact:
        if self.publications:
            self.publications -= 1
            publish_tiny(self, labels=self._labels)
            remove_folder(self.path(version))
        return super().load(version, device)


def test_a_version_that_is_gone_since_the_pointer_named_another_is_not_refused(tmp_path: Path, seen: Recorder) -> None:
    async def test() -> None:
        store = BusyStore(tmp_path, publications=2)
        lifecycle = make(store, seen)
        publish_tiny(store)
        assert await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 3}
        assert seen.outcomes() == [("live", "stable", 3)], "nobody is told of what nobody asks for"
        assert lifecycle.status().last_error is None

    run(test())


def test_a_version_that_is_gone_and_still_asked_for_is_refused(tmp_path: Path, seen: Recorder) -> None:
    async def test() -> None:
        store = BusyStore(tmp_path, publications=1, point=False)
        lifecycle = make(store, seen)
        publish_tiny(store)
        await lifecycle.refresh()
        assert seen.outcomes()[0] == ("refused", "stable", 1)

    run(test())


def test_a_publisher_that_never_rests_does_not_hold_the_service_up(tmp_path: Path, seen: Recorder) -> None:
    async def test() -> None:
        store = BusyStore(tmp_path, publications=MAX_READINGS)
        lifecycle = make(store, seen)
        publish_tiny(store)
        assert not await lifecycle.refresh()
        assert await lifecycle.refresh(), "the next reading finds what is asked for then"
        assert versions(lifecycle) == {"stable": MAX_READINGS + 1}

    run(test())
