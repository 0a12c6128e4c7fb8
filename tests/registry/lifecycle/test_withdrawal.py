"""A canary that is withdrawn is out, everywhere and for good."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.errors import ArtifactError
from app.registry.artifact.load import load
from app.registry.artifact.manifest_file import read_manifest_bytes
from app.registry.gate.gate_report import (
    WITHDRAWN,
    GateCheck,
    GateReport,
    read_report,
    recorded_withdrawal,
    write_refusal,
    write_report,
)
from app.registry.lifecycle.snapshot import Problem
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer, Pointer
from tests.factories import publish_tiny
from tests.registry.lifecycle.lifecycles import Recorder, make, run, versions
from tests.waiting import HELD_S, async_until

SHIFTED = GateCheck(
    WITHDRAWN, False, "shift", "its mean score is 2.00 times stable's", {"ctr_ratio": 2.0}, comparison=True
)


def test_a_withdrawn_canary_is_out_at_once_everywhere_and_stays_out(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        publish_tiny(store)
        publish_tiny(store, 1, labels=("canary",), share=0.5)
        others = Recorder()
        lifecycle, elsewhere = make(store, seen), make(store, others)
        await lifecycle.refresh()
        await elsewhere.refresh()
        assert versions(lifecycle) == versions(elsewhere) == {"stable": 1, "canary": 2}
        withdrawing = asyncio.create_task(lifecycle.withdraw(2, SHIFTED))
        await asyncio.sleep(0)
        assert versions(lifecycle) == {"stable": 1}, "before anything is written"
        assert lifecycle.live.canary_share == 0.0
        await withdrawing
        assert store.pointer() == Pointer(stable=1)
        await lifecycle.refresh()
        await elsewhere.refresh()
        for one in (lifecycle, elsewhere):
            assert versions(one) == {"stable": 1}
            assert one.status().problems == (Problem("canary", 2, "shift", SHIFTED.detail),)
        assert [(e.outcome, e.version, e.reason) for e in seen.events if e.outcome == "withdrawn"] == [
            ("withdrawn", 2, "shift")
        ]
        assert ("withdrawn", "canary", 2) not in others.outcomes(), "one worker wins"
        await elsewhere.withdraw(2, SHIFTED)
        await async_until(lambda: seen.retired == [2] and others.retired == [2])
        with pytest.raises(ArtifactError, match="refused"):
            store.load(2)
        publish_tiny(store, 2)
        await lifecycle.refresh()
        assert lifecycle.status().problems == (), "told until things have moved on"

    run(test())


def test_a_canary_is_withdrawn_though_the_store_cannot_be_written(store: ModelStore, seen: Recorder) -> None:
    async def test() -> None:
        publish_tiny(store)
        publish_tiny(store, 1, labels=("canary",), share=0.5)
        lifecycle = make(store, seen)
        await lifecycle.refresh()
        (store.folder / ".lock").unlink(missing_ok=True)
        (store.folder / ".lock").mkdir()
        await lifecycle.withdraw(2, SHIFTED)
        assert store.pointer().canary == CanaryPointer(2, 0.5)
        for _ in range(3):
            await lifecycle.refresh()
            assert versions(lifecycle) == {"stable": 1}
            assert [(p.label, p.reason) for p in lifecycle.status().problems] == [("canary", "shift")]

    run(test())


class PausedStore(ModelStore):
    """A store whose pointer, once `pause` is set, is read and then handed over when the test says so."""

    def __init__(self, store: ModelStore) -> None:
        super().__init__(store.folder.parent, store.name)
        self.pause = False
        self.has_read, self.go_on = threading.Event(), threading.Event()

    def pointer_bytes(self) -> bytes | None:
        content = super().pointer_bytes()
        if self.pause and threading.current_thread() is not threading.main_thread():
            self.has_read.set()
            assert self.go_on.wait(HELD_S)
        return content


def test_a_refresh_under_way_does_not_bring_a_withdrawn_canary_back(store: ModelStore, seen: Recorder) -> None:
    """What the refresh has read of the store is older than the withdrawal, though the pointer was rewritten."""

    async def test() -> None:
        publish_tiny(store)
        publish_tiny(store, 1, labels=("canary", "shadow"), share=0.5)
        paused = PausedStore(store)
        lifecycle = make(paused, seen)
        await lifecycle.refresh()
        store.update_pointer(canary=CanaryPointer(2, 0.4))
        paused.pause = True
        refreshing = asyncio.create_task(lifecycle.refresh())
        assert await asyncio.to_thread(paused.has_read.wait, HELD_S)
        withdrawing = asyncio.create_task(lifecycle.withdraw(2, SHIFTED))
        await asyncio.sleep(0)
        assert versions(lifecycle) == {"stable": 1, "shadow": 2}
        paused.pause = False
        paused.go_on.set()
        await refreshing
        assert versions(lifecycle) == {"stable": 1, "shadow": 2}, "not even until the next reading"
        await withdrawing
        await lifecycle.refresh()
        assert versions(lifecycle) == {"stable": 1}
        assert [(p.label, p.reason) for p in lifecycle.status().problems] == [("canary", "shift")]
        assert store.pointer() == Pointer(stable=1)

    run(test())


def test_of_many_who_withdraw_a_version_one_does_and_another_canary_is_left_alone(store: ModelStore) -> None:
    for seed, labels in enumerate((("stable",), ("canary", "shadow"))):
        publish_tiny(store, seed, labels=labels)
    taken: list[list[str]] = []
    threads = [threading.Thread(target=lambda: taken.append(store.withdraw(2, SHIFTED))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [[]] * 7 + [["canary", "shadow"]]
    publish_tiny(store, 2, labels=("canary",))
    assert store.withdraw(2, SHIFTED) == []
    assert store.pointer().canary == CanaryPointer(3, 0.05)
    with pytest.raises(ArtifactError, match="roll back first") as refused:
        store.withdraw(1, SHIFTED)
    assert refused.value.reason == "stable"
    assert store.pointer().stable == 1


def test_a_refusal_is_the_first_reason_though_a_forced_promotion_let_another_pass(store: ModelStore) -> None:
    version = publish_tiny(store)
    raw = read_manifest_bytes(store.path(version))
    slow = GateCheck("latency", False, "latency", "ten times as slow", comparison=True)
    digest = load(store.path(version)).manifest_sha256
    write_report(
        store.path(version), GateReport(version, digest, None, "2026-01-01T00:00:00+00:00", True, True, 1.0, [slow])
    )
    for _ in range(2):
        write_refusal(store.path(version), version, raw, SHIFTED, None)
    report = read_report(store.path(version))
    assert report is not None
    assert report.refusal == SHIFTED
    assert [check.name for check in report.checks] == [WITHDRAWN, "latency"]
    assert recorded_withdrawal(store.path(version), digest) == SHIFTED
    assert recorded_withdrawal(store.path(version), "0" * 64) is None
