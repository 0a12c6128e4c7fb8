"""Roll back: return to a version that was stable before, or take a label away."""

from __future__ import annotations

import msgspec

from app.errors import ArtifactError, ConfigError
from app.publishing.reporter import SILENT, Reporter
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.version_table import read_serving


class PassedOver(msgspec.Struct, frozen=True):
    """A version that a rollback would have returned to if it could be loaded."""

    version: int
    reason: str
    message: str


class Rollback(msgspec.Struct, frozen=True):
    """What `ctr rollback --json` prints."""

    model: str
    label: str
    version: int
    """The version that is stable again."""
    passed_over: list[PassedOver]
    serving: Pointer
    """The pointer afterwards, without its seal."""
    problem: str | None = None
    """Why the pointer cannot be read."""


class LabelRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """What `ctr rollback --as LABEL --json` prints: the fields of `Rollback`, without a version."""

    model: str
    label: str
    version: None = None
    passed_over: list[PassedOver] = []
    serving: Pointer
    problem: str | None = None


def roll_back(store: ModelStore, to: int | None = None, reporter: Reporter = SILENT) -> Rollback:
    """Make an earlier version stable again, once it has been loaded to see that it works.

    Args:
        to: a version that was stable before; by default the latest of them that loads.

    Raises:
        ConfigError: there is no such version.
        ArtifactError: the version `to` cannot be loaded, or the store cannot be written to.
    """
    replaced = store.pointer().stable
    if to is None:
        version, passed_over = _load_latest(store, replaced)
    else:
        version, passed_over = _load_earlier(store, to, replaced), []
    store.roll_back(version)
    for skipped in passed_over:
        reporter.notify(f"passed over {skipped.version}: {skipped.message}")
    reporter.notify(f"{store.name} {version} is stable again, in place of {replaced}")
    return Rollback(store.name, "stable", version, passed_over, *read_serving(store))


def remove_label(store: ModelStore, label: str, reporter: Reporter = SILENT) -> LabelRemoval:
    """Take `canary` or `shadow` away from the version that has it. Raises ArtifactError if that cannot be written."""
    version = store.pointer().versions_by_label().get(label)
    if version is None:
        reporter.notify(f"{store.name} has no {label}: nothing was changed")
    else:
        store.update_pointer(**{label: None})
        reporter.notify(f"{store.name} {version} is no {label} any more")
    serving, problem = read_serving(store)
    return LabelRemoval(model=store.name, label=label, serving=serving, problem=problem)


def _load_earlier(store: ModelStore, version: int, replaced: int | None) -> int:
    """Load a version that was stable before `replaced`, and return its number. Raises ConfigError, ArtifactError."""
    once_stable = [number for number in store.rollback_candidates(before=replaced) if number in store.history()]
    if version not in once_stable:
        listed = ", ".join(map(str, once_stable)) or "none"
        forward = f"; `ctr promote {version}` makes it stable" if version in store.versions() else ""
        raise ConfigError(
            f"{store.name} has no version {version} to return to; stable before {replaced} were: {listed}{forward}"
        )
    store.load(version)
    return version


def _load_latest(store: ModelStore, replaced: int | None) -> tuple[int, list[PassedOver]]:
    """Load the latest version that was stable before `replaced` and can be loaded; return it and those passed over."""
    passed_over: list[PassedOver] = []
    for version in store.rollback_candidates(before=replaced):
        try:
            store.load(version)
        except ArtifactError as error:
            passed_over.append(PassedOver(version, error.reason, str(error)))
        else:
            return version, passed_over
    failed = f"; {', '.join(str(skipped.version) for skipped in passed_over)} do not load" if passed_over else ""
    if replaced is None:
        raise ConfigError(f"{store.name} has no live version in {store.folder}, and so none to return from{failed}")
    raise ConfigError(f"{store.name} {replaced} is stable and there is no earlier version to return to{failed}")
