"""`ctr tune` as people and programs call it; the command that it prints is run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import polars as pl
import pytest

from tests.command_line import Ctr
from tests.training.data.formats.test_tables import FEATURES, csv_text

pytest.importorskip("optuna", reason="optuna is not installed: pip install ctr-serving[tune]")
TABLE = ("--dataset", "table", "--data", "my clicks.csv", "--features", "features.yaml", "--label", "clicked")


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_ctr: Ctr) -> Ctr:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "features.yaml").write_text(FEATURES)
    weights = pl.read_csv(csv_text(300).encode()).with_columns(w=pl.int_range(300) % 3 + 1)
    weights.write_csv(tmp_path / "my clicks.csv")
    return run_ctr


def test_the_command_that_it_prints_trains_the_best(ctr: Ctr) -> None:
    options = ("--model", "fm", "--weight", "w", "--epochs", "2", "--seed", "4")
    status, out, err = ctr("tune", *TABLE, *options, "--trials", "2")
    assert status == 0, err
    assert out.startswith("ctr train --effort quick ")
    assert out.count("\n") == 1
    status, out, err = ctr("tune", *TABLE, *options, "--trials", "4", "--json")
    assert status == 0, err
    assert "Going on after 2 trials" in err
    result = json.loads(out)
    assert (result["trials"], result["study"]) == (4, "runs/tune-fm.db")
    assert result["best"]["validation_log_loss"] <= result["default"]["validation_log_loss"]
    program, *words = shlex.split(result["command"])
    assert program == "ctr"
    status, out, err = ctr(*words, "--linear-share", "0", "--calibration", "none", "--force", "--json")
    assert status == 0, err
    trained = json.loads(out)["metrics"]["validation"]["log_loss"]
    assert trained == pytest.approx(result["best"]["validation_log_loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--model", "oracle"), "--model oracle: unknown"),
        (("--study", "../up"), "--study ../up: use letters"),
        (("--split", "time"), "--timestamp"),
    ],
)
def test_a_mistake_is_one_line(ctr: Ctr, arguments: tuple[str, ...], complaint: str) -> None:
    status, out, err = ctr("tune", *TABLE, "--trials", "1", *arguments)
    assert (status, out) == (1, "")
    assert complaint in " ".join(err.split())
    assert "Traceback" not in err
