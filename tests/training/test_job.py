"""From rows to a version on disk that a service would load; and what is refused."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from app.errors import ArtifactError
from app.features.schema import parse_schema
from app.features.slots import Slots
from app.registry.artifact.load import load
from app.registry.artifact.manifest_file import read_manifest
from app.registry.store.model_store import ModelStore
from app.training.architectures import ModelConfig
from app.training.data.dataset import Dataset
from app.training.evaluation.baselines import BASELINES, LIGHTGBM
from app.training.evaluation.comparison import probabilities
from app.training.evaluation.lightgbm_baseline import has_lightgbm
from app.training.export import export_version, verify_export
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.checkpoint import Checkpoint
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from app.training.publish import new_run_folder, publish_on_success
from app.training.write_version import write_version
from tests.training.preprocessing.test_preprocessing_fit import some_data

FEW_YAML = """\
version: 1
fields:
  - {name: user_id, entity: user, type: categorical, id: true}
  - {name: item_id, entity: item, type: categorical, id: true}
"""


def labelled() -> Dataset:
    data = some_data(300)
    return replace(data, timestamps_N=np.arange(300, dtype=np.int64) + 1_600_000_000)


def small_job(model: str = "deepfm") -> JobConfig:
    return JobConfig(model=ModelConfig(model, dim=4, hidden=(8,)), trainer=TrainerConfig(batch_size=64, epochs=2))


@pytest.mark.parametrize("model", ["deepfm", "lr"])
def test_a_run_leaves_a_version_that_loads_and_says_where_it_came_from(tmp_path: Path, model: str) -> None:
    result = TrainingJob(small_job(model)).run(labelled(), None, tmp_path, name="tried")
    loaded = load(tmp_path)
    manifest = loaded.manifest
    assert (manifest.architecture, manifest.name, manifest.version) == (model, "tried", 0)
    measured = {metric: value for metric, value in result.metrics["test"].items() if not math.isnan(value)}
    assert {"auc", "log_loss", "ece"} <= measured.keys()
    assert {metric: manifest.metrics["test"][metric] for metric in measured} == pytest.approx(measured)
    fitted = {name for name in BASELINES if name != LIGHTGBM or has_lightgbm()}
    assert manifest.metrics["baselines"].keys() == fitted == result.baseline_notes.keys()
    assert result.verdict.differences["validation"].keys() == result.verdict.differences["test"].keys() == fitted
    assert manifest.data["train"]["rows"] == 243
    assert manifest.data["train"]["from"] == "2020-09-13T12:26:40+00:00"
    assert manifest.data["test"]["to"] == "2020-09-13T12:31:39+00:00"
    assert manifest.config["trainer"]["batch_size"] == 64
    assert manifest.histograms.keys() == {field.name for field in loaded.schema.fields}
    assert len(manifest.golden) == 8
    assert all(len(golden.items) == 20 == len(golden.scores) for golden in manifest.golden)
    assert any("liked_genres" in golden.user for golden in manifest.golden)
    assert all("user_id" not in golden.user for golden in manifest.golden)


def test_the_report_lies_beside_the_version_and_the_manifest_proves_it(tmp_path: Path) -> None:
    result = TrainingJob(small_job()).run(labelled(), None, tmp_path, name="tried", command="ctr train --dataset table")
    assert result.report == tmp_path / "report.html"
    manifest = read_manifest(tmp_path)
    for name in ("report.html", "report.json"):
        content = (tmp_path / name).read_bytes()
        assert manifest.files[name].sha256 == hashlib.sha256(content).hexdigest()
        assert len(content) < 1_000_000
    findings = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert findings["metrics"]["test"]["auc"] == pytest.approx(result.metrics["test"]["auc"])
    assert findings["reproduce"]["command"] == "ctr train --dataset table"


def test_a_version_goes_to_the_store_with_its_report_and_serves_without_it(tmp_path: Path) -> None:
    with new_run_folder(tmp_path / "runs", "deepfm") as run:
        TrainingJob(small_job()).run(labelled(), None, run.folder, name="tried")
    store = ModelStore(tmp_path / "store", "tried")
    first = store.publish_copy(run.folder)
    assert (store.path(first) / "report.html").read_bytes() == (run.folder / "report.html").read_bytes()
    (run.folder / "report.html").unlink()
    second = store.publish_copy(run.folder)
    for version in (first, second):
        assert store.load(version).version == version


def test_a_report_that_cannot_be_drawn_costs_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []

    def broken(_: object) -> None:
        raise ZeroDivisionError("a drawing")

    monkeypatch.setattr("app.training.write_version.collect_findings", broken)
    result = TrainingJob(small_job()).run(labelled(), None, tmp_path, name="tried", notify=messages.append)
    assert result.report is None
    assert any("ZeroDivisionError: a drawing" in line for line in messages)
    assert load(tmp_path).manifest.files.keys() == {"model.pt", "tables.safetensors"}


def test_baselines_that_fail_cost_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []

    def broken(*_: object, **__: object) -> None:
        raise MemoryError("too many trees")

    monkeypatch.setattr("app.training.judgement.fit_baselines", broken)
    result = TrainingJob(small_job()).run(labelled(), None, tmp_path, name="tried", notify=messages.append)
    assert result.baselines == {}
    assert any("MemoryError: too many trees" in line for line in messages)
    assert result.report is not None
    assert load(tmp_path).manifest.metrics["baselines"] == {}


def test_calibration_is_in_the_version_and_what_was_measured(tmp_path: Path) -> None:
    job = replace(small_job(), trainer=TrainerConfig(batch_size=64, epochs=20, learning_rate=0.02), calibration="platt")
    result = TrainingJob(job).run(labelled(), None, tmp_path, name="tried")
    assert result.calibration.method == "platt"
    assert result.metrics["validation"] != result.uncalibrated["validation"]
    assert result.metrics["test"]["auc"] == pytest.approx(result.uncalibrated["test"]["auc"])
    loaded = load(tmp_path)
    calibrated = loaded.manifest.config["calibrated"]
    assert loaded.program.calibration_2.tolist() == pytest.approx([calibrated["slope"], calibrated["offset"]], rel=1e-6)
    assert calibrated["slope"] == pytest.approx(result.calibration.slope)
    assert calibrated["offset"] == pytest.approx(result.calibration.offset, abs=0.1), "carried over to all rows"
    assert loaded.manifest.metrics["uncalibrated"]["test"]["log_loss"] == pytest.approx(
        result.uncalibrated["test"]["log_loss"]
    )


def test_scores_that_do_not_survive_the_export_are_refused(tmp_path: Path) -> None:
    data, job = labelled(), TrainingJob(small_job())
    prepared = job.prepare(data, data)
    trained = job.train(prepared)
    write_version(job.config, prepared, trained, {}, tmp_path, "tried")
    test, expected_N = prepared.encoded["test"], trained.probabilities("test")
    verify_export(tmp_path, test, expected_N)
    for wrong in (expected_N[7] + 0.001, np.nan):
        changed_N = expected_N.copy()
        changed_N[7] = wrong
        with pytest.raises(ArtifactError, match=r"row 8 of the test part"):
            verify_export(tmp_path, test, changed_N)


@pytest.mark.parametrize("model", ["finalmlp", "lr"])
def test_a_catalogue_of_few_pairs_is_exported_whatever_rounding_does_to_their_order(tmp_path: Path, model: str) -> None:
    """Of 12 pairs two may have scores a rounding apart, and their order then moves metrics by hundreds of rows."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        users_N, items_N = rng.integers(0, 3, 4000), rng.integers(0, 4, 4000)
        clicks_N = (rng.random(4000) < 0.3 + 0.1 * ((users_N + items_N) % 3)).astype(np.float32)
        users, items = pl.DataFrame({"user_id": users_N.astype(str)}), pl.DataFrame({"item_id": items_N.astype(str)})
        data = Dataset("few", parse_schema(FEW_YAML), users, items, clicks_N, None, "few pairs")
        job = TrainingJob(small_job(model))
        prepared = job.prepare(data, None)
        trained = job.train(prepared)
        (folder := tmp_path / str(seed)).mkdir()
        export_version(folder, trained.model, prepared.data["validation"], name="few")
        verify_export(folder, prepared.encoded["test"], trained.probabilities("test"))


