"""Swaps with real files: what is asked for goes live, and nobody in flight notices."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref

import torch

from app.models.preprocessing import Preprocessing
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.export import write
from app.registry.artifact.load import load
from app.registry.artifact.manifest import PROGRAM
from app.registry.lifecycle.lifecycle import Lifecycle
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer
from tests.factories import fitted, golden, publish_tiny, tiny_model
from tests.registry.lifecycle.lifecycles import Recorder, make, run, score, versions
from tests.waiting import async_until


def test_an_empty_store_serves_nothing_and_says_what_to_do(lifecycle: Lifecycle, seen: Recorder) -> None:
    async def test() -> None:
        assert not await lifecycle.refresh()
        assert not await lifecycle.refresh()
        error = lifecycle.status().last_error
        assert lifecycle.live.stable is None
        assert error is not None
        assert (error.reason, error.label) == ("missing", "pointer")
        assert "ctr promote" in error.message
        assert len(seen.events) == 1, "a standing problem is told once"

    run(test())


def test_the_pointed_version_goes_live_after_it_was_prepared(
    store: ModelStore, lifecycle: Lifecycle, seen: Recorder
) -> None:
    async def test() -> None:
        version = publish_tiny(store)
        assert await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": version}
        assert seen.prepared == [version]
        assert not await lifecycle.refresh(), "nothing changed"
        assert seen.prepared == [version]
        status = lifecycle.status()
        assert (status.model, status.fallback, status.last_error) == (store.name, False, None)
        assert status.last_swap_at is not None

    run(test())


def test_a_publish_swaps_drains_and_keeps_the_previous(store: ModelStore, lifecycle: Lifecycle, seen: Recorder) -> None:
    async def test() -> None:
        for seed in range(3):
            publish_tiny(store, seed)
            assert await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 3}
        assert lifecycle.live.previous is not None
        assert lifecycle.live.previous.version == 2
        await async_until(lambda: seen.retired == [1, 2])
        loaded = lifecycle.live.previous
        store.roll_back(2)
        assert await lifecycle.refresh()
        assert lifecycle.live.stable is loaded, "kept loaded, so a rollback reads nothing"
        assert seen.prepared == [1, 2, 3, 2], "but prepared anew"
        await async_until(lambda: seen.retired == [1, 2, 3])

    run(test())


def test_the_retired_version_waits_for_requests_in_flight(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        lifecycle = make(store, seen, grace_s=0.3)
        publish_tiny(store)
        await lifecycle.refresh()
        publish_tiny(store, 1)
        await lifecycle.refresh()
        assert seen.retired == []
        await async_until(lambda: seen.retired == [1])

    run(test())


def test_a_version_that_returns_within_its_grace_is_not_retired_while_it_serves(
    store: ModelStore, seen: Recorder
) -> None:
    async def test() -> None:
        lifecycle = make(store, seen, grace_s=0.2)
        for seed in range(2):
            publish_tiny(store, seed)
            await lifecycle.refresh()
        store.roll_back(1)
        assert await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1}
        assert (seen.retired, seen.prepared) == ([1], [1, 2, 1]), "retired from before, and then prepared anew"
        await async_until(lambda: seen.retired == [1, 2])

    run(test())


def test_at_most_two_stable_models_are_alive(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        alive: weakref.WeakSet[Artifact] = weakref.WeakSet()
        alive_counts: list[int] = []

        async def prepare(artifact: Artifact) -> None:
            alive.add(artifact)
            alive_counts.append(len(alive))

        swaps = Lifecycle(store, prepare=prepare, retire=seen.retire, grace_s=0.05)
        for seed in range(5):
            publish_tiny(store, seed)
            await swaps.refresh()
        assert alive_counts == [1, 2, 2, 2, 2]

    run(test())


def test_labels_come_change_and_go(store: ModelStore, lifecycle: Lifecycle, seen: Recorder) -> None:
    async def test() -> None:
        publish_tiny(store)
        publish_tiny(store, 1, labels=("canary", "shadow"), share=0.2)
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1, "canary": 2, "shadow": 2}
        assert lifecycle.live.canary is lifecycle.live.shadow
        assert seen.prepared == [1, 2], "one version under two labels is loaded and prepared once"
        assert lifecycle.live.canary_share == 0.2
        assert lifecycle.live.by_version(2) is lifecycle.live.canary
        assert lifecycle.live.by_version(9) is None

        store.update_pointer(canary=CanaryPointer(2, 0.5), shadow=None)
        assert await lifecycle.refresh()
        assert lifecycle.live.canary_share == 0.5
        assert versions(lifecycle) == {"stable": 1, "canary": 2}
        assert seen.retired == []

        store.promote(2)
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 2}
        assert seen.prepared == [1, 2]
        await async_until(lambda: seen.retired == [1])
        assert lifecycle.live.canary_share == 0.0

    run(test())


def test_callbacks_that_fail_do_not_stop_a_swap(store: ModelStore) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    async def prepare(_: Artifact) -> None:
        pass

    async def test() -> None:
        lifecycle = Lifecycle(store, prepare=prepare, retire=broken, on_event=broken, poll_s=0.01, grace_s=0)
        await lifecycle.start()
        for seed in range(3):
            version = publish_tiny(store, seed)
            await async_until(lambda version=version: versions(lifecycle) == {"stable": version})  # type: ignore[misc]
        await lifecycle.stop()

    run(test())


def test_stop_ends_every_task(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        before = asyncio.all_tasks()
        lifecycle = make(store, seen, grace_s=600)
        publish_tiny(store)
        await lifecycle.start()
        publish_tiny(store, 1)
        await async_until(lambda: versions(lifecycle) == {"stable": 2})
        await asyncio.wait_for(lifecycle.stop(), 30)
        assert asyncio.all_tasks() == before

    run(test())


def test_readers_see_whole_versions_while_swaps_go_on(store: ModelStore, lifecycle: Lifecycle) -> None:
    """Threads read `live` and score throughout 12 swaps; every answer is one version's, never a mixture."""

    async def test() -> None:
        for seed in range(12):
            publish_tiny(store, seed, labels=())
        store.update_pointer(stable=1)
        await lifecycle.start()
        answers: list[tuple[int, list[float]]] = []
        failures: list[BaseException] = []
        done = threading.Event()

        def read() -> None:
            torch.set_num_threads(1)
            try:
                while not done.is_set():
                    stable = lifecycle.live.stable
                    assert stable is not None
                    answers.append((stable.version, score(stable)))
            except BaseException as error:
                failures.append(error)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for version in range(2, 13):
            store.update_pointer(stable=version)
            await async_until(lambda version=version: versions(lifecycle) == {"stable": version})  # type: ignore[misc]
        await async_until(lambda: bool(failures) or answers[-1][0] == 12)
        done.set()
        for reader in readers:
            await asyncio.to_thread(reader.join)
        await lifecycle.stop()
        assert failures == []
        assert {version for version, _ in answers} >= {1, 12}
        for version in {version for version, _ in answers}:
            expected = score(load(store.path(version)))
            assert all(scores == expected for answered, scores in answers if answered == version)

    run(test())


