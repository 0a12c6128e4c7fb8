"""The blocks on own data of README.md and docs/data.md, run as they are written, in the state that the demo leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from app.registry.store.model_store import ModelStore
from tests.factories import publish_tiny
from tests.pages import ROOT, blocks
from tests.shells import Shell, make_shell, run, served


def block_of(page: str, heading: str) -> str:
    """Return the one shell block below a heading."""
    (block,) = blocks((ROOT / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0], "sh")
    return block


ONE_TABLE = block_of("README.md", "Use your own data")
THREE_TABLES = block_of("docs/data.md", "Users, items and events in three files")
OBD = ROOT.parent / "shared" / "data" / "obd60k" / "train.csv.gz"
GENERATOR = np.random.default_rng(7)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return make_shell(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, shell: Shell) -> Path:
    """Make a folder in the state after the demo: its model is live, its features are exported and loaded."""
    folder = tmp_path / "work"
    exported = folder / ".ctr/features/movielens"
    exported.mkdir(parents=True)
    people = [{"id": str(n), "age": 20 + n % 50, "gender": "MF"[n % 2]} for n in range(1, 944)]
    films = [{"id": str(n), "title": f"Film {n}", "year": 1950 + n % 50} for n in range(1, 1683)]
    for name, rows in (("users", people), ("items", films)):
        (exported / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        run(folder, shell, f"ctr load {name} .ctr/features/movielens/{name}.jsonl")
    publish_tiny(ModelStore(folder / "model_store", "deepfm"))
    return folder


@contextmanager
def after(folder: Path, shell: Shell, block: str) -> Iterator[httpx.Client]:
    """Run a block to its last line, which serves, and yield a client of it."""
    lines, last = block.rstrip().rsplit("\n", 1)
    assert last == "ctr serve"
    said = run(folder, shell, lines)
    assert "removed 943 users and 1,682 items of the demo" in said
    assert "Published as stable" in said
    with served(folder, shell, f"{block.splitlines()[0].split('#')[0]}; exec {last}") as client:
        yield client


def test_three_tables_are_served_after_the_demo(folder: Path, shell: Shell) -> None:
    people, things, rows = 120, 60, 6000
    taste, kind = GENERATOR.integers(0, 4, people), GENERATOR.integers(0, 4, things)
    user, item = GENERATOR.integers(0, people, rows), GENERATOR.integers(0, things, rows)
    clicked = GENERATOR.random(rows) < np.where(taste[user] == kind[item], 0.6, 0.1)
    names = np.array(["red", "green", "blue", "grey"])
    pl.DataFrame(
        {"user_id": range(people), "age": GENERATOR.integers(18, 80, people), "likes": names[taste]}
    ).write_csv(folder / "users.csv")
    prices = GENERATOR.lognormal(3, 1, things).round(2)
    pl.DataFrame({"item_id": range(1000, 1000 + things), "colour": names[kind], "price": prices}).write_csv(
        folder / "items.csv"
    )
    at = 1_790_000_000 + np.sort(GENERATOR.integers(0, 10**6, rows))
    events = {"user_id": user, "item_id": 1000 + item, "clicked": clicked.astype(int), "at": at}
    pl.DataFrame(events).write_csv(folder / "events.csv")

    with after(folder, shell, THREE_TABLES) as client:
        request = {"user_id": "7", "item_ids": [str(1000 + n) for n in range(things)]}
        answer = client.post("/rank", json=request).json()
        assert (answer["model"], answer["version"], answer["degraded"]) == ("shop", 1, [])
        assert answer["missing"] == {"user": False, "items": []}
        best = [kind[int(one["item_id"]) - 1000] for one in answer["items"][:8]]
        assert best.count(taste[7]) >= 6, "what the user likes comes first"


@pytest.mark.skipif(not OBD.exists(), reason="obd60k is not beside the repository: shared/data/obd60k")
@pytest.mark.faults
@pytest.mark.parametrize("rows", [6000, 48_000])
def test_one_table_is_served_after_the_demo(folder: Path, shell: Shell, rows: int) -> None:
    clicks = pl.read_csv(OBD, infer_schema=False).drop("ts").rename({"click": "clicked", "timestamp": "at"})
    if rows < len(clicks):  # all clicks among fewer impressions
        clicks = pl.concat([clicks.filter(clicked="1"), clicks.filter(clicked="0")[: rows // 2]]).sort("at")
    clicks.write_parquet(folder / "clicks.parquet")
    with after(folder, shell, ONE_TABLE) as client:
        items = clicks["item_id"].unique().sort().to_list()[:20]
        row = clicks.filter(item_id=items[0]).to_dicts()[0]
        given = {name: row[name] for name in row if name.startswith("user_feature")}
        answer = client.post("/rank", json={"user_id": "", "item_ids": items, "user_features": given}).json()
        assert (answer["model"], answer["version"]) == ("shop", 1)
        assert answer["missing"]["items"] == []
        assert len({one["score"] for one in answer["items"]}) > 1
