"""Tests of the table of all models: runs are trained, kept and continued, and the table is put into its page."""

from __future__ import annotations

import gzip
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from app.training import judgement
from app.training.data.formats.sparrow import LISTS
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from benchmarks import model_runs
from benchmarks.model_options import PAGE
from benchmarks.model_peers import PEERS
from benchmarks.model_runs import RunKey, RunResult, fingerprint, read_result, write_result
from benchmarks.model_sets import ALL_SETS, SETS
from benchmarks.model_table import MARKS, flags, insert_between_marks, tables
from benchmarks.models import main
from tests.training.preprocessing.test_preprocessing_fit import some_data

NUMBERS = ("userRatingCount", "userAvgReleaseYear", "userReleaseYearStddev", "userAvgRating", "userRatingStddev")
NUMBERS += ("releaseYear", "movieRatingCount", "movieAvgRating", "movieRatingStddev")


def a_result(**changed: object) -> RunResult:
    given: dict[str, object] = {
        "set": "frappe86k", "model": "fm", "seed": 0, "auc": 0.8, "gauc": 0.7, "log_loss": 0.52, "calibration": 1.0,
        "constant_log_loss": 0.6, "poor": [], "note": "", "seconds": 10.0, "epochs": 9, "artifact_bytes": 600_000,
        "fingerprint": "{}", "commit": "abc", "created_at": "2026-11-21T10:00:00", "load_average": 0.5,
    }  # fmt: skip
    return msgspec.convert({**given, **changed}, RunResult)


def write_sparrow(folder: Path, rows: int = 120) -> None:
    """Write files in the layout of sparrow58k, whose labels depend on the films."""
    drawn = random.Random(3)
    lists = [column for columns in LISTS.values() for column in columns]
    header = ["movieId", "userId", "rating", "timestamp", "label", *NUMBERS, *lists]
    folder = folder / "sparrow58k"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("random", "time"):
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
@pytest.mark.usefixtures("unrendered")
def test_it_trains_remembers_goes_on_and_writes_the_page(tmp_path: Path) -> None:
    write_sparrow(tmp_path / "data")
    page = tmp_path / "page.md"
    page.write_text(f"# Models\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nmore\n")
    options = ("--seeds", "0,1", "--sets", "sparrow58k-random")
    status, first = run(tmp_path, *options, "--models", "lr")
    assert status == 0
    assert [(r["model"], r["seed"]) for r in first["results"]] == [("lr", 0), ("lr", 1)]  # type: ignore[index, union-attr]
    assert all(0 < r["auc"] < 1 and r["artifact_bytes"] > 10_000 for r in first["results"])  # type: ignore[index, union-attr]
    status, none = run(tmp_path, *options, "--models", "lr,logistic_regression", "--seconds", "0")
    assert (status, none["results"], none["left"]) == (0, first["results"], 2)
    status, second = run(tmp_path, *options, "--models", "lr,logistic_regression,constant")
    assert status == 0
    assert [r for r in second["results"] if r["model"] == "lr"] == first["results"], "the times say it was not trained"  # type: ignore[index, union-attr]
    constants = [r for r in second["results"] if r["model"] == "constant"]  # type: ignore[index, union-attr]
    assert all(r["log_loss"] == pytest.approx(r["constant_log_loss"], abs=1e-6) for r in constants)
    text = page.read_text()
    assert text.startswith("# Models\n\n")
    assert text.endswith("\n\nmore\n")
    assert "old" not in text
    assert "### sparrow58k-random: " in text
    assert "| `lr` | 0." in text
    assert "| logistic regression, C searched | 0." in text
    write_sparrow(tmp_path / "data", rows=150)
    status, third = run(tmp_path, *options, "--models", "lr", "--quick")
    assert status == 0
    assert [r["seed"] for r in third["results"]] == [0]  # type: ignore[index, union-attr]
    assert page.read_text() == text, "a quick look is not written"


def test_sets_that_are_not_there_are_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, document = run(tmp_path, "--sets", "frappe86k,sparrow58k-time", "--models", "lr")
    assert (status, document["results"], document["failed"]) == (0, [], {})
    assert "train.csv.gz: no such file; it is made from Frappe, https://" in SETS["frappe86k"].missing(tmp_path)
    page = PAGE.read_text()
    for data_set in ALL_SETS:
        link = re.search(r"https://[^ ,]+", data_set.origin)
        assert link is None or link[0] in page, "the page says where it is from"
    with pytest.raises(typer.BadParameter, match="begin anew"):
        main(models="lr", fresh=True, seconds=60, data=tmp_path, runs=tmp_path)
    with pytest.raises(typer.BadParameter, match="oracle"):
        main(models="oracle", data=tmp_path, runs=tmp_path)
    with pytest.raises(typer.BadParameter, match="netflix"):
        main(sets="netflix", data=tmp_path, runs=tmp_path)


