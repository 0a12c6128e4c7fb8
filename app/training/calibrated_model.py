"""Average a trained model with logistic regression, calibrate it on the validation part, and measure it."""

from __future__ import annotations

from dataclasses import replace

import torch

from app.models.base import CtrModel
from app.training.data.split import HELD_OUT
from app.training.evaluation.calibration import Calibration, fit_calibration
from app.training.evaluation.metrics import evaluate
from app.training.evaluation.predict import predict
from app.training.evaluation.reliability import Floats
from app.training.evaluation.weighting import equal_weights
from app.training.job_config import JobConfig
from app.training.job_results import Metrics, PreparedData, TrainedModel
from app.training.linear_average import LinearAverage, average, choose_share, fit_regression
from app.training.loop.trainer import FitResult


def calibrate_and_measure(
    config: JobConfig, prepared: PreparedData, model: CtrModel, fitted: FitResult
) -> TrainedModel:
    """Average a trained model with logistic regression, if the job says so, and calibrate it, in place; measure it."""
    labels = {part: prepared.encoded[part].labels_N for part in HELD_OUT}

    def predict_held_out() -> dict[str, Floats]:
        with torch.inference_mode():
            return {part: predict(model, prepared.rows[part]).numpy() for part in HELD_OUT}

    linear = fit_regression(
        config.linear_share, model, prepared.preprocessing, prepared.rows["train"], config.trainer.seed
    )
    logits, averaged = predict_held_out(), LinearAverage()
    weighting = prepared.encoded["validation"].learned_weighting or equal_weights(len(labels["validation"]))
    if linear and config.linear_share is not None:
        averaged = LinearAverage(config.linear_share, linear.inverse_l2)
    elif linear:
        averaged = choose_share(linear, logits["validation"], prepared.rows["validation"], weighting)
    if linear and averaged.share:
        average(model, linear, averaged.share)
        logits = predict_held_out()
    calibration = fit_calibration(
        config.calibration,
        averaged.scale * logits["validation"],
        labels["validation"],
        config.trainer.seed,
        weighting,
    )
    calibration = replace(calibration, negatives_offset=prepared.negatives_offset, scale=averaged.scale)
    calibration.apply(model)

    def measure(with_calibration: Calibration) -> dict[str, Metrics]:
        return {
            part: evaluate(
                labels[part],
                with_calibration.probabilities(logits[part]),
                prepared.groups(part),
                prepared.encoded[part].weighting,
            )
            for part in HELD_OUT
        }

    uncalibrated = measure(calibration.as_trained)
    return TrainedModel(model, fitted, calibration, logits, measure(calibration), uncalibrated, averaged, linear)
