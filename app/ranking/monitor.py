"""What each live version does, counted as its answers go out; and whether a canary should stay.

Requests, errors, answers with scores that are not finite, and where the scores lie: a few of each answer's, spread
evenly over its order, so that a request of a thousand candidates costs no more than one of ten.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from random import random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.observability.metrics import SCORES
from app.ranking.routing import CANARY, STABLE
from app.registry.lifecycle.snapshot import LiveSnapshot

PINNED = "pinned"
"""Requests whose caller chose the version: counted apart, because who asks for what is not left to chance."""

PARTS = 4
BOUNDS = [
    low + (high - low) * part / PARTS
    for low, high in zip((0.0, *SCORES), SCORES, strict=False)
    for part in range(1, PARTS + 1)
]
"""Each exported bucket in four, for quantiles and distances."""
QUANTILES = (0.1, 0.5, 0.9, 0.99)
SAMPLED = 4
"""Scores taken of an answer, or up to twice as many."""

JUDGED = 16
"""Times that scores are judged while a window fills: a judgement costs as much as ten answers."""
MAX_WINDOWS = 50
"""A window without enough of stable's answers ends at that many times its least requests."""
MAX_KEPT = 16


@dataclass(slots=True)
class Figures:
    """Running totals of one version under one label."""

    requests: int = 0
    """Answers."""
    errors: int = 0
    """Requests it failed to score."""
    non_finite: int = 0
    """Answers in which a score was not a number; their scores are not sampled."""
    sampled: int = 0
    total: float = 0.0
    """Sum of the sampled scores."""
    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """Sampled scores by bucket of `BOUNDS`."""

    @property
    def attempts(self) -> int:
        return self.requests + self.errors

    @property
    def mean(self) -> float | None:
        return self.total / self.sampled if self.sampled else None

    def add(self, scores_N: npt.NDArray[np.float32]) -> None:
        step = len(scores_N) // SAMPLED or 1
        sample = scores_N[int(random() * step) :: step].tolist()
        counts = self.counts
        for score in sample:
            counts[bisect_left(BOUNDS, score)] += 1
        self.total += sum(sample)
        self.sampled += len(sample)

    def copy(self) -> Figures:
        return Figures(self.requests, self.errors, self.non_finite, self.sampled, self.total, list(self.counts))

    def since(self, earlier: Figures) -> Figures:
        return Figures(
            self.requests - earlier.requests,
            self.errors - earlier.errors,
            self.non_finite - earlier.non_finite,
            self.sampled - earlier.sampled,
            self.total - earlier.total,
            [now - then for now, then in zip(self.counts, earlier.counts, strict=True)],
        )

    def quantile(self, share: float) -> float | None:
        """The score that this share of the sample is below, to within a bucket of `BOUNDS`."""
        if not self.sampled:
            return None
        left = share * self.sampled
        for index, count in enumerate(self.counts):
            if count and left <= count:
                low = BOUNDS[index - 1] if index else 0.0
                high = BOUNDS[index] if index < len(BOUNDS) else 1.0
                return low + (high - low) * left / count
            left -= count
        return 1.0


def distance(one: Figures, other: Figures) -> float:
    """Largest difference of the two distributions' shares below any score, 0 to 1 (Kolmogorov-Smirnov)."""
    if not one.sampled or not other.sampled:
        return 0.0
    below_one = np.cumsum(one.counts) / one.sampled
    return float(np.abs(below_one - np.cumsum(other.counts) / other.sampled).max())


@dataclass(frozen=True)
class Limits:
    """What a canary may do; advice is in `app.settings`."""

    requests: int
    """Of the canary, and for scores of stable too, before they are judged."""
    error_rate: float
    non_finite_rate: float
    ctr_ratio: float
    distance: float


class Fault(NamedTuple):
    """Why a canary is taken out."""

    reason: str
    """`errors`, `finite`, `shift` or `drift`."""
    detail: str
    figures: dict[str, float]