def test_movielens_is_tested_on_its_newest_fifth() -> None:
    if missing := SETS["movielens100k"].missing(Path()):
        pytest.skip(missing)
    train, test = SETS["movielens100k"].load(Path())
    assert (len(train), len(test)) == (80_000, 20_000)
    assert train.timestamps_N is not None
    assert test.timestamps_N is not None
    assert train.timestamps_N.max() <= test.timestamps_N.min()


def test_baselines_of_equal_parts_are_fitted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def count(preprocessing: object, parts: object, seed: int = 0, *_: object, **options: object) -> dict[str, object]:
        calls.append((seed, options))
        return {}

    monkeypatch.setattr(model_runs, "fit_baselines", count)
    encoded = encode(some_data(30))
    parts = {"train": (encoded, None), "test": (encode(some_data(20)), None)}
    others = {"train": (encoded, None), "test": (encode(some_data(25)), None)}
    with model_runs.baselines_fitted_once():
        for seed, given in ((0, parts), (0, parts), (1, parts), (0, others)):
            judgement.fit_baselines(None, given, seed, names=("constant",))  # type: ignore[arg-type]
    assert len(calls) == 3
    assert judgement.fit_baselines is not count


def test_a_result_is_of_its_settings_and_data(tmp_path: Path) -> None:
    key, result = RunKey("frappe86k", "fm", 0), a_result(fingerprint="one")
    assert read_result(key, tmp_path / "runs", "one") is None
    write_result(key, tmp_path / "runs", result)
    assert read_result(key, tmp_path / "runs", "one") == result
    assert read_result(key, tmp_path / "runs", "two") is None
    key.file(tmp_path / "runs").write_text('{"set": "frap')
    assert read_result(key, tmp_path / "runs", "one") is None
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["frappe86k-fm-0.json"]
    prints = {fingerprint(key, {"a": digest}, quick) for digest in ("1", "2") for quick in (False, True)}
    assert len(prints) == 4


def test_the_tables_have_means_deviations_and_flags() -> None:
    results = [
        a_result(auc=0.79, log_loss=0.53, seed=0),
        a_result(auc=0.81, log_loss=0.51, seed=1),
        a_result(model="deepfm", log_loss=0.50, auc=0.82, seed=0),
        a_result(model="deepfm", set="obd60k", log_loss=0.61, gauc=None, seconds=30.0, load_average=3.0),
        a_result(model="constant", log_loss=0.6, calibration=None, gauc=None, seed=0),
    ]
    text = tables(results, {"obd60k": "clicks", "frappe86k": "apps"}, ["fm", "deepfm", "constant", "lr"], "a machine")
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["### obd60k: clicks", "### frappe86k: apps"]
    rows = [line for line in lines if line.startswith(("| `", "| c"))]
    assert [row.split(" | ")[0] for row in rows] == ["| `deepfm`", "| `deepfm`", "| `fm`", "| constant"]
    assert rows[0] == (
        "| `deepfm` | 0.8000 | – | 0.6100 | 1.00 | 30.0 | worse than the constant (seed 0), by up to 0.0100 |"
    )
    assert rows[1].endswith("| 1 of 2 seeds so far |")
    assert rows[2] == (
        "| `fm` | 0.8000 ± 0.0141 | 0.7000 ± 0.0000 | 0.5200 ± 0.0141 | 1.00 ± 0.00 | 10.0 | seed 0: AUC -0.010 |"
    )
    assert "load average 0.5 to 3.0" in lines[-1]


def test_what_is_wrong_is_flagged_and_nothing_else() -> None:
    assert flags([a_result(seed=seed) for seed in range(3)], 3) == []
    assert flags([a_result(auc=0.8 + 0.004 * seed, seed=seed) for seed in range(3)], 3) == []
    runs = [a_result(seed=0), a_result(seed=1, poor=["worse than the constant"], log_loss=0.7), a_result(seed=2)]
    assert flags(runs, 3) == ["worse than the constant (seed 1), by up to 0.1000", "said to be poor (seed 1)"]


def test_the_page_has_a_place_for_it_and_one_without_is_refused() -> None:
    assert insert_between_marks(PAGE.read_text(), "A NEW TABLE").count("A NEW TABLE") == 1
    with pytest.raises(ValueError, match="no place for the table"):
        insert_between_marks("# Models\n", "A NEW TABLE")


@pytest.mark.parametrize("name", ["lightgbm", "catboost"])
def test_peers_learn_what_there_is_to_learn(name: str) -> None:
    pytest.importorskip(name)
    data = some_data(400)
    labels = (data.user["gender"] == "F").to_numpy().astype(np.float32)
    encoded = encode(replace(data, labels_N=labels))
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    fitted = PEERS[name](preprocessing, encoded, expand(preprocessing, encoded), 0)
    assert roc_auc_score(labels, fitted.predict(encoded, expand(preprocessing, encoded))) > 0.95
    assert fitted.note.endswith(" trees")
