"""One training run from raw rows to a verified version: read, split, fit, train, measure, export."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from app.models.inputs import Preprocessing
from app.training.architectures import ModelConfig
from app.training.baselines import baselines
from app.training.datasets.dataset import Dataset, Skipped
from app.training.evaluate import evaluate
from app.training.prepare import Encoded, Preparation, Rows, encode, expand
from app.training.publish import export, verify
from app.training.split import SplitConfig
from app.training.trainer import Fitted, Step, TrainerConfig, predict

Metrics = dict[str, float]
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class JobConfig:
    """Every choice of a run; kept in the manifest."""

    model: ModelConfig = field(default_factory=ModelConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    preparation: Preparation = field(default_factory=Preparation)

    def build(self) -> TrainingJob:
        return TrainingJob(self)


@dataclass(frozen=True)
class Result:
    metrics: dict[str, Metrics]
    """Of the parts `validation` and `test`."""
    baselines: dict[str, Metrics]
    """On the test part."""
    fitted: Fitted
    seconds: float
    rows: dict[str, int]
    unreadable: dict[str, Skipped]


@dataclass(frozen=True)
class TrainingJob:
    config: JobConfig

    def run(
        self,
        data: Dataset,
        test: Dataset | None,
        folder: Path,
        *,
        name: str,
        say: Callable[[str], None] = lambda _: None,
        report: Callable[[Step], None] | None = None,
    ) -> Result:
        """
        Args:
            test: rows to test on; None holds some of `data` out.
            folder: existing folder for the version.
            say: told what is being done, for people.

        Raises:
            DataError, ConfigError: the rows or the options do not fit.
            ArtifactError: what was written does not read back with the same metrics.
        """
        config, started = self.config, time.perf_counter()
        parts = dict(zip(PARTS, config.split.parts(data, test), strict=True))
        say("Encoding " + ", ".join(f"{len(part):,} {part_name}" for part_name, part in parts.items()) + " rows")
        encoded = {part: encode(rows) for part, rows in parts.items()}
        preprocessing = config.preparation.fit(data.schema, encoded["train"])
        rows = {part: expand(preprocessing, slots) for part, slots in encoded.items()}

        say(f"Training {config.model.name}: {preprocessing.rows:,} table rows")
        model = config.model.build(preprocessing)
        fitted = config.trainer.build(model, preprocessing).fit(rows["train"], rows["validation"], report)
        with torch.inference_mode():
            metrics = {
                part: evaluate(encoded[part].labels_N, model.probability(predict(model, rows[part])).numpy())
                for part in ("validation", "test")
            }
        say("Fitting the baselines on the same rows")
        beside = self._baselines(preprocessing, encoded, rows)
        export(
            folder,
            model,
            parts["validation"],
            name=name,
            metrics={**metrics, "baselines": beside},
            data=describe(parts),
            config={**asdict(config), "epochs_trained": len(fitted.epochs), "best_epoch": fitted.best_epoch + 1},
        )
        verify(folder, encoded["test"], metrics["test"])
        return Result(
            metrics=metrics,
            baselines=beside,
            fitted=fitted,
            seconds=time.perf_counter() - started,
            rows={part: len(rows) for part, rows in parts.items()},
            unreadable={f: s for slots in encoded.values() for f, s in slots.unreadable.items()},
        )

    def _baselines(
        self, preprocessing: Preprocessing, encoded: dict[str, Encoded], rows: dict[str, Rows]
    ) -> dict[str, Metrics]:
        seed = self.config.trainer.seed
        return baselines(preprocessing, (encoded["train"], rows["train"]), (encoded["test"], rows["test"]), seed)


def describe(parts: dict[str, Dataset]) -> dict[str, Any]:
    """Where the rows came from, how many, their CTR, and the time they span."""
    described: dict[str, Any] = {"source": parts["train"].source, "dataset": parts["train"].name}
    for name, part in parts.items():
        described[name] = {"rows": len(part), "ctr": round(float(part.labels_N.mean()), 6), **_window(part)}
    if parts["train"].skipped.count:
        described["skipped"] = str(parts["train"].skipped)
    return described


def _window(part: Dataset) -> dict[str, str | int]:
    if part.timestamps_N is None:
        return {}
    ends = {"from": int(part.timestamps_N.min()), "to": int(part.timestamps_N.max())}
    try:
        return {end: datetime.fromtimestamp(at, UTC).isoformat() for end, at in ends.items()}
    except (ValueError, OverflowError, OSError):  # not seconds since 1970
        return dict(ends)
