"""Default settings on the fixed splits reach the project's targets, and models with crosses beat one without."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.training.architectures import ModelConfig
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "sparrow58k"


def rows(split: str) -> list[Dataset]:
    if not DATA.is_dir():
        pytest.skip("the SparrowRecSys samples are not beside the project")
    return [open_dataset("sparrow", DATA / f"{split}.{part}.csv.gz") for part in ("train", "test")]


@pytest.mark.faults
@pytest.mark.parametrize(("split", "auc", "log_loss"), [("random", 0.799, 0.521), ("time", 0.791, 0.489)])
def test_sparrow(split: str, auc: float, log_loss: float, tmp_path: Path) -> None:
    train, test = rows(split)
    result = TrainingJob(JobConfig(refit=False)).run(train, test, tmp_path, name="deepfm")
    assert (result.rows["train"] + result.rows["validation"], result.rows["test"]) == (46_447, 11_612)
    test_metrics = result.metrics["test"]
    assert test_metrics["auc"] >= auc
    assert test_metrics["log_loss"] <= log_loss
    assert test_metrics["calibration"] == pytest.approx(1.0, abs=0.04)
    for metrics in result.baselines.values():
        assert test_metrics["auc"] > metrics["auc"]
        assert test_metrics["log_loss"] < metrics["log_loss"]


@pytest.mark.faults
def test_crosses_beat_what_has_none() -> None:
    """Under a wrong L2 they would not: embeddings that are pulled to zero cross nothing."""
    prepared = TrainingJob(JobConfig()).prepare(*rows("random"))
    loss = {}
    for name in ("lr", "fm"):
        model = ModelConfig(name)
        config = TrainerConfig(table_l2=model.table_l2())
        trainer = Trainer(config, model.build(prepared.preprocessing), prepared.preprocessing)
        fitted = trainer.fit(prepared.rows["train"], prepared.rows["validation"])
        loss[name] = fitted.epochs[fitted.best_epoch].validation_loss
    assert loss["fm"] < loss["lr"] - 0.002
