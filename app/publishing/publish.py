"""Publish a version: give it a number, gate it, make it stable, prune old versions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from app.errors import CtrError, NotPublished
from app.publishing.gate_version import gate_version
from app.publishing.reporter import SILENT, Reporter
from app.registry.gate.gate_report import GateReport
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.pruning import prune
from app.registry.store.version_table import read_serving
from app.runtime.signals import uninterrupted
from app.settings import Settings

Gate = Callable[[int], object]
"""Called with the number of a published version before it goes live; what it raises leaves the version unlabelled."""


class Publication(msgspec.Struct, frozen=True):
    """What `ctr publish --json` prints."""

    model: str
    version: int
    version_dir: str
    pruned: list[int]
    """The versions that were removed to make room."""
    gate: GateReport | None
    """None if the version was not to go live."""
    serving: Pointer
    """The pointer afterwards, without its seal."""
    problem: str | None = None
    """Why the pointer cannot be read."""


def publish(
    store: ModelStore,
    source: Path,
    settings: Settings,
    reporter: Reporter = SILENT,
    *,
    live: bool = True,
    forced: bool = False,
) -> Publication:
    """Copy a version folder into the store under the next number and make the copy stable once it has passed the gate.

    Args:
        live: gate the version and make it stable; otherwise it is only published.
        forced: let it pass however it compares with the live version.

    Raises:
        ArtifactError: the folder holds no whole version, the gate refused it, or the store cannot be written to.
    """
    version = store.publish_copy(source)
    report = None
    if live:
        report = gate_version(store, version, settings, reporter, forced=forced)
        store.promote(version)
    pruned = prune_old_versions(store, settings, reporter)
    return Publication(store.name, version, str(store.path(version)), pruned, report, *read_serving(store))


def publish_staged(
    store: ModelStore, staged: Path, gate: Gate, *, replaces: int | None = None, discard_if_interrupted: bool = False
) -> int:
    """Give a version that was built in a `store.staging()` folder its number, and make it stable if the gate lets it.

    Args:
        gate: called with the number; it raises to refuse the version.
        replaces: the version that must still be stable when the new one has passed.
        discard_if_interrupted: remove the version if the process is told to end before the gate has decided.

    Raises:
        NotPublished: `moved` if another version than `replaces` is stable by then.
        ArtifactError: the store cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        with uninterrupted():  # a signal that came in this block is raised at its end, where the version is discarded
            version = store.publish(staged)
            if discard_if_interrupted:
                stack.enter_context(_discarded_if_interrupted(store, version))
        gate(version)
        stable = store.pointer().stable if replaces is not None else None
        if stable != replaces:
            raise NotPublished(
                "moved",
                f"version {stable} went live in place of {replaces} meanwhile; {version} stays without a label: "
                "run it again",
            )
        with uninterrupted():
            store.promote(version)
    return version


def prune_old_versions(store: ModelStore, settings: Settings, reporter: Reporter = SILENT) -> list[int]:
    """Remove what CTR_KEEP_VERSIONS leaves no room for; return the numbers that were removed. Raises ArtifactError."""
    removed = prune(store, settings.keep_versions)
    if removed:
        reporter.notify(f"pruned {', '.join(map(str, removed))}: CTR_KEEP_VERSIONS is {settings.keep_versions}")
    return removed


@contextlib.contextmanager
def _discarded_if_interrupted(store: ModelStore, version: int) -> Iterator[None]:
    """Remove a version on which no decision was made; a refused one stays, with the reason beside it."""
    try:
        yield
    except CtrError:
        raise
    except BaseException:
        with uninterrupted():
            store.discard_unlabelled(version)
        raise
