"""What is damaged, missing or removed keeps nobody from being served."""

from __future__ import annotations

import asyncio
import os
import shutil

import msgspec
import pytest

from app.errors import ArtifactError, StoreError
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.registry.artifact.manifest_file import write_manifest
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.history import HISTORY
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import POINTER, CanaryPointer
from tests.factories import publish_tiny
from tests.registry.lifecycle.lifecycles import Recorder, flip, make, run, score, versions
from tests.waiting import async_until

NOT_A_POINTER = [b"", b"{", b"\xff\xfe", b"null", b"[]", b"[" * 50_000]
NOT_THE_FORM = [b'{"stable": "7"}', b'{"stable": 0}', b'{"stabel": 1}']


@pytest.mark.parametrize("file", [PROGRAM, TABLES, MANIFEST])
def test_a_damaged_version_keeps_the_old_one(
    store: ModelStore, lifecycle: Lifecycle, seen: Recorder, file: str
) -> None:
    async def test() -> None:
        publish_tiny(store)
        await lifecycle.refresh()
        serving = lifecycle.live.stable
        bad = publish_tiny(store, 1, labels=())
        flip(store.path(bad) / file, 60)
        store.update_pointer(stable=bad)
        assert not await lifecycle.refresh()
        assert lifecycle.live.stable is serving
        status = lifecycle.status()
        assert status.fallback
        assert status.last_error is not None
        assert (status.last_error.label, status.last_error.version) == ("stable", bad)
        assert status.last_error.message
        assert seen.outcomes()[-1] == ("refused", "stable", bad)

        store.update_pointer(stable=1)
        await lifecycle.refresh()
        assert not lifecycle.status().fallback
        assert lifecycle.status().last_error is None
        assert lifecycle.live.stable is serving

    run(test())


def test_a_bad_version_is_not_tried_at_every_poll_but_when_it_changes(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        lifecycle = make(store, seen, poll_s=60)
        publish_tiny(store)
        await lifecycle.refresh()
        publish_tiny(store, 1)
        seen.refuse[2] = ArtifactError("drift", "scores shifted")
        for _ in range(5):
            await lifecycle.refresh()
        assert seen.prepared == [1, 2]
        assert seen.outcomes().count(("refused", "stable", 2)) == 1
        assert lifecycle.status().last_error is not None

        write_manifest(store.path(2), msgspec.structs.replace(store.manifest(2), data={"note": "mended"}))
        await lifecycle.refresh()
        assert seen.prepared == [1, 2, 2], "a new manifest is another version"

        store.update_pointer(stable=2, shadow=1)
        seen.refuse.clear()
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 2, "shadow": 1}, "a rewritten pointer asks again"

    run(test())


def test_what_time_may_cure_is_tried_again(store: ModelStore, lifecycle: Lifecycle, seen: Recorder) -> None:
    async def test() -> None:
        publish_tiny(store)
        await lifecycle.start()
        copied = publish_tiny(store, 1, labels=())
        aside = store.folder / "aside"
        store.path(copied).rename(aside)
        store.update_pointer(stable=copied)
        await async_until(lambda: lifecycle.status().last_error is not None)
        assert versions(lifecycle) == {"stable": 1}
        aside.rename(store.path(copied))
        await async_until(lambda: versions(lifecycle) == {"stable": copied})

        seen.refuse[3] = StoreError("the store is down")
        publish_tiny(store, 2)
        await async_until(lambda: seen.prepared.count(3) >= 2)
        assert versions(lifecycle) == {"stable": copied}
        seen.refuse.clear()
        await async_until(lambda: versions(lifecycle) == {"stable": 3})
        await lifecycle.stop()

    run(test())


def test_one_label_failing_does_not_stop_the_others(store: ModelStore, lifecycle: Lifecycle) -> None:
    async def test() -> None:
        for seed in range(3):
            publish_tiny(store, seed, labels=())
        flip(store.path(2) / TABLES)
        store.update_pointer(stable=1, canary=CanaryPointer(2, 0.1), shadow=3)
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1, "shadow": 3}
        assert [(p.label, p.version, p.reason) for p in lifecycle.status().problems] == [("canary", 2, "hash")]
        assert not lifecycle.status().fallback
        assert lifecycle.live.canary_share == 0.0

    run(test())


def test_a_bad_stable_does_not_stop_a_canary(store: ModelStore, lifecycle: Lifecycle) -> None:
    async def test() -> None:
        publish_tiny(store)
        await lifecycle.refresh()
        publish_tiny(store, 1)
        flip(store.path(2) / PROGRAM)
        publish_tiny(store, 2, labels=("canary",), share=0.3)
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1, "canary": 3}
        assert lifecycle.live.canary_share == 0.3

    run(test())


