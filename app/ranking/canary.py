"""`CanaryWindow` compares a canary's answers with stable's over a window of requests and finds the limit it crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from app.ranking.score_histogram import ScoreStats

MAX_WINDOWS = 50
"""If stable is too quiet to compare with, a window closes after this many times `min_requests` canary requests."""


@dataclass(frozen=True)
class CanaryLimits:
    """How far a canary may stray. The settings `canary_*` have these names and give advice."""

    min_requests: int
    """Requests of the canary, and for scores of stable too, before they are compared."""
    error_rate: float
    non_finite_rate: float
    ctr_ratio: float
    drift: float


class CanaryFailure(NamedTuple):
    """Why a canary is withdrawn."""

    reason: str
    """`errors`, `finite`, `shift` or `drift`."""
    detail: str
    figures: dict[str, float]


def find_failure(canary: ScoreStats, stable: ScoreStats, limits: CanaryLimits) -> CanaryFailure | None:
    """Compare what a canary and stable did over the same time, and return the first limit that the canary crossed.

    Rates are taken over the window's requests, or over `limits.min_requests` before it has that many: a canary fails
    early once the rest of the window could not bring its rate down again. The rate that stable has itself is allowed
    to the canary on top.
    """
    requests_due = max(canary.attempts, limits.min_requests)
    for reason, verb, count, stable_count, max_rate in (
        ("errors", "failed to score", canary.errors, stable.errors, limits.error_rate),
        ("finite", "gave scores that are not finite for", canary.non_finite, stable.non_finite, limits.non_finite_rate),
    ):
        expected = requests_due * stable_count / stable.attempts if stable.attempts else 0.0
        if count - expected > max_rate * requests_due:
            detail = f"it {verb} {count} of {canary.attempts} requests; {max_rate:.2%} are allowed"
            return CanaryFailure(
                reason, detail, {"requests": canary.attempts, reason: count, f"stable_{reason}": stable_count}
            )
    if min(canary.attempts, stable.attempts) < limits.min_requests or canary.mean is None or stable.mean is None:
        return None
    ratio = canary.mean / stable.mean if stable.mean else float("inf") if canary.mean else 1.0
    distance = canary.distance(stable)
    figures = {"requests": canary.attempts, "ctr_ratio": round(ratio, 4), "distance": round(distance, 4)}
    if not 1 / limits.ctr_ratio <= ratio <= limits.ctr_ratio:
        detail = f"its mean score is {ratio:.2f} times stable's over {canary.attempts} requests"
        return CanaryFailure("shift", f"{detail}; {limits.ctr_ratio:g} is allowed", figures)
    if distance > limits.drift:
        detail = f"its scores lie {distance:.2f} from stable's over {canary.attempts} requests (Kolmogorov-Smirnov)"
        return CanaryFailure("drift", f"{detail}; {limits.drift:g} is allowed", figures)
    return None


class CanaryWindow:
    """The latest requests of one canary beside those of stable.

    The window begins at the older of two marks. Once `min_requests` came after the newer one, the older is dropped, so
    the window holds between one and two times that many requests.
    """

    def __init__(self, manifests: tuple[str, str], canary: ScoreStats, stable: ScoreStats) -> None:
        """
        Args:
            manifests: hashes of the canary's and stable's manifests: holding the versions would keep them in memory.
            canary: running totals, which go on growing.
            stable: the running totals of stable.
        """
        self.manifests = manifests
        self.closed = False
        """Whether the canary failed already, so that its failure is reported once."""
        self._canary, self._stable = canary, stable
        self._marks = [(canary.copy(), stable.copy())]

    def check(self, limits: CanaryLimits) -> CanaryFailure | None:
        """Compare the two over the window, then move its beginning if there are enough requests after it."""
        oldest, newest = self._marks[0], self._marks[-1]
        failure = find_failure(self._canary.since(oldest[0]), self._stable.since(oldest[1]), limits)
        canary = self._canary.attempts - newest[0].attempts
        stable = self._stable.attempts - newest[1].attempts
        if canary >= limits.min_requests and (
            stable >= limits.min_requests or canary >= MAX_WINDOWS * limits.min_requests
        ):
            self._marks = [newest, (self._canary.copy(), self._stable.copy())]
        return failure