def test_published_means_numbered_and_stable_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "tried")
    admitted: list[int] = []
    for expected in (1, 2):
        with publish_on_success(store, admitted.append) as destination:
            TrainingJob(small_job()).run(labelled(), None, destination.folder, name="tried")
        assert destination.version == expected
        assert store.pointer().stable == expected
        assert load(destination.folder, version=expected).manifest.name == "tried"
    with pytest.raises(RuntimeError), publish_on_success(store, admitted.append):
        raise RuntimeError
    assert admitted == store.versions() == [1, 2]
    assert store.pointer().stable == 2
    assert not list(store.folder.glob(".tmp-*"))


def test_what_is_not_admitted_gets_a_number_and_no_label(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "tried")

    def refuse(version: int) -> None:
        assert (store.versions(), store.pointer().stable) == ([version], None)
        raise ArtifactError("latency", "too slow")

    with pytest.raises(ArtifactError, match="too slow"), publish_on_success(store, refuse) as destination:
        TrainingJob(small_job()).run(labelled(), None, destination.folder, name="tried")
    assert (store.versions(), store.pointer().stable) == ([1], None)


def test_a_version_kept_aside_has_a_folder_of_its_own(tmp_path: Path) -> None:
    with new_run_folder(tmp_path, "deepfm") as one, new_run_folder(tmp_path, "deepfm") as two:
        assert one.folder != two.folder
    with pytest.raises(RuntimeError), new_run_folder(tmp_path, "deepfm") as failed:
        raise RuntimeError
    assert not failed.folder.exists()
    assert one.folder.is_dir()


