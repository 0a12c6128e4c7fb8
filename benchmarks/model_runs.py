"""Trains one model of the table, a split, an architecture and a seed, and keeps its result in a JSON file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.training.architectures import ModelConfig
from app.training.data.split import HELD_OUT, PARTS, SplitConfig
from app.training.evaluation.baselines import fit_baselines
from app.training.export import export_version, verify_export
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.job_results import PreparedData, TrainedModel
from app.training.loop.trainer import Trainer
from app.training.loop.trainer_config import TrainerConfig

PEERS = ("logistic_regression", "gradient_boosting")
"""Models of scikit-learn that are trained on the same rows."""


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one trained model, as its JSON file holds them."""

    split: str
    model: str
    seed: int
    auc: float
    log_loss: float
    gauc: float | None
    validation_log_loss: float | None
    seconds: float
    """Time of the fit, with validation after each epoch and without encoding."""
    epochs: int | None
    samples_per_second: float | None
    artifact_bytes: int | None
    """Size of program, tables and manifest; None for a peer."""
    calibrated: bool
    fingerprint: str
    """The configuration and the data's hashes; a result with another fingerprint is of another run."""
    commit: str
    created_at: str
    load_average: float
    """Load average of the last minute, when the run ended."""


@dataclass(frozen=True)
class RunKey:
    """A split, an architecture and a seed: what is trained once and then kept."""

    split: str
    model: str
    seed: int

    def file(self, folder: Path) -> Path:
        """Return the path of the result's file in this folder."""
        return folder / f"{self.split}-{self.model}-{self.seed}.json"

    def config(self) -> JobConfig:
        """Return the job with default settings; a peer gets the same split and preprocessing."""
        model = ModelConfig(seed=self.seed) if self.model in PEERS else ModelConfig(self.model, seed=self.seed)
        trainer = TrainerConfig(seed=self.seed, table_l2=model.table_l2)
        return JobConfig(model=model, trainer=trainer, split=SplitConfig(seed=self.seed))


def read_result(key: RunKey, folder: Path, fingerprint: str) -> RunResult | None:
    """Return the kept result; None if there is none, it cannot be read, or it is of other settings or data."""
    try:
        result = msgspec.json.decode(key.file(folder).read_bytes(), type=RunResult)
    except (OSError, msgspec.DecodeError):
        return None
    return result if result.fingerprint == fingerprint else None


def write_result(key: RunKey, folder: Path, result: RunResult) -> None:
    """Replace the result's file at once, so that a run that is killed leaves that of the run before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = key.file(folder)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    os.replace(temporary, path)


def file_digests(files: Iterable[Path]) -> dict[str, str]:
    """Return file name to hash, so that a kept result can be checked without encoding the rows."""
    digests = {}
    for path in files:
        with path.open("rb") as file:
            digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return digests


def fingerprint(key: RunKey, digests: Mapping[str, str]) -> str:
    """Return everything that a result depends on, except the code."""
    return msgspec.json.encode({"config": asdict(key.config()), "files": digests}, order="sorted").decode()


def train(key: RunKey, prepared: PreparedData, fingerprint: str, commit: str) -> RunResult:
    """Train and measure one model.

    Raises:
        ArtifactError: the exported version does not give the same scores.
        DataError: training diverges.
    """
    job = TrainingJob(key.config())
    measure = _measure_peer if key.model in PEERS else _measure_model
    figures = measure(key, job, prepared)
    return RunResult(
        split=key.split,
        model=key.model,
        seed=key.seed,
        **figures,
        fingerprint=fingerprint,
        commit=commit,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_average=round(os.getloadavg()[0], 2),
    )


def _measure_model(key: RunKey, job: TrainingJob, prepared: PreparedData) -> dict[str, Any]:
    model = job.config.model.build(prepared.preprocessing)
    began = time.perf_counter()
    trainer = Trainer(job.config.trainer, model, prepared.preprocessing)
    fitted = trainer.fit(prepared.rows["train"], prepared.rows["validation"])
    seconds = time.perf_counter() - began
    trained = job.calibrate_and_measure(prepared, model, fitted)
    return {
        **_test_metrics(trained.metrics["test"]),
        "validation_log_loss": trained.metrics["validation"]["log_loss"],
        "seconds": seconds,
        "epochs": len(fitted.epochs),
        "samples_per_second": fitted.samples_per_second,
        "artifact_bytes": _artifact_bytes(key, prepared, trained),
        "calibrated": trained.calibration.method != "none",
    }


def _test_metrics(test: dict[str, float]) -> dict[str, Any]:
    return {"auc": test["auc"], "log_loss": test["log_loss"], "gauc": test.get("gauc")}


def _artifact_bytes(key: RunKey, prepared: PreparedData, trained: TrainedModel) -> int:
    with tempfile.TemporaryDirectory() as folder:
        export_version(Path(folder), trained.model, prepared.data["validation"], name=key.model)
        verify_export(Path(folder), prepared.encoded["test"], trained.probabilities("test"))
        return sum((Path(folder) / file).stat().st_size for file in (PROGRAM, TABLES, MANIFEST))


def _measure_peer(key: RunKey, job: TrainingJob, prepared: PreparedData) -> dict[str, Any]:
    parts = {part: (prepared.encoded[part], prepared.rows[part]) for part in PARTS}
    groups = {part: prepared.groups(part) for part in HELD_OUT}
    began = time.perf_counter()
    fitted = fit_baselines(prepared.preprocessing, parts, job.config.trainer.seed, groups, names=(key.model,))[
        key.model
    ]
    seconds = time.perf_counter() - began
    return {
        **_test_metrics(fitted.metrics["test"]),
        "validation_log_loss": fitted.metrics["validation"]["log_loss"],
        "seconds": seconds,
        "epochs": None,
        "samples_per_second": None,
        "artifact_bytes": None,
        "calibrated": False,
    }
