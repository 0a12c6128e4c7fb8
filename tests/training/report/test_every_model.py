"""A report is drawn for every architecture, and for schemas that lack what others have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from app.features.schema import FeatureSchema, parse_schema
from app.models import MODELS
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.trainer_config import TrainerConfig
from tests.training.test_job import labelled

SHORT = JobConfig(trainer=TrainerConfig(batch_size=128, epochs=1))
ODD = {
    "numbers only": "  - {name: age, entity: user, type: numeric}\n  - {name: price, entity: item, type: numeric}\n",
    "no user id, no numbers": "  - {name: city, entity: user, type: categorical}\n"
    "  - {name: film, entity: item, type: categorical, id: true}\n",
    "a field that is never there": "  - {name: city, entity: user, type: categorical}\n"
    "  - {name: nothing, entity: user, type: numeric, buckets: 3}\n"
    "  - {name: film, entity: item, type: categorical, id: true}\n",
}

USUAL = ("deepfm", "lr", "fusion")
"""Drawn by `make test`; the others by `make test-faults`."""


def rows(schema: FeatureSchema) -> Dataset:
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.normal(40, 9, 200).round(1),
        "price": np.where(rng.random(200) < 0.1, None, 5.0),
        "city": [f"c{n % 7}" for n in range(200)],
        "nothing": [None] * 200,
        "film": [f"f{n % 11}" for n in range(200)],
    }
    sides = {
        side: pl.DataFrame({f.raw_name: list(columns[f.raw_name]) for f in schema.side(side)}, strict=False)
        for side in ("user", "item")
    }
    labels = (rng.random(200) < 0.4).astype(np.float32)
    return Dataset("odd", schema, sides["user"], sides["item"], labels, None, "odd")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[] if name in USUAL else pytest.mark.faults) for name in MODELS]
)
def test_it_is_drawn(model: str, tmp_path: Path) -> None:
    messages: list[str] = []
    job = replace(SHORT, model=ModelConfig(model))
    result = TrainingJob(job).run(labelled(), None, tmp_path, name="tried", notify=messages.append)
    assert result.report is not None, messages[-1]
    findings = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert findings["model"]["architecture"] == model
    assert ("omitted" in findings["crosses"]) != ("strength" in findings["crosses"])


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_schemas_may_lack_much(fields: str, tmp_path: Path) -> None:
    messages: list[str] = []
    data = rows(parse_schema(f"fields:\n{fields}"))
    result = TrainingJob(SHORT).run(data, None, tmp_path, name="tried", notify=messages.append)
    assert result.report is not None, messages[-1]
    page = result.report.read_text()
    assert "the schema has no user id" in page
    assert "gauc" not in result.metrics["test"]