@pytest.mark.parametrize("content", NOT_A_POINTER + NOT_THE_FORM)
def test_a_damaged_pointer_changes_nothing(
    store: ModelStore, lifecycle: Lifecycle, seen: Recorder, content: bytes
) -> None:
    async def test() -> None:
        publish_tiny(store)
        await lifecycle.refresh()
        good = (store.folder / POINTER).read_bytes()
        (store.folder / POINTER).write_bytes(content)
        for _ in range(3):
            assert not await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1}
        assert [problem.label for problem in lifecycle.status().problems] == ["pointer"]
        assert len(seen.events) == 2
        (store.folder / POINTER).write_bytes(good)
        await lifecycle.refresh()
        assert lifecycle.status().problems == ()

    run(test())


def test_a_fifo_or_folder_in_the_pointers_place_holds_nobody(store: ModelStore, lifecycle: Lifecycle) -> None:
    async def test() -> None:
        publish_tiny(store)
        await lifecycle.refresh()
        (store.folder / POINTER).unlink()
        os.mkfifo(store.folder / POINTER)
        await asyncio.wait_for(lifecycle.refresh(), 30)
        (store.folder / POINTER).unlink()
        (store.folder / POINTER).mkdir()
        await asyncio.wait_for(lifecycle.refresh(), 30)
        assert versions(lifecycle) == {"stable": 1}
        assert lifecycle.status().problems[0].reason == "pointer"

    run(test())


def test_the_store_removed_while_serving(store: ModelStore, lifecycle: Lifecycle) -> None:
    async def test() -> None:
        publish_tiny(store)
        publish_tiny(store, 1, labels=("canary",))
        await lifecycle.start()
        assert lifecycle.live.stable is not None
        before = score(lifecycle.live.stable)
        shutil.rmtree(store.folder.parent)
        await async_until(lambda: bool(lifecycle.status().problems))
        assert versions(lifecycle) == {"stable": 1, "canary": 2}
        assert score(lifecycle.live.stable) == before, "what is mapped outlives its name"
        publish_tiny(store, 5)
        await async_until(lambda: score(lifecycle.live.stable) != before)  # type: ignore[arg-type]
        # Version 1 of the new store is told apart by its manifest; the canary, which has none, is released after it.
        await async_until(lambda: versions(lifecycle) == {"stable": 1})
        await lifecycle.stop()

    run(test())


def test_a_restart_with_a_bad_newest_version_serves_the_last_good_one(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        publish_tiny(store, 0)
        publish_tiny(store, 1)
        publish_tiny(store, 2, labels=())  # published, never stable
        publish_tiny(store, 3)
        flip(store.path(4) / TABLES)
        lifecycle = make(store, seen)
        await lifecycle.start()
        await lifecycle.stop()
        assert versions(lifecycle) == {"stable": 2}, "2 was stable before; 3 never was"
        assert lifecycle.live.fallback
        assert lifecycle.status().fallback
        error = lifecycle.status().last_error
        assert error is not None
        assert (error.version, error.reason) == (4, "hash")
        assert ("fallback", "stable", 2) in seen.outcomes()

    run(test())


def test_the_fallback_passes_over_every_bad_version_and_ends_when_a_good_one_is_asked_for(
    store: ModelStore, lifecycle: Lifecycle
) -> None:
    async def test() -> None:
        for seed in range(4):
            publish_tiny(store, seed)
        (store.folder / HISTORY).write_bytes(b"not JSON")
        for bad in (4, 3, 2):
            (store.path(bad) / PROGRAM).write_bytes(b"")
        await lifecycle.refresh()
        assert (versions(lifecycle), lifecycle.live.fallback) == ({"stable": 1}, True)
        store.update_pointer(stable=1)
        await lifecycle.refresh()
        assert (versions(lifecycle), lifecycle.live.fallback) == ({"stable": 1}, False)

    run(test())


def test_a_restart_with_a_damaged_pointer_serves_what_was_stable(store: ModelStore, lifecycle: Lifecycle) -> None:
    async def test() -> None:
        publish_tiny(store, 0)
        publish_tiny(store, 1, labels=())
        (store.folder / POINTER).write_bytes(b"{")
        await lifecycle.refresh()
        assert (versions(lifecycle), lifecycle.live.fallback) == ({"stable": 1}, True)

    run(test())


def test_the_poller_outlives_every_exception(
    store: ModelStore, lifecycle: Lifecycle, seen: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        await lifecycle.start()
        calls = 0

        def broken() -> bytes | None:
            nonlocal calls
            calls += 1
            raise RuntimeError("a bug")

        with monkeypatch.context() as patch:
            patch.setattr(store, "pointer_bytes", broken)
            await async_until(lambda: calls >= 3)
        publish_tiny(store)
        await async_until(lambda: versions(lifecycle) == {"stable": 1})
        await lifecycle.stop()

    run(test())
