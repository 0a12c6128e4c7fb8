"""A model that is averaged with logistic regression has the mean of both logits, and is served so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.models import MODELS, build
from app.registry.artifact.load import load
from app.training import linear_average
from app.training.calibrated_model import calibrate_and_measure
from app.training.data.dataset import Dataset
from app.training.distributed import SINGLE_PROCESS
from app.training.evaluation.linear_baseline import fit_linear
from app.training.evaluation.platt import sigmoid
from app.training.evaluation.predict import predict
from app.training.evaluation.weighting import equal_weights
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.linear_average import average, choose_share, fit_regression
from app.training.preprocessing.encode import encode
from app.training.preprocessing.expand import ExpandedRows, expand
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.training.evaluation.test_baselines import by_gender
from tests.training.preprocessing.test_preprocessing_fit import some_data
from tests.training.test_job import labelled, paired, small_job

LOGITS = {"atol": 2e-5, "rtol": 2e-5}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_with_a_first_order_part_takes_a_regressions_weights(name: str) -> None:
    encoded = encode(some_data(200))
    preprocessing = PreprocessingFit().fit(some_data(200).schema, encoded)
    rows = expand(preprocessing, encoded)
    linear = fit_linear(preprocessing, rows)
    model = build(name, preprocessing).eval()
    with torch.inference_mode():
        alone_N = predict(model, rows).double().numpy()
    average(model, linear, 0.25)
    with torch.inference_mode():
        averaged_N = 0.75 * predict(model, rows).double().numpy()
    is_mean = np.allclose(averaged_N, 0.75 * alone_N + 0.25 * linear.logits(rows), **LOGITS)
    assert is_mean == MODELS[name].has_first_order


def noise_and_signal(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    signal_N = rng.normal(size=rows)
    labels_N = (rng.random(rows) < sigmoid(signal_N)).astype(np.float32)
    return rng.normal(size=rows), signal_N, labels_N


class Linear:
    """Stands for a regression with these logits."""

    inverse_l2 = 0.1

    def __init__(self, logits_N: np.ndarray) -> None:
        self.logits_N = logits_N

    def logits(self, rows: ExpandedRows) -> np.ndarray:
        return self.logits_N


def chosen(model_N: np.ndarray, linear_N: np.ndarray, labels_N: np.ndarray) -> float:
    empty = torch.empty(len(labels_N), 0)
    rows = ExpandedRows(empty, empty, torch.from_numpy(labels_N))
    return choose_share(Linear(linear_N), model_N, rows, equal_weights(len(labels_N))).share  # type: ignore[arg-type]


def test_the_share_is_what_validation_says_and_a_half_where_that_says_little() -> None:
    noise_N, signal_N, labels_N = noise_and_signal(4000)
    assert chosen(signal_N, noise_N, labels_N) == 0
    assert chosen(noise_N, signal_N, labels_N) == 0.75
    assert chosen(signal_N, signal_N, labels_N) == 0.5
    few = slice(0, 4)
    assert chosen(signal_N[few], 0.9 * signal_N[few], labels_N[few]) == 0.5


def run(job: JobConfig, data: Dataset, folder: Path) -> tuple[float, dict[str, Any]]:
    """Return the share that was taken, and what the manifest says of the job."""
    folder.mkdir()
    result = TrainingJob(job).run(data, None, folder, name="tried")
    return result.config.linear_share or 0.0, load(folder).manifest.config


def test_what_is_chosen_is_served_and_in_the_manifest(tmp_path: Path) -> None:
    job = replace(small_job(), effort="quick")
    share, config = run(job, by_gender(400), tmp_path / "chosen")
    assert share > 0
    assert config["linear_share"] == share
    calibrated = config["calibrated"]
    assert calibrated["scale"] == 1 - share
    program = load(tmp_path / "chosen").program
    assert float(program.calibration_2[0]) == pytest.approx(calibrated["slope"] * (1 - share))
    assert run(replace(job, linear_share=0.0, given=("linear_share",)), by_gender(400), tmp_path / "none")[0] == 0
    assert run(replace(job, linear_share=0.3, given=("linear_share",)), by_gender(400), tmp_path / "given")[0] == 0.3


def test_a_version_that_was_fitted_again_is_the_mean_of_both_fits(tmp_path: Path) -> None:
    """The two are fitted apart, so that the average is known from them."""
    data, job = by_gender(400), replace(small_job(), linear_share=0.5, calibration="none")
    prepared = TrainingJob(job).prepare(data, None)
    alone = TrainingJob(replace(job, linear_share=0.0)).train(prepared)
    linear = fit_linear(prepared.preprocessing, prepared.rows["train"], job.trainer.seed)
    model, fitted = TrainingJob(job)._fit(prepared, None, None, SINGLE_PROCESS)
    both = calibrate_and_measure(job, prepared, model, fitted)
    expected_N = sigmoid((alone.logits["test"] + linear.logits(prepared.rows["test"])) / 2)
    np.testing.assert_allclose(both.probabilities("test"), expected_N, atol=1e-6)
    again, again_alone = (
        TrainingJob(replace(job, linear_share=share)).refit(data, None, prepared, trained)
        for share, trained in ((0.5, both), (0.0, alone))
    )
    assert again is not None
    assert again_alone is not None
    linear = fit_linear(prepared.preprocessing, again.rows["train"], 0, linear.inverse_l2)
    alone_N = predict(again_alone.model, again.rows["test"]).detach().numpy()
    expected_N = sigmoid((alone_N + linear.logits(again.rows["test"])) / 2)
    np.testing.assert_allclose(again.test_probabilities(), expected_N, atol=1e-6)


def test_target_statistics_are_no_part_of_the_regression() -> None:
    job = replace(
        small_job(), preparation=PreprocessingFit(1, "pairs"), split=replace(small_job().split, kind="random")
    )
    with_statistics = TrainingJob(job).prepare(paired(1500), None)
    plain = TrainingJob(replace(job, preparation=PreprocessingFit(1, "none"))).prepare(paired(1500), None)
    assert with_statistics.preprocessing.statistics
    fits = [fit_linear(p.preprocessing, p.rows["train"]) for p in (plain, with_statistics)]
    np.testing.assert_allclose(fits[0].weights_R, fits[1].weights_R)
    np.testing.assert_allclose(
        fits[0].logits(plain.rows["validation"]), fits[1].logits(with_statistics.rows["validation"])
    )


def test_a_regression_that_cannot_be_fitted_costs_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("too many columns")

    monkeypatch.setattr(linear_average, "fit_linear", fail)
    assert run(replace(small_job(), effort="quick"), labelled(), tmp_path / "alone")[0] == 0


def test_there_is_no_regression_where_it_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = by_gender(100)
    encoded = encode(data)
    preprocessing = PreprocessingFit().fit(data.schema, encoded)
    rows = expand(preprocessing, encoded)
    assert fit_regression(None, build("deepfm", preprocessing), preprocessing, rows, 0)
    assert fit_regression(0.0, build("deepfm", preprocessing), preprocessing, rows, 0) is None
    assert fit_regression(None, build("dcn", preprocessing), preprocessing, rows, 0) is None
    monkeypatch.setattr(linear_average, "MAX_ROWS", 99)
    assert fit_regression(None, build("deepfm", preprocessing), preprocessing, rows, 0) is None
