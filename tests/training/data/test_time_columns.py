"""Times and running numbers tell when and not what: one time splits the rows, the others are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.training.data.schema_tables import ITEMS, RANDOM, ROWS, SECONDS, USERS, iso, propose, types
from tests.training.data.test_number_kind import popular_codes

TIMES: dict[str, object] = {
    "ISO with T": iso(SECONDS),
    "ISO with a space": iso(SECONDS, "%Y-%m-%d %H:%M:%S"),
    "ISO with a zone": iso(SECONDS, "%Y-%m-%dT%H:%M:%SZ"),
    "days": iso(SECONDS[0] + (SECONDS - SECONDS[0]) * 30, "%Y-%m-%d"),
    "seconds": SECONDS,
    "seconds with a fraction": SECONDS + RANDOM.random(ROWS).round(3),
    "milliseconds": SECONDS * 1000 + 7,
    "Avazu's hours": 24_060_100 + np.sort(RANDOM.integers(0, 24, ROWS)),
}


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("kind", TIMES)
def test_a_time_is_what_rows_are_split_by(tmp_path: Path, kind: str, shuffled: bool) -> None:
    order = RANDOM.permutation(ROWS) if shuffled else np.arange(ROWS)
    times = pl.Series(TIMES[kind])[order]
    proposal = propose(tmp_path, {"user_id": USERS, "click_time": times, "price": RANDOM.random(ROWS)})
    assert proposal.timestamp == "click_time"
    assert set(types(proposal)) == {"user_id", "price"}


def test_a_time_needs_no_name_that_says_so(tmp_path: Path) -> None:
    for times in (iso(SECONDS), SECONDS, SECONDS * 1000):
        assert propose(tmp_path, {"user_id": USERS, "w": times}).timestamp == "w"
    # Ids from a billion on are no seconds of 2001.
    ids = 1_000_000_000 + np.asarray(popular_codes(RANDOM, ROWS, 300, 1_000))
    assert propose(tmp_path, {"w": ids}).timestamp is None


def test_dates_of_parquet_are_times(tmp_path: Path) -> None:
    times = pl.from_epoch(pl.Series(SECONDS))
    assert propose(tmp_path, {"user_id": USERS, "at": times}, suffix="parquet").timestamp == "at"


def test_of_several_times_that_of_the_rows_is_taken_and_those_of_items_are_traits(tmp_path: Path) -> None:
    released = 1_400_000_000 + RANDOM.integers(0, 10**8, 1_000)
    columns = {
        "item_id": ITEMS,
        "release_time": released[ITEMS],
        "release_date": iso(released[ITEMS], "%Y-%m-%d"),
        "load_time": SECONDS + 50,
        "click_time": iso(SECONDS),
        "local": iso(SECONDS, "%d.%m.%Y %H:%M"),
    }
    proposal = propose(tmp_path, columns)
    assert proposal.timestamp == "click_time"
    assert types(proposal) == {"item_id": "categorical", "release_time": "numeric"}
    assert "a time: a field needs what comes back" in proposal.left_out["local"]


NUMBERED: dict[str, tuple[object, str]] = {
    "row numbers": (np.arange(ROWS), "another value in every row"),
    "row numbers, one twice": (np.append(np.arange(ROWS - 1), 5), "another value in nearly every row"),
    "row numbers, shuffled, one twice": (
        RANDOM.permutation(np.append(np.arange(ROWS - 1), 5)),
        "another value in nearly",
    ),
    "row numbers as text, one twice": (
        [f"imp-{n}" for n in [*range(ROWS - 1), 5]],
        "another value in nearly every row",
    ),
    "impressions of five rows": (7_000 + np.arange(ROWS) // 5, "grows with the row number"),
    "impressions of five rows, as text": ([f"imp{n // 5:06}" for n in range(ROWS)], "grows with the row number"),
    "impressions, nearly in order": (
        (np.arange(ROWS) // 5) + RANDOM.integers(0, 40, ROWS),
        "grows with the row number",
    ),
    "row numbers that start again": (np.arange(ROWS) % 700, "grows with the row number"),
    "rows that are left, counted down": (ROWS - np.arange(ROWS) // 3, "grows with the row number"),
    "hashes of rows": (RANDOM.integers(0, 2**40, ROWS), "another value in every row"),
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_what_numbers_the_rows_is_left_out(tmp_path: Path, kind: str) -> None:
    column, reason = NUMBERED[kind]
    proposal = propose(
        tmp_path, {"user_id": USERS, "x": column, "price": RANDOM.lognormal(7, 1, ROWS).astype(np.int64)}
    )
    assert proposal.left_out["x"].startswith(reason)
    assert set(types(proposal)) == {"user_id", "price"}


def test_a_shuffled_file_of_numbered_impressions_is_told_by_its_time(tmp_path: Path) -> None:
    order = RANDOM.permutation(ROWS)
    proposal = propose(tmp_path, {"user_id": USERS, "ts": SECONDS[order], "x": (np.arange(ROWS) // 5)[order]})
    assert proposal.left_out["x"] == "grows with ts, and so tells when and not what"


def test_a_file_sorted_by_user_keeps_its_ids(tmp_path: Path) -> None:
    assert types(propose(tmp_path, {"user_id": np.sort(USERS), "hour": RANDOM.integers(0, 24, ROWS)}))["user_id"]
    assert types(propose(tmp_path, {"reader": np.sort(USERS), "w": ITEMS}, user_id="reader"))["reader"]


def test_positions_in_a_list_stay(tmp_path: Path) -> None:
    assert types(propose(tmp_path, {"user_id": USERS, "x": np.arange(ROWS) % 10}))["x"] == "categorical"
