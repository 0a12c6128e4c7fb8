"""Hold the results of a training job's stages: prepared data, a trained model, and the result of the whole job."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.data.dataset import Dataset
from app.training.data.readers.bad_rows import SkippedRows
from app.training.evaluation.calibration import Calibration
from app.training.evaluation.linear_baseline import LinearFit
from app.training.evaluation.reliability import Floats
from app.training.evaluation.user_groups import user_groups
from app.training.evaluation.verdict import Verdict
from app.training.job_config import JobConfig
from app.training.linear_average import LinearAverage
from app.training.loop.trainer import FitResult
from app.training.preprocessing.encode import EncodedRows
from app.training.preprocessing.expand import ExpandedRows

Metrics = dict[str, float]


@dataclass(frozen=True)
class PreparedData:
    """Holds the parts `train`, `validation` and `test` of the data by name: raw, encoded, and as table rows."""

    data: dict[str, Dataset]
    encoded: dict[str, EncodedRows]
    preprocessing: Preprocessing
    rows: dict[str, ExpandedRows]

    @property
    def are_mapped(self) -> bool:
        """Tell whether rows are mapped from files, as those of a service and of large files are."""
        return any(part.scratch_folder is not None for part in self.encoded.values())

    @property
    def negatives_offset(self) -> float:
        """Return ln R, where a share R of the rows without a click was kept: 0 where all were."""
        weights = self.encoded["train"].weights
        return 0.0 if weights is None else weights.negatives_offset

    def groups(self, part: str) -> npt.NDArray[np.int64] | None:
        """Return the user of each row of a part, for GAUC; None if the schema has no user id."""
        return user_groups(self.preprocessing.schema, self.encoded[part])


@dataclass(frozen=True)
class TrainedModel:
    """Holds a model with its calibration applied, and its metrics on the parts `validation` and `test`."""

    model: CtrModel
    fitted: FitResult
    calibration: Calibration
    logits: dict[str, Floats]
    metrics: dict[str, Metrics]
    uncalibrated: dict[str, Metrics]
    average: LinearAverage = field(default_factory=LinearAverage)
    """How it was averaged with logistic regression."""
    linear: LinearFit | None = None
    """The regression, which is a baseline too; None where it was not fitted."""

    def probabilities(self, part: str) -> Floats:
        """Compute calibrated probabilities [N], in float64, of a held-out part's rows."""
        return self.calibration.probabilities(self.logits[part])


@dataclass(frozen=True)
class JobResult:
    """Holds the results of a training job for the command that ran it."""

    metrics: dict[str, Metrics]
    """The model's metrics on the parts `validation` and `test`."""
    baselines: dict[str, Metrics]
    """The baselines' metrics on the test part."""
    baseline_notes: dict[str, str]
    """How each baseline was fitted."""
    verdict: Verdict
    """How the model compares with the baselines, and why it is poor, if it is."""
    fitted: FitResult
    seconds: float
    rows: dict[str, int]
    """How many impressions each part has."""
    clicks: dict[str, int]
    """How many of these have a click."""
    unreadable: dict[str, SkippedRows]
    calibration: Calibration
    uncalibrated: dict[str, Metrics]
    """The model's metrics without the calibration."""
    report: Path | None
    """The report's page; None if it could not be written."""
    refitted: dict[str, Any] | None
    """What the version was trained on, if that was not the model that was measured."""
    refitted_metrics: Metrics | None
    """The version's own metrics on the rows of a test file; None where there is none, or it is the measured model."""
    metrics_of: str
    """Says whose `metrics` are: those of the version, or of the held-out model that it was fitted again after."""
    recipe: dict[str, Any] | None
    """How the configuration was chosen: the name of the fit, and all that were tried."""
    config: JobConfig
    """The configuration that was chosen."""
    test: EncodedRows
    """The test part, to measure others on the same rows."""
    test_probabilities_N: Floats
    """The measured model's probabilities of these rows."""
