"""Refuse a version: it loses canary and shadow, and stays out until it is promoted by force."""

from __future__ import annotations

import msgspec

from app.registry.gate.gate_report import WITHDRAWN, GateCheck
from app.registry.store.model_store import ModelStore
from app.registry.store.pointer import Pointer
from app.registry.store.version_table import read_serving

BY_OPERATOR = GateCheck(WITHDRAWN, False, "operator", "an operator refused it over HTTP", comparison=True)


class Refusal(msgspec.Struct, frozen=True):
    """The outcome of refusing a version."""

    model: str
    version: int
    labels: list[str]
    """The labels it has lost."""
    serving: Pointer
    """The pointer afterwards, without its seal."""
    problem: str | None = None
    """Why the pointer cannot be read."""


def refuse(store: ModelStore, version: int, refusal: GateCheck = BY_OPERATOR) -> Refusal:
    """Write the refusal beside the version and take its labels away.

    Raises:
        ArtifactError: `stable` if the version is stable, `file` if the store cannot be written to.
    """
    labels = store.withdraw(version, refusal)
    return Refusal(store.name, version, labels, *read_serving(store))
