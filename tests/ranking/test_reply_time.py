"""Tests of how long the store takes, told by the least that requests waited for it lately."""

from __future__ import annotations

import pytest

from app.ranking.reply_time import WINDOW_S, ReplyTime


def test_it_is_the_least_of_the_last_one_or_two_windows() -> None:
    now, noted = [100.0], []
    reply_time = ReplyTime(lambda: now[0])
    assert reply_time.least_s == 0.0, "none has waited"
    for number in range(400):
        now[0] += WINDOW_S / 50
        noted.append((now[0], 0.001 * (1 + number * 7 % 30) + (0.1 if number >= 200 else 0.0)))
        reply_time.note(noted[-1][1])
        newest = min(seconds for at, seconds in noted if at >= now[0] - 0.9 * WINDOW_S)
        oldest = min(seconds for at, seconds in noted if at >= now[0] - 2.1 * WINDOW_S)
        assert oldest <= reply_time.least_s <= newest
    assert reply_time.least_s == pytest.approx(0.101), "what was before the store became slow is forgotten"
