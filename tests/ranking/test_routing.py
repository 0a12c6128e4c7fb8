"""Tests of routing: the canary answers as many users as its share says, and always the same ones."""

from __future__ import annotations

import pytest

from app.api.schemas import parse_rank
from app.errors import InvalidRequest, NoModel
from app.ranking.request import RankRequest
from app.ranking.routing import CANARY, STABLE, arm, route, route_request
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.factories import publish_tiny

USERS = 100_000


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact]:
    store = ModelStore(tmp_path_factory.mktemp("store"), "deepfm")
    first, second = (load(store.path(publish_tiny(store, seed))) for seed in range(2))
    return first, second


def live(versions: tuple[Artifact, Artifact], share: float) -> LiveSnapshot:
    return LiveSnapshot(stable=versions[0], canary=versions[1], canary_share=share)


def canary_users(snapshot: LiveSnapshot, ids: list[str]) -> set[str]:
    return {user for user in ids if route(snapshot, user).label == CANARY}


@pytest.mark.parametrize("form", ["{}", "user-{}", "{:032x}", "{}@example.org"])
def test_the_canarys_share_is_what_was_asked_for(versions: tuple[Artifact, Artifact], form: str) -> None:
    ids = [form.format(number) for number in range(USERS)]
    for share in (0.01, 0.05, 0.5):
        found = len(canary_users(live(versions, share), ids)) / USERS
        assert abs(found - share) < 0.01, f"{found:.4f} of {share}"


def test_nobody_changes_arm(versions: tuple[Artifact, Artifact]) -> None:
    ids = [str(number) for number in range(USERS)]
    one_in_twenty = canary_users(live(versions, 0.05), ids)
    swapped = LiveSnapshot(stable=versions[1], canary=versions[0], canary_share=0.05)
    assert canary_users(live(versions, 0.05), ids) == one_in_twenty, "asked again"
    assert canary_users(swapped, ids) == one_in_twenty, "whatever the versions are"
    assert canary_users(live(versions, 0.2), ids) > one_in_twenty, "who was in it stays in it as it grows"
    assert canary_users(live(versions, 0.0), ids) == set()
    assert len(canary_users(live(versions, 1.0), ids)) == USERS


def test_guests_are_spread_by_request(versions: tuple[Artifact, Artifact]) -> None:
    snapshot = live(versions, 0.3)
    requests = [parse_rank(b'{"item_ids": ["1"]}', 10) for _ in range(3000)]
    canaries = [request for request in requests if route_request(snapshot, request).label == CANARY]
    assert abs(len(canaries) / len(requests) - 0.3) < 0.05
    for request in requests[:100]:
        assert route_request(snapshot, request) == route_request(snapshot, request), "a request stays where it is"
    assert route_request(snapshot, RankRequest(None, ["1"])).label == STABLE
    assert route_request(snapshot, RankRequest(None, ["1"], model=CANARY)).label == CANARY
    assert route_request(snapshot, RankRequest("7", ["1"])) == route(snapshot, "7")


ARMS = {
    "0": 0.9013198270433669,
    "42": 0.643784326943783,
    "é": 0.5548082510360864,
    "a" * 500: 0.8785509447260252,
    "\ud800": 0.7669485180793844,
}
"""Computed by another process; replicas agree with each other, and with those of the release before."""


def test_every_process_of_every_release_agrees() -> None:
    assert {user: arm(user) for user in ARMS} == ARMS


def test_callers_may_ask_for_a_label_or_a_version(versions: tuple[Artifact, Artifact]) -> None:
    snapshot = live(versions, 0.0)
    assert route(snapshot, "1").artifact is versions[0]
    assert route(snapshot, "1", STABLE).label == STABLE
    assert route(snapshot, "1", CANARY).artifact is versions[1]
    assert route(snapshot, "1", 2).artifact is route(snapshot, "1", "2").artifact is versions[1]
    for unknown in ("shadow", 9, "9", "best", "", "²"):
        with pytest.raises(InvalidRequest, match=r"live are stable \(version 1\), canary \(version 2\)"):
            route(snapshot, "1", unknown)
    with pytest.raises(NoModel, match=r"no version of shop is live yet.*--name shop"):
        route(LiveSnapshot(model="shop"), "1")


def test_who_is_answered_by_a_fallback_is_told(versions: tuple[Artifact, Artifact]) -> None:
    snapshot = LiveSnapshot(stable=versions[0], fallback=True)
    assert route(snapshot, "1").fallback
    assert route(snapshot, "1", STABLE).fallback
    assert not route(LiveSnapshot(stable=versions[0]), "1").fallback
