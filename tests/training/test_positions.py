"""A version learns from where rows were shown, and scores as if all were shown at one place, whatever is sent."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from app.errors import ArtifactError, ConfigError, SchemaError
from app.features.encoder import Encoder
from app.features.schema import FeatureSchema, parse_schema
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.ranking.ignored import ignored_features
from app.ranking.request import RankRequest
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.load import load
from app.registry.artifact.self_check import replay_golden_requests
from app.registry.store.model_store import ModelStore
from app.runtime.loop_pacer import SliceTurns
from app.training.architectures import ModelConfig
from app.training.data.catalogue import open_dataset
from app.training.data.state_files import export_states
from app.training.field_histograms import field_histograms
from app.training.job import TrainingJob
from app.training.job_config import JobConfig
from app.training.loop.trainer_config import TrainerConfig
from app.training.preprocessing.encode import encode
from app.training.preprocessing.positions import position_rows
from app.training.preprocessing.preprocessing_fit import PreprocessingFit
from tests.command_line import Ctr

FEATURES = """\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: city, entity: user, type: categorical}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: position, entity: position, type: categorical, serve_as: 1}
"""
ROWS, PLACES, ITEMS = 4000, 5, 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose items are all liked alike; odd ones are mostly shown further down, where few users look."""
    folder = tmp_path_factory.mktemp("positions")
    rng = np.random.default_rng(0)
    item = rng.integers(0, ITEMS, ROWS)
    position = np.where(rng.random(ROWS) < 0.3, rng.integers(1, PLACES + 1, ROWS), np.where(item % 2, 4, 1))
    user = rng.integers(0, 30, ROWS)
    clicked = rng.random(ROWS) < 0.8 / position
    pl.DataFrame({
        "user": user, "city": user % 3, "item": item, "position": position, "clicked": clicked.astype(int)
    }).write_csv(folder / "clicks.csv")  # fmt: skip
    (folder / "features.yaml").write_text(FEATURES)
    return folder


@pytest.fixture(scope="module")
def version(folder: Path) -> Artifact:
    """A version that was trained on them."""
    data = open_dataset("table", folder / "clicks.csv", features=folder / "features.yaml", label="clicked")
    trainer = TrainerConfig(batch_size=64, epochs=12, learning_rate=0.02, table_l2=1e-4)
    job = JobConfig(model=ModelConfig("fm", dim=4), trainer=trainer)
    (folder / "version").mkdir()
    TrainingJob(job).run(data, None, folder / "version", name="placed")
    return load(folder / "version")


def scores(version: Artifact, sent: object = None, encoder: Encoder | None = None) -> np.ndarray:
    raw = {"city": 1} if sent is None else {"city": 1, "position": sent}
    user = (encoder or version.user_encoder).encode(raw, "3")
    items = version.item_encoder.encode_many([{}] * ITEMS, [str(n) for n in range(ITEMS)])
    return version.score(version.encode_user(user), version.encode_items(items)).numpy()


def test_scores_are_those_of_the_place_that_is_held(version: Artifact) -> None:
    held = scores(version)
    for sent in (1, 5, "2", "nowhere"):
        np.testing.assert_array_equal(scores(version, sent), held)
    logged = Encoder(version.schema, "user", logged=True)
    np.testing.assert_array_equal(scores(version, 1, logged), held)
    fifth = scores(version, 5, logged)
    assert held.mean() == pytest.approx(0.8, abs=0.1)
    assert fifth.mean() == pytest.approx(0.16, abs=0.08), "it has learned what places do"
    odd = np.arange(ITEMS) % 2 == 1
    assert held[odd].mean() == pytest.approx(held[~odd].mean(), abs=0.08), "and does not put it down to the items"


def test_nobody_is_asked_for_it(version: Artifact, folder: Path, tmp_path: Path) -> None:
    assert version.user_encoder.raw_names == ["user", "city"]
    assert all("position" not in golden.user for golden in version.manifest.golden)
    sent = RankRequest("3", ["1"], context={"position": 3})
    assert asyncio.run(ignored_features(version, sent, SliceTurns(), math.inf)) == ["context.position"]
    assert "position" not in version.manifest.histograms
    data = open_dataset("table", folder / "clicks.csv", features=folder / "features.yaml", label="clicked")
    assert set(field_histograms(data.schema, encode(data))) == {"user", "city", "item"}
    export_states(data, tmp_path)
    assert set(json.loads((tmp_path / "users.jsonl").read_text().splitlines()[0])) == {"id", "city"}


@pytest.mark.usefixtures("version")  # it trains and writes the version that is loaded again here
def test_a_version_whose_scores_depend_on_what_is_sent_is_refused(folder: Path) -> None:
    version = load(folder / "version")
    replay_golden_requests(version)
    version.user_encoder = Encoder(version.schema, "user", logged=True)
    with pytest.raises(ArtifactError) as refused:
        replay_golden_requests(version)
    assert refused.value.reason == "golden"
    version.user_encoder = _ReadsOverrides(version.schema, "user")
    with pytest.raises(ArtifactError, match="its scores depend on position"):
        replay_golden_requests(version)


