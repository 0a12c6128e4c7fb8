"""Tests of the table of all models: runs are trained, kept and continued, and the table is put into its page."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from app.training.data.formats.sparrow import LISTS
from benchmarks.model_runs import RunKey, RunResult, read_result, write_result
from benchmarks.model_table import BEGIN, END, insert_between_marks, table
from benchmarks.models import PAGE, SPLITS, main

NUMBERS = ("userRatingCount", "userAvgReleaseYear", "userReleaseYearStddev", "userAvgRating", "userRatingStddev")
NUMBERS += ("releaseYear", "movieRatingCount", "movieAvgRating", "movieRatingStddev")


def a_result(**changed: object) -> RunResult:
    given: dict[str, object] = {
        "split": "random", "model": "fm", "seed": 0, "auc": 0.8, "log_loss": 0.52, "gauc": 0.7,
        "validation_log_loss": 0.5, "seconds": 10.0, "epochs": 9, "samples_per_second": 1e4, "artifact_bytes": 600_000,
        "calibrated": False, "fingerprint": "{}", "commit": "abc", "created_at": "2026-11-21T10:00:00",
        "load_average": 0.5,
    }  # fmt: skip
    return msgspec.convert({**given, **changed}, RunResult)


def write_sparrow(folder: Path, rows: int = 120) -> None:
    """Write files in the layout of sparrow58k, whose labels depend on the films."""
    drawn = random.Random(3)
    lists = [column for columns in LISTS.values() for column in columns]
    header = ["movieId", "userId", "rating", "timestamp", "label", *NUMBERS, *lists]
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        for part in ("train", "test"):
            lines = [",".join(header)]
            for n in range(rows):
                film, user = drawn.randrange(9), drawn.randrange(12)
                label = int(drawn.random() < 0.2 + 0.07 * film)
                numbers = [f"{drawn.random():.3f}" for _ in NUMBERS]
                lines.append(
                    ",".join([str(film), str(user), "3", str(n), str(label), *numbers, *(["Drama"] * len(lists))])
                )
            (folder / f"{split}.{part}.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def run(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    application.command()(main)
    places = ("--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--page", str(tmp_path / "page.md"))
    answer = CliRunner().invoke(application, [*places, "--json", *arguments], catch_exceptions=False)
    return answer.exit_code, json.loads(answer.stdout) if answer.stdout.strip() else {}


@pytest.mark.slow
def test_it_trains_remembers_goes_on_and_writes_the_page(tmp_path: Path) -> None:
    write_sparrow(tmp_path / "data")
    page = tmp_path / "page.md"
    page.write_text(f"# Models\n\n{BEGIN}\nold\n{END}\n\nmore\n")
    options = ("--seeds", "0,1", "--splits", "random")
    status, first = run(tmp_path, *options, "--models", "lr")
    assert status == 0
    assert [(r["model"], r["seed"]) for r in first["results"]] == [("lr", 0), ("lr", 1)]  # type: ignore[index, union-attr]
    assert all(0 < r["auc"] < 1 and r["artifact_bytes"] > 10_000 for r in first["results"])  # type: ignore[index, union-attr]
    status, none = run(tmp_path, *options, "--models", "lr,gradient_boosting", "--seconds", "0")
    assert (status, none["results"], none["left"]) == (0, first["results"], 2)
    status, second = run(tmp_path, *options, "--models", "lr,gradient_boosting")
    assert status == 0
    assert [r for r in second["results"] if r["model"] == "lr"] == first["results"], "the times say it was not trained"  # type: ignore[index, union-attr]
    text = page.read_text()
    assert text.startswith("# Models\n\n")
    assert text.endswith("\n\nmore\n")
    assert "old" not in text
    assert "| `lr` | 0." in text
    assert "| gradient boosting, scikit-learn | 0." in text
    write_sparrow(tmp_path / "data", rows=150)
    status, third = run(tmp_path, *options, "--models", "lr")
    assert status == 0
    assert third["results"] != first["results"], "of other rows it is another run"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"random.train.csv.gz: no such file; .* --data"):
        main(models="lr", seeds="0", splits="random", data=tmp_path, runs=tmp_path, page=tmp_path / "p.md")
    with pytest.raises(typer.BadParameter, match="begin anew"):
        main(models="lr", fresh=True, seconds=60, data=tmp_path, runs=tmp_path)
    with pytest.raises(typer.BadParameter, match="oracle"):
        main(models="oracle", data=tmp_path, runs=tmp_path)


def test_a_result_is_of_its_settings_and_data(tmp_path: Path) -> None:
    key, result = RunKey("random", "fm", 0), a_result(fingerprint="one")
    assert read_result(key, tmp_path / "runs", "one") is None
    write_result(key, tmp_path / "runs", result)
    assert read_result(key, tmp_path / "runs", "one") == result
    assert read_result(key, tmp_path / "runs", "two") is None
    key.file(tmp_path / "runs").write_text('{"split": "rand')
    assert read_result(key, tmp_path / "runs", "one") is None
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["random-fm-0.json"]


def test_the_table_has_means_deviations_and_what_is_missing() -> None:
    results = [
        a_result(auc=0.79, log_loss=0.53, seed=0),
        a_result(auc=0.81, log_loss=0.51, seed=1),
        a_result(model="deepfm", log_loss=0.50, artifact_bytes=2_000_000),
        a_result(model="deepfm", split="time", log_loss=0.4, seconds=30.0, load_average=3.0),
        a_result(model="gradient_boosting", log_loss=0.6, artifact_bytes=None, gauc=None),
    ]
    lines = table(results, SPLITS, ["fm", "deepfm", "gradient_boosting", "lr"], "a machine").splitlines()
    assert [line.split(" |")[0] for line in lines[2:5]] == ["| `deepfm`", "| `fm`", "| gradient boosting, scikit-learn"]
    assert lines[2].split(" | ")[4:] == ["0.8000", "0.4000", "0.7000", "20.0", "1.30 MB |"]
    assert lines[3] == "| `fm` | 0.8000 ± 0.0141 | 0.5200 ± 0.0141 | 0.7000 | – | – | – | 10.0 | 0.60 MB |"
    assert lines[4].endswith("| – | – | – | 10.0 | – |")
    assert "load average 0.5 to 3.0" in lines[-1]
    assert "Fewer seeds so far: deepfm, gradient_boosting." in lines[-1]


def test_the_page_has_a_place_for_it_and_one_without_is_refused() -> None:
    assert insert_between_marks(PAGE.read_text(), "anew").count("anew") == 1
    with pytest.raises(ValueError, match="no place for the table"):
        insert_between_marks("# Models\n", "anew")
