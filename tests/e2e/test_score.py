"""`ctr score` and the `POST /rank` of a running service give the same probabilities, row by row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests import loopback
from tests.e2e.conftest import SHARED_ITEMS, Shared
from tests.factories import MODEL_NAME, raw_context, raw_item, raw_user

USERS = ["", "nobody", *map(str, range(38))]
ITEMS = [*map(str, range(240)), *(f"unknown-{number}" for number in range(10))]


def stored(user: str) -> dict[str, Any]:
    return raw_user(int(user)) if user.isdecimal() else {}


def item_of(item: str, user: str) -> dict[str, Any]:
    """Return an item's features, of which every tenth user's request sends some of its own."""
    features = raw_item(int(item)) if item.isdecimal() else {}
    return features | sent(item, user)


def sent(item: str, user: str) -> dict[str, Any]:
    return {"year": 1950 + len(item), "genres": ["Drama"]} if user.endswith("7") and item.endswith("3") else {}


def as_cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ten_thousand_rows_have_the_scores_of_a_service(shared: Shared, tmp_path: Path, suffix: str) -> None:
    assert len(ITEMS) < SHARED_ITEMS
    rows, wanted = [], []
    for number, user in enumerate(USERS):
        body = {
            "user_id": user,
            "item_ids": ITEMS,
            "context": raw_context(number),
            "item_features": {item: features for item in ITEMS if (features := sent(item, user))},
        }
        answer = loopback.post(f"{shared.service.url}/rank", json=body).json()
        assert answer["degraded"] == []
        scores = {item["item_id"]: item["score"] for item in answer["items"]}
        for item in ITEMS:
            features = stored(user) | raw_context(number) | item_of(item, user)
            cells = {name: as_cell(value) for name, value in features.items()}
            rows.append({"user_id": user or None, "item_id": item, **cells})
            wanted.append(scores[item])
    table = pl.DataFrame(rows, infer_schema_length=None)
    assert len(table) == 10_000
    data, out = tmp_path / f"rows.{suffix}", tmp_path / f"scores.{suffix}"
    (table.write_csv if suffix == "csv" else table.write_parquet)(data)
    store = shared.model_store
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "score", "--data", str(data), "--out", str(out)],
        env={"CTR_MODEL_STORE": str(store.folder.parent), "CTR_MODEL": MODEL_NAME, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scored = pl.read_csv(out, infer_schema=False) if suffix == "csv" else pl.read_parquet(out)
    assert scored["item_id"].to_list() == [row["item_id"] for row in rows]
    assert scored["score"].cast(pl.Float64).to_list() == pytest.approx(wanted, abs=1e-6)
