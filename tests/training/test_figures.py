"""Default settings on the fixed splits beat the figures the project set itself (and so logistic regression)."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.training.datasets.catalogue import open_dataset
from app.training.job import JobConfig

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "sparrow58k"


@pytest.mark.slow
@pytest.mark.parametrize(("split", "auc", "log_loss"), [("random", 0.799, 0.521), ("time", 0.791, 0.489)])
def test_sparrow(split: str, auc: float, log_loss: float, tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("the SparrowRecSys samples are not beside the project")
    train, test = (open_dataset("sparrow", DATA / f"{split}.{part}.csv.gz") for part in ("train", "test"))
    result = JobConfig().build().run(train, test, tmp_path, name="deepfm")
    assert (result.rows["train"] + result.rows["validation"], result.rows["test"]) == (46_447, 11_612)
    found = result.metrics["test"]
    assert found["auc"] >= auc
    assert found["log_loss"] <= log_loss
    assert found["calibration"] == pytest.approx(1.0, abs=0.04)
    for metrics in result.baselines.values():
        assert found["auc"] > metrics["auc"]
        assert found["log_loss"] < metrics["log_loss"]
