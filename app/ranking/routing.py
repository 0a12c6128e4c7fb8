"""Which live version answers a request."""

from __future__ import annotations

from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from app.errors import InvalidRequest, NoModel
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot

ARM_SALT = "ctr-canary\x1f"
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


class Route(NamedTuple):
    artifact: Artifact
    label: str
    """Empty where the caller pinned a version that carries no label here."""
    fallback: bool = False
    """The version that should be stable was refused, and the last good one answers."""


def route(live: LiveSnapshot, user_id: str, wanted: str | int | None = None) -> Route:
    """The version for this user.

    Args:
        wanted: a label or a version number; None lets the canary's share decide, sticky per user: a salted hash of
            the id, the same in every worker and replica.

    Raises:
        NoModel: nothing is live.
        InvalidRequest: the version or label that was asked for is not live here.
    """
    if wanted is None:
        if live.canary is not None and arm(user_id) < live.canary_share:
            return Route(live.canary, CANARY)
        if live.stable is None:
            raise NoModel("no model is live yet; publish one with `ctr train --publish`")
        return Route(live.stable, STABLE, live.fallback)
    labels = live.labels()
    if isinstance(wanted, str) and wanted in labels:
        return Route(labels[wanted], wanted, wanted == STABLE and live.fallback)
    if str(wanted).isdecimal() and (pinned := live.by_version(int(wanted))) is not None:
        return Route(pinned, next((label for label, artifact in labels.items() if artifact is pinned), ""))
    known = [*labels, *(str(artifact.version) for artifact in labels.values())]
    raise InvalidRequest(
        f"that model is not live; live are {', '.join(known) or 'none'}",
        errors=[("model", "not a live label or version")],
    )


def arm(user_id: str) -> float:
    """Where a user stands in [0, 1)."""
    return float(xxh3_64_intdigest((ARM_SALT + user_id).encode("utf-8", "surrogatepass")) / 2**64)
