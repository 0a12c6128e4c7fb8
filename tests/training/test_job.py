"""From rows to a version on disk that a service would load; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from app.errors import ArtifactError
from app.registry import artifact
from app.registry.model_store import ModelStore
from app.training.architectures import ModelConfig
from app.training.datasets.dataset import Dataset
from app.training.job import JobConfig
from app.training.prepare import encode
from app.training.publish import kept_aside, published, verify
from app.training.trainer import TrainerConfig
from tests.training.test_prepare import some_data


def labelled() -> Dataset:
    data = some_data(300)
    return replace(data, timestamps_N=np.arange(300, dtype=np.int64) + 1_600_000_000)


def small_job(model: str = "deepfm") -> JobConfig:
    return JobConfig(model=ModelConfig(model, dim=4, hidden=(8,)), trainer=TrainerConfig(batch_size=64, epochs=2))


@pytest.mark.parametrize("model", ["deepfm", "lr"])
def test_a_run_leaves_a_version_that_loads_and_says_where_it_came_from(tmp_path: Path, model: str) -> None:
    result = small_job(model).build().run(labelled(), None, tmp_path, name="tried")
    loaded = artifact.load(tmp_path)
    manifest = loaded.manifest
    assert (manifest.architecture, manifest.name, manifest.version) == (model, "tried", 0)
    assert manifest.metrics["test"] == pytest.approx(result.metrics["test"])
    assert manifest.metrics["baselines"].keys() == {"constant", "logistic_regression", "gradient_boosting"}
    assert manifest.data["train"]["rows"] == 243
    assert manifest.data["train"]["from"] == "2020-09-13T12:26:40+00:00"
    assert manifest.data["test"]["to"] == "2020-09-13T12:31:39+00:00"
    assert manifest.config["trainer"]["batch_size"] == 64
    assert len(manifest.golden) == 8
    assert all(len(golden.items) == 20 == len(golden.scores) for golden in manifest.golden)
    assert any("liked_genres" in golden.user for golden in manifest.golden)
    assert all("user_id" not in golden.user for golden in manifest.golden)


def test_metrics_that_do_not_survive_the_export_are_refused(tmp_path: Path) -> None:
    data = labelled()
    small_job().build().run(data, data, tmp_path, name="tried")
    found = artifact.read_manifest(tmp_path).metrics["test"]
    verify(tmp_path, encode(data), found)
    with pytest.raises(ArtifactError, match="auc"):
        verify(tmp_path, encode(data), {**found, "auc": found["auc"] + 0.01})


def test_published_means_numbered_and_stable_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "tried")
    admitted: list[int] = []
    for expected in (1, 2):
        with published(store, admitted.append) as destination:
            small_job().build().run(labelled(), None, destination.folder, name="tried")
        assert destination.version == expected
        assert store.pointer().stable == expected
        assert artifact.load(destination.folder, version=expected).manifest.name == "tried"
    with pytest.raises(RuntimeError), published(store, admitted.append):
        raise RuntimeError
    assert admitted == store.versions() == [1, 2]
    assert store.pointer().stable == 2
    assert not list(store.folder.glob(".tmp-*"))


def test_what_is_not_admitted_gets_a_number_and_no_label(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, "tried")

    def refuse(version: int) -> None:
        assert (store.versions(), store.pointer().stable) == ([version], None)
        raise ArtifactError("latency", "too slow")

    with pytest.raises(ArtifactError, match="too slow"), published(store, refuse) as destination:
        small_job().build().run(labelled(), None, destination.folder, name="tried")
    assert (store.versions(), store.pointer().stable) == ([1], None)


def test_a_version_kept_aside_has_a_folder_of_its_own(tmp_path: Path) -> None:
    with kept_aside(tmp_path, "deepfm") as one, kept_aside(tmp_path, "deepfm") as two:
        assert one.folder != two.folder
    with pytest.raises(RuntimeError), kept_aside(tmp_path, "deepfm") as failed:
        raise RuntimeError
    assert not failed.folder.exists()
    assert one.folder.is_dir()


def test_one_seed_one_version(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        small_job().build().run(labelled(), None, folder, name="tried")
    one, two = (artifact.read_manifest(folder) for folder in folders)
    assert one.files["tables.safetensors"] == two.files["tables.safetensors"]
    assert msgspec.json.encode(one.golden) == msgspec.json.encode(two.golden)
