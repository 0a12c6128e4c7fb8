"""`ctr score` gives the rows of a table the probabilities that the service gives, whatever the file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        (["--model", "unknown"], "model_store yet: train one first (`ctr train"),
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


@pytest.fixture
def broken(table: pl.DataFrame, tmp_path: Path) -> Path:
    """Return a file of 100 rows, of which the 3rd has a cell too many, the 50th is not UTF-8 and the 100th is cut."""
    lines = table.head(100).write_csv().encode().splitlines(keepends=True)
    lines[3] = lines[3].rstrip() + b",more\n"
    lines[50] = b"\xff" + lines[50]
    lines[100] = lines[100][: lines[100].index(b",")]
    path = tmp_path / "broken.csv"
    path.write_bytes(b"".join(lines))
    return path


def test_a_single_broken_row_stops_it_unless_it_may_be_left_out(
    ctr: Ctr, broken: Path, tmp_path: Path, table: pl.DataFrame
) -> None:
    out = tmp_path / "scores.csv"
    one = tmp_path / "one.csv"
    one.write_bytes(table.head(100).write_csv().encode() + b"only,a,few,cells\n")
    for data, rows, share in ((one, "101", "0"), (broken, "3", "0.029")):
        status, printed, err = ctr("score", "--data", str(data), "--out", str(out), "--max-bad", share)
        assert (status, printed) == (1, ""), err
        assert "--max-bad" in err
        assert rows in err
        assert not list(tmp_path.glob("*scores*"))


def test_broken_rows_that_may_be_left_out_are_named_and_the_others_keep_their_numbers_and_scores(
    ctr: Ctr, broken: Path, tmp_path: Path, table: pl.DataFrame
) -> None:
    out, whole, of_whole = tmp_path / "scores.csv", tmp_path / "whole.csv", tmp_path / "of_whole.csv"
    table.head(100).write_csv(whole)
    assert ctr("score", "--data", str(whole), "--out", str(of_whole))[0] == 0
    status, printed, err = ctr("score", "--data", str(broken), "--out", str(out), "--max-bad", "0.03", "--json")
    assert status == 0, err
    assert {name: json.loads(printed)[name] for name in ("rows", "bad")} == {"rows": 97, "bad": 3}
    assert "3 bad rows left out" in err
    assert "rows 3, 50, 100" in err
    assert pl.read_csv(out).equals(pl.read_csv(of_whole).filter(~pl.col("row").is_in([3, 50, 100])))


def test_a_file_of_broken_rows_alone_is_refused(ctr: Ctr, table: pl.DataFrame, tmp_path: Path) -> None:
    data, out = tmp_path / "rows.csv", tmp_path / "scores.csv"
    header = table.write_csv().partition("\n")[0]
    for body in ("", "a,b\n" * 20):
        data.write_text(f"{header}\n{body}")
        status, _, err = ctr("score", "--data", str(data), "--out", str(out), "--max-bad", "1")
        assert status == 1, err
        assert "no" in err
        assert not out.exists()


def test_a_table_is_not_replaced_by_its_scores(ctr: Ctr, table: pl.DataFrame, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    table.head(10).write_csv(data)
    before = data.read_bytes()
    (tmp_path / "link.csv").symlink_to(data)
    for out in (data, tmp_path / "link.csv"):
        status, _, err = ctr("score", "--data", str(data), "--out", str(out))
        assert status == 1
        assert "that is the table itself" in err
    assert data.read_bytes() == before


MEASURED = """
import sys
from app.cli import main
sys.argv = ["ctr", *sys.argv[1:]]
try:
    main()
finally:
    # Not ru_maxrss, in which a new process has what the one that started it took.
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.faults
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_depend_on_the_size_of_the_file(store: ModelStore, table: pl.DataFrame, tmp_path: Path) -> None:
    """Four times as large, by 130 MB of text, takes at most 30 MB more."""
    publish_tiny(store, 1)
    body = table.write_csv(include_header=False).encode()

    def peak_mb(copies: int) -> float:
        data, out = tmp_path / f"{copies}.csv", tmp_path / "scores.csv"
        with data.open("wb") as file:
            table.write_csv(file)
            for _ in range(copies - 1):
                file.write(body)
        ran = subprocess.run(
            [sys.executable, "-c", MEASURED, "score", "--data", str(data), "--out", str(out), "--version", "1"],
            env={"CTR_MODEL_STORE": str(store.folder.parent), "CTR_MODEL": MODEL_NAME, "PATH": ""},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert pl.scan_csv(out).select(pl.len()).collect().item() == copies * USERS * ITEMS
        data.unlink()
        return int(ran.stdout.split()[-1]) / 1024

    small, large = peak_mb(300), peak_mb(1200)
    assert 900 * len(body) > 130e6, "what the larger file has more"
    assert large - small < 30
