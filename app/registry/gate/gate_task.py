"""The request to the gate's process: the versions, a sample of the feature store, thresholds and limits."""

from __future__ import annotations

import msgspec


class GateThresholds(msgspec.Struct, frozen=True):
    """Limits on how far a version may differ from the live one; `app.settings` gives advice."""

    ctr_ratio: float
    """Largest factor between the mean scores, up or down."""
    rank_correlation: float
    """Least agreement of the orders, Spearman's in [-1, 1]."""
    latency_ratio: float
    """Largest factor of the time for a request, and of that for encoding items."""
    known_keys: float
    """Least share in [0, 1] of the feature store's values that the version knows."""


class GateLimits(msgspec.Struct, frozen=True):
    """Limits on the time and memory of the process."""

    timeout_s: float
    memory_mb: int
    """Megabytes of address space beyond what an idle process has."""


class FeatureSample(msgspec.Struct, frozen=True):
    """Entities of the live feature store, raw, by id."""

    users: dict[str, dict[str, str]] = {}
    items: dict[str, dict[str, str]] = {}


class GateTask(msgspec.Struct, frozen=True):
    """The request that the process reads."""

    folder: str
    version: int
    manifest_sha256: str
    live_folder: str | None
    live_version: int | None
    live_manifest_sha256: str | None
    no_live_reason: str
    """Why there is no live version to compare with, if there is none."""
    sample: FeatureSample | None
    thresholds: GateThresholds
    limits: GateLimits
    better: bool = False
    """Whether the version was measured to be better than the live one on the same rows, beyond chance: then it may
    differ from it in its mean score and its order."""
