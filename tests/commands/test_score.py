"""`ctr score` gives the rows of a table the probabilities that the service gives, whatever the file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.features.item_cache import ItemCache
from app.features.memory_store import MemoryFeatureStore
from app.ranking.ranker import Ranker
from app.ranking.request import RankRequest
from app.registry.artifact.load import load
from app.registry.lifecycle.snapshot import LiveSnapshot
from app.registry.store.model_store import ModelStore
from tests.command_line import Ctr, command_line
from tests.factories import MODEL_NAME, publish_tiny, raw_context, raw_item, raw_items, raw_user, raw_users

USERS, ITEMS = 40, 25


def text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def row(user: int, item: int) -> dict[str, Any]:
    """Return a row with the features of a user, an item and a request."""
    features: Mapping[str, Any] = {**raw_user(user), **raw_item(item), **raw_context(user)}
    return {"user_id": str(user), "item_id": str(item), **{name: text(value) for name, value in features.items()}}


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    rows = [row(user, item) for user in range(USERS) for item in range(ITEMS)]
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.fixture
def ctr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: ModelStore) -> Ctr:
    publish_tiny(store, 1)
    publish_tiny(store, 2)
    store.update_pointer(stable=2)
    monkeypatch.setenv("CTR_MODEL_STORE", str(store.folder.parent))
    monkeypatch.setenv("CTR_MODEL", MODEL_NAME)
    return command_line(monkeypatch, capsys)


async def ranked(store: ModelStore, version: int) -> dict[tuple[str, str], float]:
    """Return the score of every user and item as a request with the row's values gets it."""
    artifact = load(store.path(version))
    features, cache = MemoryFeatureStore(raw_users(USERS), raw_items()), ItemCache(capacity=256)
    await features.start(cache)
    await cache.attach(artifact)
    live = LiveSnapshot(stable=artifact)
    ranker = Ranker(features, cache, lambda: live, store_timeout_s=1.0)
    scores = {}
    for user in range(USERS):
        request = RankRequest(str(user), [str(item) for item in range(ITEMS)], context=raw_context(user))
        ranking = await ranker.rank(request, time.perf_counter() + 10)
        scores |= {(str(user), i): s for i, s in zip(ranking.item_ids, ranking.scores.tolist(), strict=True)}
    return scores


@pytest.mark.parametrize(("given", "written"), [("csv", "csv"), ("parquet", "parquet"), ("jsonl", "csv")])
@pytest.mark.anyio
async def test_scores_are_those_of_the_service(
    ctr: Ctr, store: ModelStore, table: pl.DataFrame, tmp_path: Path, given: str, written: str
) -> None:
    data, out = tmp_path / f"rows.{given}", tmp_path / f"scores.{written}"
    {"csv": table.write_csv, "parquet": table.write_parquet, "jsonl": table.write_ndjson}[given](data)
    status, printed, err = ctr("score", "--data", str(data), "--out", str(out), "--version", "1", "--json")
    assert status == 0, err
    assert json.loads(printed)["rows"] == USERS * ITEMS
    scored = pl.read_csv(out, infer_schema=False) if written == "csv" else pl.read_parquet(out)
    assert scored.columns == ["row", "user_id", "item_id", "score"]
    assert scored["row"].cast(pl.Int64).to_list() == list(range(1, USERS * ITEMS + 1))
    wanted = await ranked(store, 1)
    for user, item, score in zip(scored["user_id"], scored["item_id"], scored["score"], strict=True):
        assert float(score) == pytest.approx(wanted[user, item], abs=1e-6)


def test_the_live_version_is_taken_and_columns_are_kept(ctr: Ctr, table: pl.DataFrame, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    table.head(30).with_columns(note=pl.int_range(30)).write_csv(data)
    status, printed, err = ctr("score", "--data", str(data), "--out", str(out), "--keep", "note", "--json")
    assert status == 0, err
    assert json.loads(printed)["version"] == 2
    assert pl.read_csv(out)["note"].to_list() == list(range(30))


def test_what_does_not_fit_is_said_and_nothing_written(ctr: Ctr, table: pl.DataFrame, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    table.head(30).drop("genres").write_csv(data)
    for arguments, said in (
        ([], "--allow-missing"),
        (["--keep", "nothing"], "no column nothing"),
        (["--version", "9"], "9"),
        (["--out", str(tmp_path / "scores.xlsx")], ".parquet"),
        (["--data", str(tmp_path / "no.csv")], "no.csv"),
        (["--out", str(tmp_path / "no" / "scores.csv")], "cannot be written"),
        (["--model", "unknown"], "unknown"),
    ):
        status, printed, err = ctr("score", "--data", str(data), "--out", str(out), *arguments)
        assert (status, printed) == (1, ""), err
        assert said in err
        assert not list(tmp_path.glob("*scores*"))
    status, _, err = ctr("score", "--data", str(data), "--out", str(out), "--allow-missing")
    assert status == 0
    assert "genres" in err


def test_a_value_that_fits_no_slot_is_missing_and_a_broken_row_is_named(
    ctr: Ctr, table: pl.DataFrame, tmp_path: Path
) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    table.head(30).with_columns(year=pl.lit("soon")).write_csv(data)
    status, printed, err = ctr("score", "--data", str(data), "--out", str(out), "--json")
    assert status == 0, err
    assert json.loads(printed)["unreadable"] == {"year": 30}
    assert "year" in err


LIMITED = """
import resource, sys
from app.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.argv = ["ctr", *sys.argv[1:]]
try:
    main()
finally:
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.faults
def test_a_file_of_many_times_the_memory_is_scored_in_bounded_memory(
    store: ModelStore, table: pl.DataFrame, tmp_path: Path
) -> None:
    publish_tiny(store, 1)

    def peak_mb(copies: int) -> int:
        data = tmp_path / f"{copies}.csv"
        with data.open("wb") as file:
            table.write_csv(file)
            body = table.write_csv(include_header=False).encode()
            for _ in range(copies - 1):
                file.write(body)
        command = ["score", "--data", str(data), "--out", str(tmp_path / "s.csv"), "--version", "1"]
        ran = subprocess.run(
            [sys.executable, "-c", LIMITED, *command],
            env={"CTR_MODEL_STORE": str(store.folder.parent), "CTR_MODEL": MODEL_NAME, "PATH": ""},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(ran.stdout.split()[-1])

    few, many = peak_mb(300), peak_mb(3000)
    assert many < few + 300, "about 30 MB of text, and 300"
    assert np.isclose(len(pl.read_csv(tmp_path / "s.csv")), 3000 * USERS * ITEMS)
