"""`ctr train` as people and programs call it."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from app.registry.artifact.load import load
from app.registry.artifact.manifest_file import read_manifest
from app.registry.gate.gate_report import read_report
from app.registry.store.model_store import ModelStore
from app.training.evaluation.verdict import Verdict
from tests.command_line import Ctr
from tests.training.data.formats.test_movielens import some_ratings, write_original
from tests.training.data.formats.test_tables import FEATURES, csv_text
from tests.training.test_tracking import Recorder

SMALL = ("--dim", "4", "--hidden", "8,4", "--batch-size", "64", "--epochs", "2", "--learning-rate", "0.01")
FORCED = (*SMALL, "--force")
"""So few steps leave a model that is worse than logistic regression, and poor."""


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_ctr: Ctr) -> Ctr:
    """Runs `ctr train ...` in an empty folder; returns exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CTR_MODEL_STORE", raising=False)
    (tmp_path / "features.yaml").write_text(FEATURES)
    (tmp_path / "clicks.csv").write_text(csv_text(300))

    return partial(run_ctr, "train")


TABLE = (
    "--dataset",
    "table",
    "--data",
    "clicks.csv",
    "--features",
    "features.yaml",
    "--label",
    "clicked",
    "--effort",
    "quick",
)


def test_the_document_is_the_contracts(ctr: Ctr) -> None:
    status, out, err = ctr(*TABLE, *FORCED, "--linear-share", "0", "--seed", "3", "--json")
    assert status == 0, err
    result = json.loads(out)
    contract = ["model", "version_dir", "version", "metrics", "baselines", "seconds", "samples_per_second"]
    added = ["report", "calibration", "poor", "comparisons", "baseline_notes", "metrics_of", "refitted", "recipe"]
    assert list(result) == [*contract, *added, "linear_share"]
    assert result["metrics_of"] == "the held-out model"
    assert result["refitted"]["has_seen_test"]
    assert result["refitted"]["test"] is None
    assert set(result["calibration"]) == {"slope", "offset", "method", "gain", "reason", "negatives_offset", "scale"}
    assert (result["model"], result["version"]) == ("deepfm", 0)
    assert set(result["metrics"]) == {"validation", "test"}
    for metrics in (*result["metrics"].values(), *result["baselines"].values()):
        bounds = {"auc_low", "auc_high", "log_loss_low", "log_loss_high"}
        assert set(metrics) == {"auc", "log_loss", "pr_auc", "calibration", "ece", "gauc", *bounds}
    assert set(result["comparisons"]) == {"validation", "test"}
    for difference in result["comparisons"]["test"].values():
        assert set(difference["log_loss"]) == set(difference["auc"]) == {"value", "error", "low", "high"}
    assert [reason.split(":")[0] for reason in result["poor"]] == ["worse than logistic regression"]
    assert "converged" in result["baseline_notes"]["logistic_regression"]
    assert result["seconds"] > 0 < result["samples_per_second"]
    folder = Path(result["version_dir"])
    assert folder.parent == Path("runs")
    manifest = load(folder).manifest
    assert manifest.config["model"] == {"name": "deepfm", "dim": 4, "hidden": [8, 4], "dropout": 0.2, "seed": 3}
    assert manifest.config["trainer"]["learning_rate"] == 0.01
    assert not Path("model_store").exists()