def test_the_event_loop_turns_while_a_large_version_loads(store: ModelStore) -> None:
    """Measured on a quiet machine: 13 to 18 ms at most with 352 MB of tables, of which 13 ms are torch.jit.load, which
    holds the interpreter. A load in the event loop would take far longer than four times that.

    What counts is processor time of this process between two turns of the loop, as others may have the machine
    meanwhile, and of three loads the best: what holds the loop holds it each time.
    """
    preprocessing = fitted()
    keys_V = torch.randint(-(2**62), 2**62, (1_500_000,), generator=torch.Generator().manual_seed(0))
    vocabulary_V = torch.unique(torch.cat([preprocessing.vocabulary_V, keys_V]))
    model = tiny_model(preprocessing=Preprocessing(preprocessing.schema, vocabulary_V, preprocessing.numerics))
    with store.staging() as staged:
        write(staged, model, preprocessing.schema, name=store.name, golden=golden())
        store.publish(staged)
    store.update_pointer(stable=1)

    async def prepare(_: Artifact) -> None:
        pass

    async def longest_gap_s() -> float:
        """Load the version; return the processor time of the longest gap between two turns of the loop."""
        lifecycle = Lifecycle(store, prepare=prepare, retire=lambda _: None)
        gaps: list[float] = []

        async def tick() -> None:
            last = time.process_time()
            while True:
                await asyncio.sleep(0)
                now = time.process_time()
                gaps.append(now - last)
                last = now

        ticking = asyncio.create_task(tick())
        await asyncio.sleep(0.05)
        gaps.clear()
        assert await lifecycle.refresh()
        ticking.cancel()
        await lifecycle.stop()
        assert len(gaps) > 20
        return max(gaps)

    def parse_s() -> float:
        began = time.process_time()
        torch.jit.load(store.path(1) / PROGRAM)
        return time.process_time() - began

    limit_s = 4 * min(parse_s() for _ in range(3))
    loads = [asyncio.run(longest_gap_s()) for _ in range(3)]
    assert min(loads) < limit_s, [f"{seconds * 1000:.1f} ms" for seconds in (*loads, limit_s)]
