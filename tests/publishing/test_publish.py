"""Use cases without a command line: what publishes gates, points, prunes and tells, or leaves things as they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import ArtifactError, NotPublished
from app.publishing.promote import promote
from app.publishing.publish import publish, publish_staged
from app.publishing.refuse import BY_OPERATOR, refuse
from app.publishing.reporter import SilentReporter
from app.publishing.rollback import remove_label, roll_back
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import CanaryPointer, Pointer
from app.runtime.signals import exit_on_sigterm
from app.settings import Settings
from tests.factories import publish_tiny, write_tiny
from tests.users import allow_changes


class RecordingReporter(SilentReporter):
    """Keeps the messages it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def notify(self, message: str) -> None:
        self.messages.append(message)


def settings_of(store: ModelStore) -> Settings:
    return Settings(
        model_store=store.folder.parent,
        model=store.name,
        data_dir=store.folder.parent / "data",
        redis_url="",
        keep_versions=2,
        gate_ctr_ratio=1e9,
        gate_rank_correlation=-1,
        gate_latency_ratio=1e9,
    )


def publish_tiny_staged(store: ModelStore, gate: Callable[[int], object], **options: object) -> int:
    with store.staging() as staged:
        write_tiny(staged, 1)
        return publish_staged(store, staged, gate, **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("gate_in_process")
def test_use_cases_print_nothing_and_tell_their_reporter(
    store: ModelStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings, reporter = settings_of(store), RecordingReporter()
    (tmp_path / "trained").mkdir()
    write_tiny(tmp_path / "trained", seed=4)
    for version in (1, 2, 3):
        published = publish(store, tmp_path / "trained", settings, reporter)
        assert (published.version, published.serving, published.problem) == (version, Pointer(version), None)
    allow_changes(store.path(2))
    (store.path(2) / "model.pt").write_bytes(b"x")
    promotion = promote(store, 1, settings, reporter, label="canary", share=0.2)
    assert promotion.serving == Pointer(3, CanaryPointer(1, 0.2))
    assert remove_label(store, "canary", reporter).serving == Pointer(3)
    rollback = roll_back(store, reporter=reporter)
    assert (rollback.version, [skipped.version for skipped in rollback.passed_over]) == (1, [2])
    assert [message.split(":")[0] for message in reporter.messages] == [
        f"{store.name} 1 is no canary any more",
        "passed over 2",
        f"{store.name} 1 is stable again, in place of 3",
    ]
    assert capfd.readouterr() == ("", "")


def test_a_refused_version_loses_its_labels_and_needs_force(store: ModelStore) -> None:
    publish_tiny(store)
    publish_tiny(store, 1, labels=("canary", "shadow"))
    refusal = refuse(store, 2)
    assert (refusal.labels, refusal.serving) == (["canary", "shadow"], Pointer(1))
    assert store.refusal(2) == BY_OPERATOR
    with pytest.raises(ArtifactError, match=r"version 2 was refused: an operator.*--force"):
        promote(store, 2, settings_of(store))


def test_what_the_gate_lets_pass_is_stable(store: ModelStore) -> None:
    gated: list[int] = []
    publish_tiny(store)
    assert publish_tiny_staged(store, gated.append, replaces=1) == 2
    assert (gated, store.pointer(), store.versions()) == ([2], Pointer(2), [1, 2])


def test_what_the_gate_refuses_keeps_its_number_and_gets_no_label(store: ModelStore) -> None:
    def gate(version: int) -> None:
        raise ArtifactError("latency", "too slow")

    publish_tiny(store)
    with pytest.raises(ArtifactError, match="too slow"):
        publish_tiny_staged(store, gate, discard_if_interrupted=True)
    assert (store.pointer(), store.versions()) == (Pointer(1), [1, 2])


def test_another_version_that_went_live_meanwhile_is_left_stable(store: ModelStore) -> None:
    publish_tiny(store)
    with pytest.raises(NotPublished, match="version 3 went live in place of 1 meanwhile; 2 stays") as refused:
        publish_tiny_staged(store, lambda _: publish_tiny(store, 2), replaces=1)
    assert (refused.value.reason, store.pointer()) == ("moved", Pointer(3))


@pytest.mark.parametrize("discard", [True, False])
def test_an_interrupted_version_is_discarded_where_that_is_asked_for(store: ModelStore, discard: bool) -> None:
    def gate(version: int) -> None:
        raise KeyboardInterrupt

    publish_tiny(store)
    with pytest.raises(KeyboardInterrupt):
        publish_tiny_staged(store, gate, discard_if_interrupted=discard)
    assert (store.pointer(), store.versions()) == (Pointer(1), [1] if discard else [1, 2])
    assert list(store.folder.glob(".tmp-*")) == []


def test_a_version_whose_publishing_was_interrupted_is_discarded_before_it_is_gated(
    store: ModelStore,
) -> None:
    class InterruptedStore(ModelStore):
        def publish(self, staged: Path) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().publish(staged)

    publish_tiny(store)
    gated: list[int] = []
    with pytest.raises(SystemExit), exit_on_sigterm():
        publish_tiny_staged(
            InterruptedStore(store.folder.parent, store.name), gated.append, replaces=1, discard_if_interrupted=True
        )
    assert (gated, store.pointer(), store.versions()) == ([], Pointer(1), [1])
    assert list(store.folder.glob(".tmp-*")) == []