def test_one_seed_one_version(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        TrainingJob(small_job()).run(labelled(), None, folder, name="tried")
    one, two = (read_manifest(folder) for folder in folders)
    assert one.files["tables.safetensors"] == two.files["tables.safetensors"]
    assert msgspec.json.encode(one.golden) == msgspec.json.encode(two.golden)


@pytest.mark.parametrize(
    "model",
    ["deepfm", "fusion", *(pytest.param(name, marks=pytest.mark.faults) for name in ("fm", "wide_deep", "finalmlp"))],
)
def test_target_statistics_are_served_as_they_were_measured(tmp_path: Path, model: str) -> None:
    """On every test row, by `forward` and by the split, within 1e-6, for a model that was fitted again on all rows."""
    job = small_job(model)
    job = replace(job, preparation=PreprocessingFit(1, "pairs"), split=replace(job.split, kind="random"))
    data = paired(1500)
    prepared = TrainingJob(job).prepare(data, None)
    assert "item" in prepared.preprocessing.statistics
    across = prepared.preprocessing.target_statistics("across").pairs
    assert across == ((("user_id", "item_id"),) if model != "fm" else ())
    trained = TrainingJob(job).train(prepared)
    again = TrainingJob(job).refit(data, None, prepared, trained)
    assert again is not None
    test = prepared.encoded["test"]
    for name, fitted, expected_N in (
        ("held out", trained.model, trained.probabilities("test")),
        ("again", again.model, again.test_probabilities()),
    ):
        folder = tmp_path / name
        folder.mkdir()
        export_version(folder, fitted, prepared.data["validation"], name=name)
        version = load(folder)
        np.testing.assert_allclose(probabilities(version, test), expected_N, atol=1e-6)
        with torch.inference_mode():
            items_ND = version.encode_items(test.item)
            split = [
                float(
                    version.score(
                        version.encode_user(Slots(*(part[row] for part in test.user))), items_ND[row : row + 1]
                    )
                )
                for row in range(len(test.labels_N))
            ]
        np.testing.assert_allclose(split, expected_N, atol=1e-6)
    assert again.model.user.statistics.row_D.tolist() != []


def paired(rows: int) -> Dataset:
    """Rows whose label is decided by the pair of user and item."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 25, rows), rng.integers(0, 20, rows)
    labels_N = (rng.random(rows) < np.where((users * items + users) % 3 == 0, 0.8, 0.1)).astype(np.float32)
    frames = (pl.DataFrame({"user_id": users}), pl.DataFrame({"item_id": items}))
    return Dataset("paired", parse_schema(FEW_YAML), *frames, labels_N, None, "x")


def test_a_job_of_several_fits_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "runs/checkpoints/table-deepfm-0.pt")
    job = replace(small_job(), effort="default", given=("epochs",))
    folder = tmp_path / "version"
    folder.mkdir()
    result = TrainingJob(job).run(labelled(), None, folder, name="tried", checkpoint=checkpoint)
    assert result.recipe is not None
    assert len(result.recipe["tried"]) > 1
    assert result.refitted is not None
    assert not (tmp_path / "runs").exists()


def test_a_job_that_is_cut_short_while_refitting_resumes_behind_its_first_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    folder = tmp_path / "version"
    folder.mkdir()

    def cut_short(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("app.training.job.refit", cut_short)
        with pytest.raises(KeyboardInterrupt):
            TrainingJob(small_job()).run(labelled(), None, folder, name="tried", checkpoint=Checkpoint(path))
    assert path.exists()
    trained: list[ProgressUpdate] = []
    result = TrainingJob(small_job()).run(
        labelled(),
        None,
        folder,
        name="tried",
        on_progress=trained.append,
        checkpoint=Checkpoint(path, resume=True),
    )
    assert result.refitted is not None
    assert {update.validation_loss for update in trained} == {None}, (
        "the first fit is there, the refit has no validation"
    )
    assert not path.exists()
