"""What a click causes is left out, and what is rare is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from app.training.data.schema_proposal import propose_schema
from tests.training.data.schema_tables import CLICKED, RANDOM, ROWS, SECONDS, USERS, iso, propose, types

DWELL = np.where(CLICKED & (RANDOM.random(ROWS) < 0.9), RANDOM.exponential(30, ROWS).round(1), np.nan)
ORDER = np.where(CLICKED & (RANDOM.random(ROWS) < 0.5), RANDOM.integers(1, 10**6, ROWS), -1)
SKIPPED = ~CLICKED & (RANDOM.random(ROWS) < 0.4)
AFTERMATH: dict[str, tuple[object, str]] = {
    "times of downloads": (
        [str(second) if clicked else None for second, clicked in zip(iso(SECONDS), CLICKED, strict=True)],
        "present only where the label is 1",
    ),
    "dwell": (DWELL, "present only where the label is 1"),
    "dwell, else 0": (np.nan_to_num(DWELL), "other than 0"),
    "order, else -1": (ORDER, "other than -1"),
    "conversions": ((CLICKED & (RANDOM.random(ROWS) < 0.3)).astype(int), "other than 0 only where the label is 1"),
    "reason of a skip": (["late" if late else None for late in SKIPPED], "present only where the label is 0"),
}


@pytest.mark.parametrize("kind", AFTERMATH)
def test_what_a_click_causes_is_left_out(tmp_path: Path, kind: str) -> None:
    column, reason = AFTERMATH[kind]
    proposal = propose(tmp_path, {"user_id": USERS, "x": pl.Series(column, nan_to_null=True)})
    assert proposal.left_out["x"].startswith(reason)


def test_where_clicks_are_rare_or_none_is_met_yet_nothing_tells_them(tmp_path: Path) -> None:
    for clicks in (0, 6):
        table = pl.DataFrame({"user": [f"u{n % 97}" for n in range(20_000)], "os": ["ios", "android"] * 10_000})
        table = table.with_columns(click=pl.Series([1] * clicks + [0] * (20_000 - clicks)).shuffle(seed=1))
        table.write_csv(tmp_path / "rows.csv")
        assert set(types(propose_schema(tmp_path / "rows.csv", label="click"))) == {"user", "os"}


def test_a_text_that_tells_the_label_is_left_out(tmp_path: Path) -> None:
    outcome = ["bought" if clicked else "left" for clicked in CLICKED]
    assert propose(tmp_path, {"user_id": USERS, "x": outcome}).left_out["x"].startswith("tells the label")


def test_what_is_rare_but_not_caused_stays(tmp_path: Path) -> None:
    rare = np.where(RANDOM.random(ROWS) < 0.01, RANDOM.integers(1, 50, ROWS), 0)
    assert "x" in types(propose(tmp_path, {"user_id": USERS, "x": rare}))


def test_siblings_of_what_a_click_causes_are_left_out(tmp_path: Path) -> None:
    """Presence, zero or not, a few sentinels, a bucketed number, lists, a category, and a few conversions."""
    views = RANDOM.choice(["view", "scroll", "hover"], ROWS)
    seconds = RANDOM.integers(1, 600, ROWS)
    few = np.zeros(ROWS, int)
    few[np.flatnonzero(CLICKED)[:9]] = 1
    columns: dict[str, object] = {
        "event_type": np.where(CLICKED, "click", views).tolist(),
        "last_event": np.where(CLICKED & (RANDOM.random(ROWS) < 0.5), "purchase", views).tolist(),
        "dwell_bucket": [f"{s // 100}00+" if c else "none" for s, c in zip(seconds, CLICKED, strict=True)],
        "watch_ms": np.where(CLICKED, seconds, RANDOM.choice([-1, 0], ROWS)),
        "not_interested": [None if c and n % 3 else "ok" for n, c in enumerate(CLICKED)],
        "viewed_pages": [["a", "b"] if c else [] for c in CLICKED],
        "conversion": few,
    }
    table = {"user_id": USERS, "hour": SECONDS % 24, **columns}
    pl.DataFrame(table).with_columns(clicked=CLICKED.astype(int)).write_parquet(tmp_path / "rows.parquet")
    proposal = propose_schema(tmp_path / "rows.parquet", label="clicked")
    assert set(proposal.left_out) == {"clicked", *columns}, proposal.left_out
    assert proposal.left_out["last_event"] == "purchase only where the label is 1"
    assert proposal.left_out["not_interested"] == "missing only where the label is 1"
