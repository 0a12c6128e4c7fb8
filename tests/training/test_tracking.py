"""What is written to MLflow: our calls, on a module that only records them; and the real one where it is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import ConfigError
from app.training.tracking import Tracking, without_password

RUN = {
    "config": {"model": {"name": "fm", "hidden": None}, "calibration": "auto", "long": "x" * 600},
    "metrics": {"test": {"auc": 0.75, "gauc": float("nan")}},
    "epochs": [{"train_loss": 0.6, "validation_loss": 0.5}, {"train_loss": 0.4, "validation_loss": 0.3}],
    "tags": {"version": "3"},
}


class Recorder:
    """As much of the mlflow module as is called; what is not there raises."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in ("set_tracking_uri", "set_experiment", "set_tags", "log_params", "log_metrics", "log_artifact"):
            raise AttributeError(name)

        def call(*given: Any, **named: Any) -> None:
            print(name)  # the real one prints too
            self.calls.append((name, *given, *named.values()))

        return call

    @contextlib.contextmanager
    def start_run(self, run_name: str) -> Iterator[Any]:
        self.calls.append(("start_run", run_name))
        yield SimpleNamespace(info=SimpleNamespace(run_id="r1"))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    return recorder


def test_what_is_logged(recorder: Recorder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Tracking("http://host", "home").log("run", files=[tmp_path / "report.html"], **RUN) == "r1"  # type: ignore[arg-type]
    assert recorder.calls == [
        ("set_tracking_uri", "http://host"),
        ("set_experiment", "home"),
        ("start_run", "run"),
        ("set_tags", {"version": "3"}),
        ("log_params", {"model.name": "fm", "model.hidden": "None", "calibration": "auto", "long": "x" * 500}),
        ("log_metrics", RUN["epochs"][0], 1),
        ("log_metrics", RUN["epochs"][1], 2),
        ("log_metrics", {"test_auc": 0.75}),
        ("log_artifact", str(tmp_path / "report.html")),
    ]
    assert capsys.readouterr().out == "", "standard output is the command's"


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install ctr-serving\[mlflow\]"):
        Tracking("http://host", "home")


def test_a_server_that_does_not_answer_is_said_before_training(recorder: Recorder) -> None:
    def broken(_: str) -> None:
        raise OSError("connection refused\nsecond line")

    recorder.set_experiment = broken  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"http://me:\*\*\*@host:5000: connection refused$"):
        Tracking("http://me:secret@host:5000", "home")


def test_a_password_is_not_written_down() -> None:
    assert without_password("http://me:secret@host:5000/x") == "http://me:***@host:5000/x"
    for plain in ("http://host:5000", "sqlite:///runs/mlflow.db", "--mlflow", "C:/a b"):
        assert without_password(plain) == plain


@pytest.mark.filterwarnings("ignore")  # of its own dependencies
def test_the_real_one_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install ctr-serving[mlflow]")
    import mlflow

    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.html").write_text("<p>report</p>")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run = Tracking(uri, "home").log("run", files=[tmp_path / "report.html"], **RUN)  # type: ignore[arg-type]
    result = mlflow.get_run(run).data
    assert result.params["model.name"] == "fm"
    assert result.metrics["test_auc"] == 0.75
    history = mlflow.MlflowClient(uri).get_metric_history(run, "validation_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.3)]
    assert [file.path for file in mlflow.MlflowClient(uri).list_artifacts(run)] == ["report.html"]
