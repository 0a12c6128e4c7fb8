"""A search begins with the defaults, goes on where it ended, gives up what falls behind, and is of one thing only."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.commands.options import job_config
from app.errors import ConfigError
from app.models import MODELS
from app.training.job import TrainingJob
from app.training.job_results import PreparedData
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import Trainer
from app.training.tuning import Search, Trial, search_space
from tests.training.test_job import labelled

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install ctr-serving[tune]")
ABOUT = {"model": "lr", "training rows": "abc"}
MAKE = functools.partial(job_config, "lr", 0, "auto", epochs=2)


@pytest.fixture(scope="module")
def prepared() -> PreparedData:
    return TrainingJob(MAKE()).prepare(labelled(), None)


def search(folder: Path, prepared: PreparedData, trials: int, **options: Any) -> Search:
    study = Search.open(folder / "tune-lr.db", "lr", ABOUT, 0)
    study.run(prepared, MAKE, search_space("lr"), trials, **options)
    return study


def test_it_begins_with_the_defaults_and_the_best_trains_to_what_it_says(
    tmp_path: Path, prepared: PreparedData
) -> None:
    ended: list[Trial] = []
    study = search(tmp_path, prepared, 4, on_trial=ended.append)
    assert [trial.number for trial in ended] == [0, 1, 2, 3]
    assert ended == study.trials
    assert study.trials[0].options == pytest.approx(search_space("lr"), rel=1e-3)
    assert len({str(trial.options) for trial in study.trials}) == 4
    best = study.best
    assert best is not None
    assert best.loss == min(trial.loss for trial in study.trials if trial.loss is not None)
    trained = TrainingJob(MAKE(**best.options)).train(prepared)
    assert min(epoch.validation_loss for epoch in trained.fitted.epochs) == pytest.approx(best.loss, abs=1e-9, rel=1e-3)


def test_it_goes_on_where_it_ended_with_other_trials(tmp_path: Path, prepared: PreparedData) -> None:
    first = search(tmp_path, prepared, 3).trials
    ended: list[Trial] = []
    again = search(tmp_path, prepared, 5, on_trial=ended.append)
    assert [trial.number for trial in ended] == [3, 4]
    assert again.trials[:3] == first
    assert len({str(trial.options) for trial in again.trials}) == 5
    assert len(search(tmp_path, prepared, 5).trials) == 5, "what is there is enough"


def test_an_interrupted_search_keeps_what_it_has(tmp_path: Path, prepared: PreparedData) -> None:
    steps = 0

    def interrupted(_: ProgressUpdate) -> None:
        nonlocal steps
        steps += 1
        if steps > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, prepared, 50, on_progress=interrupted)
    reopened = Search.open(tmp_path / "tune-lr.db", "lr", ABOUT, 0)
    done = [trial for trial in reopened.trials if trial.state == "complete"]
    assert 1 <= len(done) < 50
    trial_count = len(reopened.trials) + 1
    assert len(search(tmp_path, prepared, trial_count).trials) == trial_count


def test_a_trial_that_falls_behind_is_given_up(
    tmp_path: Path, prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = 0

    def fit(self: Trainer, train: Any, validation: Any, report: Any) -> None:
        """Each trial is better than those before it, but the seventh is worse than all."""
        nonlocal trials
        trials += 1
        loss = 0.5 - 0.001 * trials if trials < 7 else 0.9
        for epoch in range(4):
            report(ProgressUpdate(epoch, 1, 1, loss - 0.01 * epoch, True))

    monkeypatch.setattr(Trainer, "fit", fit)
    study = search(tmp_path, prepared, 7)
    assert [trial.state for trial in study.trials] == ["complete"] * 6 + ["pruned"]
    assert study.trials[6].loss is not None
    assert study.best is not None
    assert study.best.number == 5


def test_a_search_of_something_else_is_refused(tmp_path: Path) -> None:
    Search.open(tmp_path / "tune-lr.db", "lr", ABOUT, 0)
    with pytest.raises(ConfigError, match=r"training rows was abc, is other.*--study"):
        Search.open(tmp_path / "tune-lr.db", "lr", {**ABOUT, "training rows": "other"}, 0)


def test_a_file_that_is_no_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tune-lr.db").write_text("not a database, and long enough not to be taken for an empty one" * 20)
    with pytest.raises(ConfigError, match="cannot be used"):
        Search.open(tmp_path / "tune-lr.db", "lr", ABOUT, 0)


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install ctr-serving\[tune\]"):
        Search.open(tmp_path / "tune-lr.db", "lr", ABOUT, 0)


@pytest.mark.parametrize("model", list(MODELS))
def test_what_is_search_space_is_what_the_command_takes(model: str) -> None:
    defaults = search_space(model)
    config = job_config(model, 0, "auto", **defaults)
    assert replace(config, given=()) == job_config(model, 0, "auto")
    assert ("dim" in defaults) == ("dim" in MODELS[model].options())
