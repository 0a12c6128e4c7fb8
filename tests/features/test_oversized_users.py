"""Tests of remembering values that are too large, by a clock that the test sets."""

from __future__ import annotations

import pytest

from app.features import oversized_users
from app.features.hash_command import HashCommand
from app.features.oversized_users import KEPT_S, OversizedUsers
from app.features.resp_reader import OVERSIZED

USUAL = HashCommand(("age", "recent", "liked"))


def known(reply: list[object], now: list[float]) -> OversizedUsers:
    users = OversizedUsers(lambda: now[0])
    users.note("1", USUAL, reply)
    return users


def test_the_rest_is_read_and_what_is_too_large_is_still_said_to_be() -> None:
    now = [0.0]
    users = known(["3", OVERSIZED, None], now)
    command = users.command("1", USUAL)
    assert command.fields == ("age", "liked")
    assert command.features(["4", None]) == {"age": "4", "liked": None, "recent": OVERSIZED}
    assert users.command("2", USUAL) is USUAL
    now[0] = KEPT_S
    assert users.command("1", USUAL) is USUAL


def test_a_user_of_whom_all_is_too_large_is_known_while_it_is_there() -> None:
    everything = dict.fromkeys(USUAL.fields, OVERSIZED)
    command = known([OVERSIZED] * 3, [0.0]).command("1", USUAL)
    assert command.features(2) == everything
    assert command.features(0) == {}


def test_what_becomes_too_large_later_is_left_out_too() -> None:
    users = known(["3", OVERSIZED, None], [0.0])
    users.note("1", users.command("1", USUAL), [OVERSIZED, "5"])
    command = users.command("1", USUAL)
    assert command.fields == ("liked",)
    assert command.features(["5"]) == {"liked": "5", "recent": OVERSIZED, "age": OVERSIZED}


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversized_users, "MAX_USERS", 2)
    users = OversizedUsers(lambda: 0.0)
    for user in ("1", "2", "2", "3"):
        users.note(user, USUAL, [OVERSIZED, "1", "2"])
    assert [users.command(user, USUAL) is USUAL for user in ("1", "2", "3")] == [True, False, False]
    users.forget()
    assert users.command("3", USUAL) is USUAL
