"""Options are read as people write them."""

from __future__ import annotations

import pytest
import typer

from app.commands.options import interval_seconds


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86_400)])
def test_times_are_read(text: str, expected: float) -> None:
    assert interval_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "30", "m", "0s", "-1h", "1w", "1h30m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="30m"):
        interval_seconds(text)
