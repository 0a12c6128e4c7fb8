"""Trains one model of the tables, a set, an architecture and a seed, and keeps its result in a JSON file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec

from app.commands.options import job_config
from app.registry.artifact.manifest import MANIFEST, PROGRAM, TABLES
from app.training import judgement
from app.training.data.dataset import Dataset
from app.training.evaluation.baselines import BaselineResult, fit_baselines
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.user_groups import user_groups
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from benchmarks.model_peers import PEERS, constant_log_loss

CHUNK_ROWS = 100_000


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics on the test part of one trained model, as its JSON file holds them."""

    set: str
    model: str
    seed: int
    auc: float
    gauc: float | None
    """None where the set has no users."""
    log_loss: float
    calibration: float | None
    """Predicted over observed clicks."""
    constant_log_loss: float
    """Log loss of the training rows' share of clicks."""
    poor: list[str]
    """Why `ctr train` would call it poor."""
    note: str
    """How it was calibrated, or how a peer was fitted."""
    seconds: float
    """The whole job but reading and the baselines' fit, which the models of a set share."""
    epochs: int | None
    artifact_bytes: int | None
    """Size of program, tables and manifest; None for a peer."""
    fingerprint: str
    """The configuration and the data's hashes; a result with another fingerprint is of another run."""
    commit: str
    created_at: str
    load_average: float
    """Load average of the last minute, when the run ended."""


@dataclass(frozen=True)
class RunKey:
    """A set, an architecture or peer, and a seed: what is trained once and then kept."""

    set: str
    model: str
    seed: int
    effort: str = "default"
    """The option `--effort` of `ctr train`."""

    def file(self, folder: Path) -> Path:
        """Return the path of the result's file in this folder."""
        return folder / f"{self.set}-{self.model}-{self.seed}.json"

    def config(self) -> JobConfig | None:
        """Return the job that `ctr train --model MODEL --seed SEED --effort EFFORT` runs; None for a peer."""
        return None if self.model in PEERS else job_config(self.model, self.seed, effort=self.effort)


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


def fingerprint(key: RunKey, digests: Mapping[str, str], quick: bool = False, cut: int | None = None) -> str:
    """Return everything that a result depends on, except the code.

    Args:
        cut: the number of training rows that were drawn; None for all.
    """
    config = key.config()
    described: dict[str, Any] = {"config": asdict(config) if config else key.model, "files": digests, "quick": quick}
    if cut is not None:
        described["cut"] = cut
    return msgspec.json.encode(described, order="sorted").decode()


def run(key: RunKey, train: Dataset, test: Dataset, fingerprint: str, commit: str) -> RunResult:
    """Train and measure one model or peer.

    Raises:
        ArtifactError: the exported version does not give the same scores.
        ConfigError, DataError: the model does not fit the rows, or training diverges.
    """
    config = key.config()
    began = time.perf_counter()
    figures = _run_peer(key, train, test) if config is None else _run_model(key, config, train, test)
    metrics = figures.pop("metrics")
    return RunResult(
        set=key.set,
        model=key.model,
        seed=key.seed,
        auc=metrics["auc"],
        gauc=metrics.get("gauc"),
        log_loss=metrics["log_loss"],
        calibration=metrics["calibration"],
        constant_log_loss=constant_log_loss(train.labels_N, test.labels_N),
        seconds=round(time.perf_counter() - began, 2),
        **figures,
        fingerprint=fingerprint,
        commit=commit,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_average=round(os.getloadavg()[0], 2),
    )


def _run_model(key: RunKey, config: JobConfig, train: Dataset, test: Dataset) -> dict[str, Any]:
    """Run the job of `ctr train`; the metrics are those of the version that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        result = TrainingJob(config).run(train, test, Path(folder), name=key.model)
        size = sum((Path(folder) / file).stat().st_size for file in (PROGRAM, TABLES, MANIFEST))
    return {
        "metrics": result.refitted_metrics or result.metrics["test"],
        "poor": list(result.verdict.poor),
        "note": f"calibration: {result.calibration.method}",
        "epochs": len(result.fitted.epochs),
        "artifact_bytes": size,
    }


def _run_peer(key: RunKey, train: Dataset, test: Dataset) -> dict[str, Any]:
    encoded = {"train": encode(train), "test": encode(test)}
    preprocessing = PreprocessingFit().fit(train.schema, encoded["train"])
    rows = {part: expand(preprocessing, slots) for part, slots in encoded.items()}
    fitted = PEERS[key.model](preprocessing, encoded["train"], rows["train"], key.seed)
    probabilities_N = fitted.predict_in_chunks(encoded["test"], rows["test"], CHUNK_ROWS)
    metrics = evaluate(test.labels_N, probabilities_N, user_groups(train.schema, encoded["test"]))
    return {"metrics": metrics, "poor": [], "note": fitted.note, "epochs": None, "artifact_bytes": None}


@contextlib.contextmanager
def baselines_fitted_once() -> Iterator[None]:
    """Have the jobs within it fit the baselines of equal parts once: they are the same for every model."""
    fitted: dict[object, dict[str, BaselineResult]] = {}

    def fit(preprocessing: Any, parts: Any, seed: int = 0, *others: Any, **options: Any) -> dict[str, BaselineResult]:
        key = (seed, repr(options), *((part, encoded.labels_N.tobytes()) for part, (encoded, _) in parts.items()))
        if key not in fitted:
            fitted[key] = fit_baselines(preprocessing, parts, seed, *others, **options)
        return fitted[key]

    with patch.object(judgement, "fit_baselines", fit):
        yield
