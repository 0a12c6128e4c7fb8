"""Tests of remembering values that are too large, by a clock that the test sets."""

from __future__ import annotations

import pytest

from app.features import oversized_users
from app.features.hash_command import HashCommand
from app.features.oversized_users import KEPT_S, OversizedUsers
from app.features.resp_reader import OVERSIZED

USUAL = HashCommand(("age", "recent", "liked"))


def known(features: dict[str, object], now: list[float]) -> OversizedUsers:
    users = OversizedUsers(lambda: now[0])
    users.note("1", USUAL, features)
    return users


def test_the_rest_is_read_and_what_is_too_large_is_still_said_to_be() -> None:
    now = [0.0]
    users = known({"age": "3", "recent": OVERSIZED, "liked": None}, now)
    command = users.command("1", USUAL)
    assert command.fields == ("age", "liked")
    assert command.features(["4", None]) == {"age": "4", "liked": None, "recent": OVERSIZED}
    assert users.command("2", USUAL) is USUAL
    now[0] = KEPT_S
    assert users.command("1", USUAL) is USUAL


def test_a_user_of_whom_all_is_too_large_is_known_while_it_is_there() -> None:
    everything = dict.fromkeys(USUAL.fields, OVERSIZED)
    command = known(everything, [0.0]).command("1", USUAL)
    assert command.features(2) == everything
    assert command.features(0) == {}


def test_usual_users_are_not_remembered_and_others_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversized_users, "MAX_USERS", 2)
    users = known({"age": "3", "recent": "4", "liked": None}, [0.0])
    assert users.command("1", USUAL) is USUAL
    for user in ("1", "2", "3"):
        users.note(user, USUAL, {"age": OVERSIZED})
    assert [users.command(user, USUAL) is USUAL for user in ("1", "2", "3")] == [True, False, False]
    users.forget()
    assert users.command("3", USUAL) is USUAL