def fault(canary: Figures, stable: Figures, limits: Limits) -> Fault | None:
    """What a canary did over a window that it should not have, seen beside stable over the same time.

    Rates are of the window or, before it is full, of the requests it will have: so many that the rest could not make up
    for them are enough. What stable does as well is not held against the canary.
    """
    due = max(canary.attempts, limits.requests)
    for reason, word, bad, usual, most in (
        ("errors", "failed to score", canary.errors, stable.errors, limits.error_rate),
        ("finite", "gave scores that are not finite for", canary.non_finite, stable.non_finite, limits.non_finite_rate),
    ):
        expected = due * usual / stable.attempts if stable.attempts else 0.0
        if bad - expected > most * due:
            detail = f"it {word} {bad} of {canary.attempts} requests; {most:.2%} are allowed"
            return Fault(reason, detail, {"requests": canary.attempts, reason: bad, f"stable_{reason}": usual})
    if min(canary.attempts, stable.attempts) < limits.requests or canary.mean is None or stable.mean is None:
        return None
    ratio = canary.mean / stable.mean if stable.mean else float("inf") if canary.mean else 1.0
    apart = distance(canary, stable)
    figures = {"requests": canary.attempts, "ctr_ratio": round(ratio, 4), "distance": round(apart, 4)}
    if not 1 / limits.ctr_ratio <= ratio <= limits.ctr_ratio:
        detail = f"its mean score is {ratio:.2f} times stable's over {canary.attempts} requests"
        return Fault("shift", f"{detail}; {limits.ctr_ratio:g} is allowed", figures)
    if apart > limits.distance:
        detail = f"its scores lie {apart:.2f} from stable's over {canary.attempts} requests (Kolmogorov-Smirnov)"
        return Fault("drift", f"{detail}; {limits.distance:g} is allowed", figures)
    return None


class _Trial:
    """A canary beside stable. A window is what came since one of two marks, so it is never short and never stale."""

    def __init__(self, versions: tuple[str, str], canary: Figures, stable: Figures) -> None:
        self.versions = versions
        """Hashes of the two manifests: the artifacts themselves would be kept alive."""
        self.over = False
        self._canary, self._stable = canary, stable
        self._marks = [(canary.copy(), stable.copy())]

    def judged(self, limits: Limits) -> Fault | None:
        earliest, latest = self._marks[0], self._marks[-1]
        found = fault(self._canary.since(earliest[0]), self._stable.since(earliest[1]), limits)
        canary = self._canary.attempts - latest[0].attempts
        stable = self._stable.attempts - latest[1].attempts
        if canary >= limits.requests and (stable >= limits.requests or canary >= MAX_WINDOWS * limits.requests):
            self._marks = [latest, (self._canary.copy(), self._stable.copy())]
        return found


class Watch:
    """Told of every answer and every failure, on the event loop's thread."""

    def __init__(
        self,
        live: Callable[[], LiveSnapshot],
        limits: Limits | None = None,
        on_fault: Callable[[int, Fault], None] = lambda version, found: None,
    ) -> None:
        """
        Args:
            limits: None lets a canary do what it will.
            on_fault: told the canary's version, once.
        """
        self._live = live
        self._limits = limits
        self._every = max(1, limits.requests // JUDGED) if limits is not None else 1
        self._on_fault = on_fault
        self._figures: dict[tuple[str, int], Figures] = {}
        self._trial: _Trial | None = None

    def answered(
        self, label: str, version: int, scores_N: npt.NDArray[np.float32], *, finite: bool = True, pinned: bool = False
    ) -> None:
        """An answer was sent, with these scores, best first."""
        figures = self._of(PINNED if pinned else label, version)
        if label == CANARY and not pinned and self._limits is not None:
            self._follow(version, figures)
        figures.requests += 1
        if finite:
            figures.add(scores_N)
        else:
            figures.non_finite += 1
        if label == CANARY and not pinned and (not finite or figures.requests % self._every == 0):
            self._judge(version)

    def failed(self, label: str, version: int, *, pinned: bool = False) -> None:
        """A version raised an error over a request that it should have scored."""
        figures = self._of(PINNED if pinned else label, version)
        if label == CANARY and not pinned and self._limits is not None:
            self._follow(version, figures)
        figures.errors += 1
        if label == CANARY and not pinned:
            self._judge(version)

    def figures(self) -> dict[tuple[str, int], Figures]:
        """By label and version, may be called from any thread."""
        return dict(self._figures)

    def _of(self, label: str, version: int) -> Figures:
        figures = self._figures.get((label, version))
        if figures is None:
            self._forget()
            figures = self._figures[label, version] = Figures()
        return figures

    def _forget(self) -> None:
        """Make room: what is no longer live goes, the oldest first."""
        live = {artifact.version for artifact in self._live().labels().values()}
        gone = [key for key in self._figures if key[1] not in live]
        for key in gone[: max(0, len(self._figures) + 1 - MAX_KEPT)]:
            del self._figures[key]

    def _follow(self, version: int, canary: Figures) -> None:
        """Begin anew where what is live has changed."""
        live = self._live()
        if live.canary is None or live.stable is None or live.canary.version != version or live.canary is live.stable:
            self._trial = None  # the answer was on its way when the canary was taken out
            return
        versions = live.canary.manifest_sha256, live.stable.manifest_sha256
        if self._trial is None or self._trial.versions != versions:
            self._trial = _Trial(versions, canary, self._of(STABLE, live.stable.version))

    def _judge(self, version: int) -> None:
        trial = self._trial
        if trial is None or trial.over or self._limits is None:
            return
        found = trial.judged(self._limits)
        if found is not None:
            trial.over = True
            self._on_fault(version, found)