class _ReadsOverrides(Encoder):
    """Holds the position, but for what a request sends."""

    def patch(self, slots, raw):  # type: ignore[no-untyped-def]
        return Encoder(_ReadsOverrides.schema, "user", logged=True).patch(slots, raw)

    def __init__(self, schema, side) -> None:  # type: ignore[no-untyped-def]
        super().__init__(schema, side)
        _ReadsOverrides.schema = schema


def test_a_place_that_no_row_has_cannot_be_held(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "features.yaml").write_text(FEATURES.replace("serve_as: 1", "serve_as: 0"))
    data = open_dataset("table", folder / "clicks.csv", features=tmp_path / "features.yaml", label="clicked")
    with pytest.raises(ConfigError, match="position is held at 0 when ranking, and hardly any training row has that"):
        TrainingJob(JobConfig()).prepare(data, None)


def test_a_table_is_scored_at_the_place_that_is_held(
    version: Artifact, folder: Path, run_ctr: Ctr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the column and without it: a table of candidates has none."""
    store = ModelStore(tmp_path / "store", "placed")
    store.publish_copy(folder / "version")
    monkeypatch.setenv("CTR_MODEL_STORE", str(store.folder.parent))
    score = partial(run_ctr, "score", "--model", "placed", "--version", "1")
    tables = {"with": pl.read_csv(folder / "clicks.csv").head(40)}
    tables["without"] = tables["with"].drop("position")
    results = []
    for name, table in tables.items():
        table.write_csv(tmp_path / f"{name}.csv")
        status, _, err = score("--data", str(tmp_path / f"{name}.csv"), "--out", str(tmp_path / f"{name}.scores.csv"))
        assert status == 0, err
        results.append(pl.read_csv(tmp_path / f"{name}.scores.csv")["score"].to_list())
    assert results[0] == results[1]
    first = tables["with"].row(0, named=True)
    user = version.user_encoder.encode({"city": first["city"]}, str(first["user"]))
    items = version.item_encoder.encode_many([{}], [str(first["item"])])
    expected = float(version.score(version.encode_user(user), version.encode_items(items))[0])
    assert results[0][0] == pytest.approx(expected, abs=1e-6)


def trained(folder: Path, name: str, **options: Any) -> tuple[CtrModel, Preprocessing]:
    data = open_dataset("table", folder / "clicks.csv", features=folder / "features.yaml", label="clicked")
    config = JobConfig(model=ModelConfig(name), trainer=TrainerConfig(epochs=2, batch_size=128), **options)
    best = TrainingJob(config).fit_best(data, None).best
    return best.model.double(), best.prepared.preprocessing


def logits_at(model: CtrModel, schema: FeatureSchema, place: int) -> torch.Tensor:
    """Return the logits [ITEMS] of all items for one user, shown at a place."""
    user, item = Encoder(schema, "user", logged=True), Encoder(schema, "item")
    users = user.encode_many([{"city": 1, "position": place}] * ITEMS, ["7"] * ITEMS)
    items = item.encode_many([{}] * ITEMS, [str(n) for n in range(ITEMS)])
    with torch.no_grad():
        logits: torch.Tensor = model(*(torch.from_numpy(array) for array in (*users, *items)))
    return logits


@pytest.mark.parametrize("name", ["deepfm", "wide_deep", "nfm", "lr"])
def test_a_place_shifts_the_logits_of_all_items_alike(folder: Path, name: str) -> None:
    pairs = PreprocessingFit(target_statistics="pairs")
    model, preprocessing = trained(folder, name, **({} if name == "lr" else {"preparation": pairs}))
    shift_N = logits_at(model, preprocessing.schema, 1) - logits_at(model, preprocessing.schema, PLACES)
    assert shift_N.mean() > 0.1
    torch.testing.assert_close(shift_N, shift_N.mean().expand(ITEMS), rtol=0, atol=1e-6)


def test_the_rows_of_places_are_those_that_occur_that_is_held_and_of_all_others(folder: Path) -> None:
    _, preprocessing = trained(folder, "lr")
    rows = position_rows(preprocessing, torch.zeros((3, 4), dtype=torch.int64))
    assert rows is not None
    held = Encoder(preprocessing.schema, "user").encode({}).keys[2]
    vocabulary = preprocessing.vocabulary_V.tolist()
    expected = {0, preprocessing.oov_row("position"), preprocessing.oov_rows + vocabulary.index(held)}
    assert set(rows.tolist()) == expected
    without = parse_schema(FEATURES[: FEATURES.index("  - {name: position")])
    assert position_rows(replace(preprocessing, schema=without), rows.reshape(-1, 1)) is None


def test_a_position_shares_no_space_with_another_field() -> None:
    with pytest.raises(SchemaError, match="space"):
        parse_schema(FEATURES.replace("serve_as: 1", "serve_as: 1, space: item"))
