"""Promote a published version: check that it was not refused, gate it, point a label at it."""

from __future__ import annotations

import msgspec

from app.errors import ArtifactError, ConfigError
from app.publishing.gate_version import gate_version
from app.publishing.reporter import SILENT, Reporter
from app.registry.gate.gate_report import GateReport
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.version_table import read_serving
from app.settings import Settings


class Promotion(msgspec.Struct, frozen=True):
    """What `ctr promote --json` prints."""

    model: str
    version: int
    label: str
    gate: GateReport | None
    serving: Pointer
    """The pointer afterwards, without its seal."""
    problem: str | None = None
    """Why the pointer cannot be read."""


def promote(
    store: ModelStore,
    version: int,
    settings: Settings,
    reporter: Reporter = SILENT,
    *,
    label: str = "stable",
    share: float = 0.05,
    forced: bool = False,
) -> Promotion:
    """Give a version a label once it has passed the gate.

    Args:
        label: `stable`, `canary` or `shadow`.
        share: the share of users in [0, 1] that a canary answers.
        forced: judge a version that was refused again, and let it pass however it compares.

    Raises:
        ConfigError: the store has no such version, or it is stable and cannot be canary or shadow of itself.
        ArtifactError: the version was refused, earlier or now, or the store cannot be written to.
    """
    published = store.versions()
    if version not in published:
        listed = ", ".join(map(str, published)) or "none yet"
        raise ConfigError(f"{store.name} has no version {version}; published in {store.folder}: {listed}")
    if label != "stable" and read_serving(store)[0].stable == version:
        raise ConfigError(f"{store.name} {version} is stable: a {label} is another version beside it")
    if not forced:
        check_not_refused(store, version, hint="; --force has it judged again")
    options = {"canary": f" --as canary --share {share:g}", "shadow": " --as shadow"}.get(label, "")
    report = gate_version(store, version, settings, reporter, forced=forced, options=options)
    store.promote(version, label, share)
    return Promotion(store.name, version, label, report, *read_serving(store))


def check_not_refused(store: ModelStore, version: int, *, hint: str = "") -> None:
    """Raise ArtifactError if the version was refused earlier. A version that cannot be read is left to the gate.

    Args:
        hint: appended to the message, where the version may pass if it is judged again.
    """
    refusal = store.refusal(version)
    if refusal is not None:
        helps = (
            hint
            if refusal.can_be_forced or not hint
            else "; train it again, since --force helps only once its files are mended"
        )
        raise ArtifactError(refusal.reason, f"version {version} was refused: {refusal.detail}{helps}")
