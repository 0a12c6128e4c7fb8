"""`route` chooses the live version that answers a request."""

from __future__ import annotations

from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from app.errors import InvalidRequest, NoModel
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.lifecycle.snapshot import LiveSnapshot

ARM_SALT = "ctr-canary\x1f"
STABLE, CANARY, SHADOW = "stable", "canary", "shadow"


class Route(NamedTuple):
    """The version that answers, and how it came to be chosen."""

    artifact: Artifact
    label: str
    """Label of the version; empty where the caller pinned a version that has none here."""
    fallback: bool = False
    """Whether the version that should be stable was refused, so that the last good one answers."""


def route_request(live: LiveSnapshot, request: RankRequest) -> Route:
    """Choose the version that answers this request. Raises what `route` raises."""
    return route(live, request.user_id, request.model, request.guest_arm)


def route(live: LiveSnapshot, user_id: str | None, choice: str | int | None = None, guest_arm: float = 1.0) -> Route:
    """Choose the version for this user.

    Args:
        user_id: None for a guest.
        choice: the caller's label or version number; None lets the canary's share decide. A user always gets the same
            arm, by a salted hash of the id that is the same in every worker and replica.
        guest_arm: for a guest, what `arm` is for a user: in [0, 1), another for each request.

    Raises:
        NoModel: nothing is live.
        InvalidRequest: `choice` is not live here.
    """
    if choice is None:
        if live.canary is not None and (guest_arm if user_id is None else arm(user_id)) < live.canary_share:
            return Route(live.canary, CANARY)
        if live.stable is None:
            raise NoModel(
                f"no version of {live.model} is live yet; publish one with `ctr train --name {live.model} --publish`, "
                "or name another model by CTR_MODEL"
            )
        return Route(live.stable, STABLE, live.fallback)
    labels = live.labels()
    if isinstance(choice, str) and choice in labels:
        return Route(labels[choice], choice, choice == STABLE and live.fallback)
    if (text := str(choice)).isascii() and text.isdecimal() and (pinned := live.by_version(int(choice))) is not None:
        return Route(pinned, next((label for label, artifact in labels.items() if artifact is pinned), ""))
    live_names = [f"{label} (version {artifact.version})" for label, artifact in labels.items()]
    raise InvalidRequest(
        f"that model is not live; live are {', '.join(live_names) or 'none'}: name a label or a version",
        errors=[("model", "not a live label or version")],
    )


def arm(user_id: str, salt: str = ARM_SALT) -> float:
    """Return a user's fixed position in [0, 1): those below the canary's share get the canary."""
    return float(xxh3_64_intdigest((salt + user_id).encode("utf-8", "surrogatepass")) / 2**64)
