"""Fit the model again on all rows, those that it was judged on included, for the epochs that were best.

The rows that are held out to stop early and to measure are the newest, or some that nothing was learned from: a version
that is published without them has never seen the newest keys. Number of epochs and calibration are those of the
held-out model, and so are the metrics; only the rows of a test file can measure the refitted model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.training.data.dataset import Dataset
from app.training.data.row_weights import RowWeights
from app.training.distributed import SINGLE_PROCESS, ProcessGroup
from app.training.evaluation.calibration import Calibration
from app.training.evaluation.linear_baseline import fit_linear
from app.training.evaluation.predict import predict
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import Weighting
from app.training.job_config import JobConfig
from app.training.linear_average import LinearAverage, average
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import FitResult, Trainer
from app.training.preprocessing.encode import EncodedRows, encode
from app.training.preprocessing.expand import ExpandedRows, expand

Start = Callable[[CtrModel, Preprocessing, ExpandedRows], Callable[[], object]]
"""Gives a model the weights to begin with on these rows; returns what is to be called once it is trained."""


@dataclass(frozen=True)
class RefittedModel:
    """Holds a model that was trained on all rows, with the held-out model's calibration carried over to it."""

    model: CtrModel
    epochs: int
    rows: dict[str, ExpandedRows]
    """The rows that it was trained on, `train`, and the `test` rows."""
    has_seen_test: bool
    """Whether the test rows were held out of the data, so that it was trained on them too."""
    calibration: Calibration = field(default_factory=Calibration)
    weights: RowWeights | None = None
    """How much each of the rows that it was trained on counts; None where all count the same."""

    def calibrated(
        self, calibration: Calibration, validation_logits_N: Floats, weighting: Weighting | None = None
    ) -> RefittedModel:
        """Apply the held-out model's calibration, carried over, to the model in place; return it with that.

        Args:
            validation_logits_N, weighting: what the calibration was fitted to.
        """
        if calibration.method == "platt":  # which alone asks for a pass over all rows
            logits_N: Floats = predict(self.model, self.rows["train"]).numpy()
            labels_N: Floats = self.rows["train"].labels_N.numpy()
            own_weighting = None if self.weights is None else self.weights.in_training
            calibration = calibration.carried_over(validation_logits_N, logits_N, labels_N, weighting, own_weighting)
        calibration.apply(self.model)
        return replace(self, calibration=calibration)

    def test_probabilities(self) -> Floats:
        """Return the calibrated probabilities of the test rows, in float64."""
        return self.calibration.probabilities(predict(self.model, self.rows["test"]).numpy())

    def summary(self) -> dict[str, Any]:
        """Return what the manifest and the report say of the refitting."""
        return {"rows": len(self.rows["train"].labels_N), "epochs": self.epochs, "has_seen_test": self.has_seen_test}


def refit(
    config: JobConfig,
    data: Dataset,
    test: EncodedRows,
    fitted: FitResult,
    like: Preprocessing,
    *,
    has_seen_test: bool,
    start: Start | None = None,
    averaged: LinearAverage | None = None,
    on_progress: Callable[[ProgressUpdate], None] | None = None,
    checkpoint: Checkpoint | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> RefittedModel:
    """Train a model on all rows, not yet calibrated.

    Args:
        data: training and validation rows, and the test rows if they were held out of them.
        test: the test rows, to be scored.
        fitted: how the held-out model was trained.
        like: the preprocessing of the held-out model, which has the target statistics that are learned.
        start: gives the model its first weights; None begins with fresh ones.
        averaged: how the held-out model was averaged with logistic regression.
        checkpoint: where to keep the state of this fit, in a file other than the held-out model's.

    Raises:
        DataError: the training diverges, or the checkpoint is of another run.
        MemoryError and the like: the regression that the model is averaged with cannot be fitted to all rows.
    """
    machine_group = group.on_this_machine()
    encoded = encode(data, machine_group)
    preprocessing = config.preparation.fit(data.schema, encoded, group)
    rows = {part: expand(preprocessing, slots, machine_group) for part, slots in (("train", encoded), ("test", test))}
    preprocessing, rows = config.extend(preprocessing, rows, like)
    model, epochs = config.model.build(preprocessing), fitted.best_epoch + 1
    trainer = Trainer(replace(config.trainer, epochs=epochs), model, preprocessing)
    after = start(model, preprocessing, rows["train"]) if start else None
    trainer.fit(
        rows["train"],
        None,
        on_progress,
        warm=start is not None,
        checkpoint=checkpoint,
        group=group,
    )
    if after:
        after()
    if averaged and averaged.share:
        linear = fit_linear(preprocessing, rows["train"], config.trainer.seed, averaged.inverse_l2)
        average(model, linear, averaged.share)
    return RefittedModel(model, epochs, rows, has_seen_test, weights=encoded.weights)
