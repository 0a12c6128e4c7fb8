"""The recipe for Spark gives the rows that `ctr join` gives, by Spark itself where that is installed."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install ctr-serving[events]")

import pyarrow as pa

from app.events.joining.join import join, parts
from app.events.joining.spark import ARROW, NAMES, ROWS, SPAN, join_spans
from tests.events.joining.test_join import BEGAN_US, at, log_of, write
from tests.pages import ROOT, blocks

HOURS = 4


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark") / "events"
    write(folder, log_of(1))
    return folder


@pytest.fixture(scope="module")
def expected(events: Path) -> list[dict[str, Any]]:
    """The rows of what `ctr join` writes, item by item."""
    out = events.parent / "joined"
    join(events, out, window=timedelta(minutes=30), until=at(HOURS + 1))
    rows = []
    for answers, items in parts(out):
        slots = {row["reference"]: row for row in pl.read_parquet(items).iter_rows(named=True)}
        for answer in pl.read_parquet(answers).iter_rows(named=True):
            for position, reference in enumerate(answer["items"]):
                own = {
                    "position": position,
                    "item_id": slots[reference]["item_id"],
                    "score": answer["scores"][position],
                    "propensity": None if answer["propensities"] is None else answer["propensities"][position],
                    "outcome": answer["labels"][position],
                    "item_keys": slots[reference]["keys"],
                    "item_values": slots[reference]["values"],
                }
                rows.append({name: own[name] if name in own else answer[name] for name in NAMES})
    assert {row["outcome"] for row in rows} == {1, 0, -1}
    return rows


def spans(*hours: int) -> Any:
    return pa.record_batch({SPAN: pa.array([BEGAN_US // 10**6 + 3600 * hour for hour in hours])})


def rows_of(batches: Iterable[Any]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["at"], row["impression_id"], row["position"]))


@pytest.mark.parametrize("seed", range(3))
def test_tasks_in_any_division_give_the_rows_of_the_join(
    events: Path, expected: list[dict[str, Any]], seed: int
) -> None:
    dice, hours = random.Random(seed), list(range(HOURS))
    dice.shuffle(hours)
    cut = dice.randrange(1, HOURS)
    tasks = [[spans(*hours[:cut])], [spans(hour) for hour in hours[cut:]]]
    rows = [row for task in tasks for row in rows_of(join_spans(task, str(events)))]
    assert len(rows) > 500
    assert in_order(rows) == in_order(expected)


def test_a_task_without_spans_gives_nothing(events: Path) -> None:
    assert list(join_spans([], str(events))) == []
    assert rows_of(join_spans([spans(-5)], str(events))) == []


def test_the_columns_are_those_that_spark_is_told(events: Path) -> None:
    for hour in (0, -5):
        for batch in join_spans([spans(hour)], str(events)):
            assert batch.schema == ARROW


class OneMachine:
    """Does what the recipe asks of Spark, on one machine."""

    def __init__(self) -> None:
        self.tasks: list[list[int]] = []
        self.batches: list[Any] = []

    def range(self, start: int, stop: int, step: int, numPartitions: int) -> OneMachine:
        starts = list(range(start, stop, step))
        self.tasks = [starts[number::numPartitions] for number in range(numPartitions)]
        return self

    def mapInArrow(self, function: Callable[[Iterator[Any]], Iterator[Any]], schema: str) -> OneMachine:
        assert schema == ROWS
        for task in self.tasks:
            self.batches += function(iter([pa.record_batch({SPAN: pa.array(task, pa.int64())})]))
        return self

    @property
    def write(self) -> OneMachine:
        return self

    def mode(self, _: str) -> OneMachine:
        return self

    def parquet(self, path: str) -> None:
        Path(path).mkdir()
        table = pl.from_arrow(self.batches)
        assert isinstance(table, pl.DataFrame)
        table.write_parquet(Path(path) / "part-0.parquet")


def sessions() -> Iterator[Any]:
    """Yield what stands for Spark, and Spark where it is installed."""
    yield OneMachine()
    if importlib.util.find_spec("pyspark") is not None:
        from pyspark.sql import SparkSession

        found = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        os.environ |= {"PYSPARK_PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(found)}
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        session = SparkSession.builder.master("local[2]").config("spark.sql.session.timeZone", "UTC").getOrCreate()
        yield session
        session.stop()


def test_the_recipe_of_the_documentation_gives_the_rows_of_the_join(
    events: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    text = (ROOT / "docs/events.md").read_text()
    [recipe] = [block for block in blocks(text, "python") if block.startswith("# spark recipe")]
    for number, spark in enumerate(sessions()):
        out = tmp_path / str(number)
        exec(recipe, {"spark": spark, "EVENTS": str(events), "OUT": str(out)})  # noqa: S102
        rows = pl.read_parquet(out / "*.parquet").with_columns(pl.col("at").dt.convert_time_zone("UTC")).to_dicts()
        assert in_order(rows) == in_order(expected)