@pytest.mark.parametrize(
    "model", ["nfm", *(pytest.param(name, marks=pytest.mark.faults) for name in ("deepfm", "wide_deep"))]
)
def test_target_statistics_are_in_the_version(ctr: Ctr, model: str) -> None:
    fields = {"user": "user", "city": "user", "item": "item"}
    declared = "".join(f"- {{name: {name}, entity: {side}, type: categorical}}\n" for name, side in fields.items())
    Path("features.yaml").write_text("fields:\n" + declared)
    rows = [(n % 20, n % 6, n // 20 % 17) for n in range(2000)]
    lines = [f"{user},{city},{item},{int((user + item) % 3 == 0)}" for user, city, item in rows]
    Path("clicks.csv").write_text("user,city,item,clicked\n" + "\n".join(lines))
    status, out, err = ctr(*TABLE, *SMALL, "--model", model, "--target-statistics", "pairs", "--json")
    assert status == 0, err
    version = load(Path(json.loads(out)["version_dir"]))
    assert version.manifest.config["preparation"] == {"min_count": 2, "target_statistics": "pairs"}
    program: Any = version.program
    assert program.user.statistics.width > 0 < program.item.statistics.width
    assert hasattr(program.across, "lookup") == (model != "nfm")


def test_a_version_s_recipe_is_repeated_without_a_search(ctr: Ctr) -> None:
    small = [*TABLE[:-1], "default", "--dim", "4", "--hidden", "8,4", "--epochs", "3", "--force", "--json"]
    status, out, err = ctr(*small)
    assert status == 0, err
    first = json.loads(out)
    assert len(first["recipe"]["tried"]) > 1
    status, out, err = ctr(*TABLE, "--recipe", first["version_dir"], "--force", "--json")
    assert status == 0, err
    again = json.loads(out)
    assert len(again["recipe"]["tried"]) == 1
    assert again["metrics"] == first["metrics"]
    one, other = (read_manifest(Path(run["version_dir"])).config for run in (first, again))
    assert {**other, "effort": None} == {**one, "effort": None, "given": [], "recipe": other["recipe"]}

    status, _, err = ctr(*TABLE, "--recipe", first["version_dir"], "--model", "fm")
    assert status == 1
    assert "--recipe: that version is a deepfm; add --model deepfm" in err.replace("\n", " ")


def test_weights_count_in_training_metrics_and_report(ctr: Ctr) -> None:
    """Rows with a click are half of all, and nine tenths of the weight: that is what the version predicts."""
    frame = pl.read_csv("clicks.csv").with_columns(w=pl.when(pl.col("clicked") == 1).then(9.0).otherwise(1.0))
    frame.write_csv("clicks.csv")
    status, out, err = ctr(
        *TABLE, *SMALL[4:], "--model", "lr", "--linear-share", "0", "--weight", "w", "--force", "--json"
    )
    assert status == 0, err
    assert "Metrics are weighted: each row counts as its w says." in " ".join(err.split())
    result = json.loads(out)
    assert result["metrics"]["test"]["calibration"] == pytest.approx(1.0, abs=0.1)
    assert result["baselines"]["constant"]["calibration"] == pytest.approx(1.0, abs=0.1)
    folder = Path(result["version_dir"])
    manifest = read_manifest(folder)
    assert manifest.data["weights"] == "each row counts as its w says"
    assert manifest.data["train"]["ctr"] == pytest.approx(0.9, abs=0.02)
    scores = [score for request in manifest.golden for score in request.scores]
    assert min(scores) > 0.75
    assert "Weights: each row counts as its w says" in (folder / "report.html").read_text()


def test_counted_rows_are_trained_on_as_their_impressions(ctr: Ctr) -> None:
    """Items have click rates of 5 % and 20 %, by rows of 50 impressions: these are what the version says of them."""
    rates = {item: 0.05 if item % 2 else 0.2 for item in range(9)}
    frame = pl.read_csv("clicks.csv").drop("clicked")
    clicked = np.random.default_rng(0).binomial(50, [rates[item] for item in frame["item"]])
    frame.with_columns(shown=pl.lit(50), clicks=pl.Series(clicked)).write_csv("clicks.csv")
    table = [part for part in TABLE if part not in ("--label", "clicked")]
    counts = ("--impressions", "shown", "--clicks", "clicks", "--timestamp", "at")
    status, out, err = ctr(*table, *SMALL[4:], "--epochs", "20", "--model", "lr", *counts, "--force", "--json")
    assert status == 0, err
    assert "The test part has" in err
    assert "clicks in 1,500 rows" in " ".join(err.split())
    result = json.loads(out)
    manifest = read_manifest(Path(result["version_dir"]))
    assert manifest.data["test"]["impressions"] == 1500
    assert manifest.data["train"]["ctr"] == pytest.approx(0.13, abs=0.03)
    assert result["metrics"]["test"]["calibration"] == pytest.approx(1.0, abs=0.15)
    assert result["metrics"]["test"]["auc"] > 0.6
    status, _, err = ctr(*TABLE, *SMALL, *counts)
    assert status == 1
    assert "--label and --positive: rows that count --impressions and --clicks have no label" in " ".join(err.split())


def test_people_get_a_table_beside_the_baselines_on_standard_error(ctr: Ctr) -> None:
    status, out, err = ctr(*TABLE, *SMALL[4:], "--force", "--model", "lr", "--timestamp", "at")
    assert (status, out) == (0, "")
    for words in (
        "validation log loss",
        "lr",
        "constant",
        "logistic regression",
        "gradient boosting",
        "runs/lr-",
        "Calibration:",
    ):
        assert words in err


@pytest.mark.usefixtures("gate_in_process")
def test_published_is_live_under_its_name(ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_MODEL_STORE", str(tmp_path / "elsewhere"))
    for version in (1, 2):
        status, out, err = ctr(*TABLE, *FORCED, "--publish", "--name", "home", "--json")
        assert status == 0, err
        assert json.loads(out)["version"] == version
        assert Path(json.loads(out)["version_dir"]) == tmp_path / "elsewhere" / "home" / str(version)
        assert json.loads(out)["report"] == str(tmp_path / "elsewhere" / "home" / str(version) / "report.html")
        assert Path(json.loads(out)["report"]).is_file()
    store = ModelStore(tmp_path / "elsewhere", "home")
    assert store.pointer().stable == 2
    report = read_report(store.path(2))
    assert report is not None
    assert (report.passed, report.against) == (True, 1), "the second was compared with the first"
    assert not Path("runs").exists()


def test_what_the_gate_refuses_is_not_live(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_GATE_TIMEOUT_S", "0.1")
    status, _, err = ctr(*TABLE, *FORCED, "--publish", "--name", "home")
    assert status == 1
    assert "did not end within 0.1 s" in err
    assert "ctr promote 1 --force --model home" in err.replace("\n", " ")
    store = ModelStore(Path("model_store"), "home")
    assert (store.versions(), store.pointer().stable) == ([1], None)


@pytest.fixture
def _poor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "app.training.judgement.judge", lambda *_: Verdict(("worse than the [constant]",), {"test": {}})
    )


@pytest.mark.usefixtures("_poor")
def test_a_poor_model_is_said_kept_and_not_published(ctr: Ctr) -> None:
    status, out, err = ctr(*TABLE, *SMALL, "--publish", "--name", "home", "--json")
    assert status == 3
    result = json.loads(out)
    assert "This model is poor: worse than the [constant]." in err
    assert "not published; --force publishes a poor one" in " ".join(err.split())
    assert (result["poor"], result["version"]) == (["worse than the [constant]"], 0)
    folder = Path(result["version_dir"])
    assert folder.parent == Path("runs")
    assert load(folder).manifest.config["poor"] == ["worse than the [constant]"]
    assert "This model is poor." in Path(result["report"]).read_text()
    store = ModelStore(Path("model_store"), "home")
    assert (store.versions(), store.pointer().stable) == ([], None)
    assert not list(Path("model_store/home").glob(".tmp-*"))


@pytest.mark.usefixtures("_poor", "gate_in_process")
def test_a_poor_model_is_published_if_forced(ctr: Ctr) -> None:
    status, out, err = ctr(*TABLE, *SMALL, "--publish", "--force", "--name", "home", "--json")
    assert status == 0, err
    assert "This model is poor" in err
    assert json.loads(out)["version"] == ModelStore(Path("model_store"), "home").pointer().stable == 1


def test_movielens_exports_what_ctr_load_reads(ctr: Ctr, tmp_path: Path) -> None:
    write_original(tmp_path / "ml", some_ratings())
    status, _, err = ctr("--dataset", "movielens", "--data", "ml", *SMALL, "--split", "random", "--export", "out")
    assert status == 0, err
    assert "8 users and 12 items" in err
    assert {json.loads(line)["id"] for line in Path("out/users.jsonl").read_text().splitlines()} == set("12345678")


def test_bad_rows_are_shown(ctr: Ctr, tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(csv_text(300).replace(",12.5,", ",?,") + "u1,01,2,3,a,1,perhaps\n")
    status, _, err = ctr(*TABLE, *FORCED)
    assert status == 0, err
    assert "1 bad rows left out" in err
    assert "price: 1 bad rows" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--dataset", "netflix"), "unknown; choose one of movielens, sparrow, criteo"),
        ((*TABLE, "--model", "oracle"), "--model oracle: unknown"),
        ((*TABLE, "--hidden", "wide"), "--hidden wide: expected widths"),
        ((*TABLE, "--hidden", "0"), "1 or more"),
        ((*TABLE[:2], "--data", "nothing.csv", *TABLE[4:]), "nothing.csv: no such file"),
        ((*TABLE, "--split", "time"), "--timestamp"),
        ((*TABLE, "--name", "../up", "--publish"), "model name"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(ctr: Ctr, arguments: tuple[str, ...], complaint: str) -> None:
    status, out, err = ctr(*arguments)
    assert (status, out) == (1, "")
    assert complaint in " ".join(err.split())
    assert "Traceback" not in err
    assert not list(Path().glob("runs/*"))


def test_a_run_goes_to_mlflow_too_and_a_server_that_fails_costs_no_version(
    ctr: Ctr, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    status, out, err = ctr(*TABLE, *FORCED, "--mlflow", "http://host:5000", "--json")
    assert status == 0, err
    assert "MLflow run r1" in err
    folder = Path(json.loads(out)["version_dir"])
    logged = {call[0]: call[1:] for call in recorder.calls}
    assert logged["set_experiment"] == ("deepfm",)
    assert logged["set_tags"][0]["version_dir"] == str(folder)
    assert logged["log_metrics"][0]["test_log_loss"] == json.loads(out)["metrics"]["test"]["log_loss"]
    assert logged["log_artifact"] == (str(folder / "report.json"),)
    chosen = read_manifest(folder).config["trainer"]["table_l2"]
    assert logged["log_params"][0]["trainer.table_l2"] == str(chosen), "the options that were chosen, and not the first"

    def broken(_: dict[str, str]) -> None:
        raise OSError("connection lost")

    recorder.log_params = broken  # type: ignore[attr-defined]
    monkeypatch.setenv("CTR_MLFLOW_URI", "http://host:5000")
    status, out, err = ctr(*TABLE, *FORCED, "--json")
    assert status == 0, err
    assert "could not be written to MLflow: OSError: connection lost" in " ".join(err.split())
    assert load(Path(json.loads(out)["version_dir"])).manifest.name == "deepfm"


def test_without_mlflow_nothing_is_trained(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    status, _, err = ctr(*TABLE, *SMALL, "--mlflow", "http://host:5000")
    assert status == 1
    assert "pip install ctr-serving[mlflow]" in " ".join(err.split())
    assert not Path("runs").exists()


def test_what_a_click_causes_is_named_where_the_auc_is_too_good(ctr: Ctr) -> None:
    fields = "- {name: user, entity: user, type: categorical}\n- {name: dwell, entity: item, type: categorical}\n"
    Path("features.yaml").write_text(f"fields:\n{fields}")
    lines = [f"u{n % 7},{n % 40 + 1 if n % 3 == 0 else ''},{int(n % 3 == 0)}" for n in range(1500)]
    Path("clicks.csv").write_text("user,dwell,clicked\n" + "\n".join(lines))
    status, _, err = ctr(*TABLE, "--epochs", "12", "--learning-rate", "0.02", "--force")
    assert status == 0, err
    assert "is too good to be true" in err
    assert "these fields tell the label: dwell: present only where the label is 1" in err


def test_results_are_shown_before_the_gate_refuses(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTR_GATE_TIMEOUT_S", "0.1")
    status, _, err = ctr(*TABLE, *FORCED, "--publish", "--name", "home", "--export", "out")
    assert status == 1
    assert err.index("logistic regression") < err.index("The test part has") < err.index("\nerror: ")
    assert "CTR_GATE_TIMEOUT_S" in err.splitlines()[-1]
    assert Path("out/users.jsonl").exists() or "marked `id: true`" in err


def test_epochs_that_ran_out_and_what_ctrl_c_leaves_are_said(ctr: Ctr, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "it was still improving, and more --epochs may do better" in ctr(*TABLE, *FORCED, "--epochs", "1")[2]

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("app.training.evaluation.baselines.fit_baselines", interrupt)
        patched.setattr("app.training.judgement.fit_baselines", interrupt)
        status, out, err = ctr(*TABLE, *FORCED)
    assert (status, out) == (130, "")
    assert "the same command with --resume goes on" in err
    assert "Traceback" not in err
    assert ctr(*TABLE, *FORCED, "--resume")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr("app.training.loop.epochs.EpochLoop.train_epoch", interrupt)
        status, _, err = ctr(*TABLE, *FORCED)
    assert status == 130
    assert "nothing was kept yet" in err


@pytest.mark.usefixtures("gate_in_process")
def test_another_schema_under_a_live_name_is_said_before_training(ctr: Ctr) -> None:
    assert ctr(*TABLE, *FORCED, "--publish", "--name", "home")[0] == 0
    assert "version 1 of home is live: nothing to do" in ctr(*TABLE, "--publish", "--name", "home", "--unless-live")[2]
    Path("features.yaml").write_text("fields:\n- {name: user, entity: user, type: categorical}\n")
    err = ctr(*TABLE, *FORCED, "--publish", "--name", "home")[2]
    assert err.index("which is live, reads other features") < err.index("Encoding")
    assert "--name NEW publishes it as a model of its own" in err
