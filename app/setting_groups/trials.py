"""`TrialSettings` says how versions are tried on requests: when a canary is taken out, and how much a shadow scores."""

from __future__ import annotations

from pydantic import BaseModel, Field


class TrialSettings(BaseModel):
    """Says how versions are tried on requests: when a canary is taken out, and how much a shadow scores."""

    canary_guard: bool = Field(True, description="Take a canary out by itself when it crosses one of the limits below.")
    canary_min_requests: int = Field(
        1000,
        ge=10,
        le=10_000_000,
        description="Scores of a canary are compared over the last so many of its requests in a process, to twice as "
        "many; fewer judge sooner, and by less.",
    )
    canary_error_rate: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of requests that a canary may fail to score; stable answers those."
    )
    canary_non_finite_rate: float = Field(
        0.01, ge=0.0, le=1.0, description="Share of a canary's answers that may hold a score which is not a number."
    )
    canary_ctr_ratio: float = Field(
        1.5,
        ge=1.0,
        description="A canary's mean score may be this many times stable's, or stable's its; users differ more than "
        "candidates of one request, so leave more room than the gate does.",
    )
    canary_drift: float = Field(
        0.3,
        ge=0.0,
        le=1.0,
        description="How far the distributions of a canary's and of stable's scores may lie apart "
        "(Kolmogorov-Smirnov); 1 allows everything.",
    )
    canary_click_error: float = Field(
        0.05,
        ge=0.0,
        le=0.5,
        description="Probability with which a canary as good as stable is ever said to get fewer or more clicks, and "
        "is taken out for fewer, though looked at after each click; needs CTR_EVENTS and feedback. 0 does not look.",
    )
    shadow_share: float = Field(
        0.1,
        ge=0.0,
        le=1.0,
        description="Share of requests of which the shadow scores up to 100 items too, once they are answered; fewer "
        "when the process is busy, and for 5 % at most of the time that requests leave.",
    )
