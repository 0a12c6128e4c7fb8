"""Ids say which version answered, sort by time and are unique."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from app.events.impression_id import (
    ARMS,
    GROUPS,
    MAX_VERSION,
    ImpressionIds,
    arm_code,
    decode,
    encode,
    group_of,
    group_of_user,
    is_impression_id,
    parse_impression_id,
)
from app.ranking.routing import arm

times = st.integers(0, 2**48 - 1)


@given(times, st.integers(0, MAX_VERSION), st.sampled_from(ARMS), st.booleans(), st.text())
def test_an_id_says_time_version_label_and_the_users_group(
    at_ms: int, version: int, label: str, pinned: bool, user_id: str
) -> None:
    made = ImpressionIds().next(at_ms, version, label, pinned=pinned, user_id=user_id)
    assert is_impression_id(made)
    assert parse_impression_id(made) == (at_ms, version, label, pinned, group_of_user(user_id))
    assert made[10:15] == arm_code(version, label, pinned=pinned)
    assert group_of(made) == group_of_user(user_id)


def test_users_are_spread_over_the_groups_of_either_arm_and_guests_change_theirs() -> None:
    of_canary = [group_of_user(str(user)) for user in range(60_000) if arm(str(user)) < 0.1]
    counts = np.bincount(of_canary, minlength=GROUPS)
    mean = len(of_canary) / GROUPS
    assert ((counts - mean) ** 2 / mean).sum() < GROUPS + 5 * (2 * GROUPS) ** 0.5  # chi-squared
    ids = ImpressionIds()
    assert {group_of(ids.next(1, 1, "stable")) for _ in range(GROUPS)} == set(range(GROUPS))


def test_a_version_too_large_for_it_is_said_to_be_unknown() -> None:
    assert parse_impression_id(ImpressionIds().next(5, MAX_VERSION + 1, "stable")).version == 0


@given(times, times)
def test_ids_sort_by_their_time(one: int, other: int) -> None:
    ids = ImpressionIds()
    first, second = ids.next(one, 3, "stable"), ids.next(other, 1, "canary")
    assert (first[:10] < second[:10]) == (one < other)


def test_ids_of_one_millisecond_and_of_several_workers_differ() -> None:
    workers = [ImpressionIds() for _ in range(4)]
    made = [worker.next(1_700_000_000_000, 7, "stable") for worker in workers for _ in range(3000)]
    assert len(set(made)) == len(made)


@given(st.integers(0, 2**64))
def test_base_32_is_read_as_it_was_written(number: int) -> None:
    assert decode(encode(number, 13)) == number


@pytest.mark.parametrize("text", ["", "order-17", "0" * 25, "0" * 27, "8" + "0" * 25, "0" * 25 + "U", "0" * 25 + "a"])
def test_a_callers_own_id_is_none_of_ours(text: str) -> None:
    assert not is_impression_id(text)
    with pytest.raises(InvalidRequest):
        parse_impression_id(text)
