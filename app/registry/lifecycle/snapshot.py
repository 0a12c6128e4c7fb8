"""The live versions of a process, one immutable snapshot that a request reads once, and what happens to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from app.registry.artifact.artifact import Artifact

Label = Literal["stable", "canary", "shadow"]
LABELS: tuple[Label, ...] = ("stable", "canary", "shadow")
Outcome = Literal["live", "refused", "fallback", "retired", "withdrawn"]


@dataclass(frozen=True)
class LiveSnapshot:
    """The models in service. It is replaced as a whole by one reference: a request keeps the one that it read first."""

    stable: Artifact | None = None
    canary: Artifact | None = None
    canary_share: float = 0.0
    """Share of users in [0, 1] that the canary answers."""
    shadow: Artifact | None = None
    previous: Artifact | None = None
    """The stable version before this one: loaded, so that a rollback is quick, but not prepared to serve."""
    fallback: bool = False
    """True if `stable` is not the version that the pointer asks for, because that one was refused."""
    model: str = ""
    """Name of the model whose versions these are."""

    def labels(self) -> dict[str, Artifact]:
        """Map each label that some version has to that version."""
        versions = {"stable": self.stable, "canary": self.canary, "shadow": self.shadow}
        return {label: artifact for label, artifact in versions.items() if artifact is not None}

    def with_label(self, label: Label, artifact: Artifact | None) -> LiveSnapshot:
        """Return the snapshot in which this version has the label; None takes the label away."""
        match label:
            case "stable":
                return replace(self, stable=artifact, previous=self.stable or self.previous)
            case "canary":
                return replace(self, canary=artifact, canary_share=self.canary_share if artifact else 0.0)
            case "shadow":
                return replace(self, shadow=artifact)

    def by_version(self, version: int) -> Artifact | None:
        """Return the version with this number if it is in service, for callers that pin one."""
        return next((artifact for artifact in self.labels().values() if artifact.version == version), None)


@dataclass(frozen=True)
class SwapEvent:
    """Something that happened to a version in this process; counted in `ctr_model_swaps_total{outcome}`."""

    outcome: Outcome
    label: str
    """A label, or `pointer` if `serving.json` itself is at fault."""
    version: int | None
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    """Time from the decision to load until the version was live or refused."""


@dataclass(frozen=True)
class Problem:
    """Why a label is not what the pointer asks for. It stands until that is put right."""

    label: str
    version: int | None
    reason: str
    """One short word, as in `ArtifactError.reason`."""
    message: str


@dataclass(frozen=True)
class LifecycleStatus:
    """The state of the lifecycle, as `/health` and `/models` show it."""

    model: str
    versions: dict[str, int]
    """Label to version in service."""
    canary_share: float
    fallback: bool
    last_swap_at: float | None
    """Unix seconds; None before the first swap."""
    problems: tuple[Problem, ...] = field(default=())
    """The problems that stand now, the latest last."""
    damages: dict[int, str] = field(default_factory=dict)
    """What is wrong with the files of which live version; what was loaded of them serves on."""

    @property
    def last_error(self) -> Problem | None:
        """The problem that came last."""
        return self.problems[-1] if self.problems else None
