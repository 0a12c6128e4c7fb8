"""`ctr retrain`: what it trains on, what it compares, when it publishes, and what it leaves behind when it does not."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import log_loss

from app.cli import main
from app.errors import ArtifactError, ConfigError, NotPublished
from app.registry.gate import gate
from app.registry.gate.gate_report import read_report
from app.registry.store.model_store import ModelStore
from app.training.data.catalogue import open_dataset
from app.training.data.dataset import Dataset
from app.training.evaluation.comparison import compare, probabilities, shortfall
from app.training.evaluation.verdict import Verdict
from app.training.live_version import check_same_schema, config_of, newest_time
from app.training.preprocessing.encode import encode
from app.training.retrain import LOCK, RetrainOutcome, retrain, retraining_lock
from app.training.retrain_config import RetrainConfig, RetrainWindow
from tests.command_line import Ctr
from tests.conftest import checks_in_process
from tests.factories import publish_tiny
from tests.registry.artifact.test_signing import key_pair

FEATURES = """\
fields:
  - {name: user, entity: user, type: categorical, id: true}
  - {name: city, entity: user, type: categorical}
  - {name: item, entity: item, type: categorical, id: true}
  - {name: price, entity: item, type: numeric, buckets: 4}
"""
START = 1_700_000_000
HOUR = 3600


def clicks(rows: int, users: int = 30) -> str:
    """One row an hour. Cities like items of their own parity, so there is something to learn; later users are new."""
    rng = random.Random(5)
    lines = ["user,city,item,price,at,clicked"]
    for n in range(rows):
        user, item = rng.randrange(users) + (users if n > 800 and n % 3 == 0 else 0), rng.randrange(20)
        clicked = int(rng.random() < (0.85 if (user + item) % 2 else 0.15))
        price = round(rng.uniform(1, 99), 4)
        lines.append(f"u{user},c{user % 2},i{item},{price},{START + n * HOUR},{clicked}")
    return "\n".join(lines) + "\n"


def train_first(folder: Path) -> None:
    """Publish version 1 into the folder's model store, and leave rows there that it has not seen."""
    (folder / "features.yaml").write_text(FEATURES)
    (folder / "old.csv").write_text(clicks(800))
    (folder / "clicks.csv").write_text(clicks(1200))
    table = ["--dataset", "table", "--features", "features.yaml", "--label", "clicked", "--timestamp", "at"]
    small = ["--dim", "4", "--hidden", "8", "--batch-size", "64", "--epochs", "6", "--learning-rate", "0.02"]
    small += ["--effort", "quick", "--no-refit"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("CTR_MODEL_STORE", raising=False)
        patch.setattr(gate, "run_checks", checks_in_process)
        patch.setattr(sys, "argv", ["ctr", "train", "--data", "old.csv", *table, *small, "--publish"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a model store whose version 1 has learned the first 800 rows."""
    folder = tmp_path_factory.mktemp("trained")
    train_first(folder)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to work in."""
    shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("CTR_MODEL_STORE", raising=False)
    return tmp_path / "work"


@pytest.fixture
def ctr(folder: Path, run_ctr: Ctr) -> Ctr:
    """Runs `ctr retrain ...`; returns exit status, standard output and standard error with its spaces squeezed."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status, out, err = run_ctr("retrain", "--warm", *arguments)
        return status, out, " ".join(err.split())

    return run


TABLE = ("--data", "clicks.csv", "--label", "clicked", "--timestamp", "at")


def left_alone(folder: Path, *, versions: tuple[int, ...] = (1,)) -> None:
    store = ModelStore(folder / "model_store", "deepfm")
    assert (store.versions(), store.pointer().stable) == (list(versions), 1)
    assert not list(store.folder.glob(".tmp-*"))


def opened(folder: Path) -> tuple[ModelStore, Dataset]:
    data = open_dataset(
        "table", folder / "clicks.csv", features=folder / "features.yaml", label="clicked", timestamp="at"
    )
    return ModelStore(folder / "model_store", "deepfm"), data


@pytest.mark.usefixtures("gate_in_process")
def test_a_poor_candidate_is_not_published_unless_forced(
    ctr: Ctr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.training.judgement.judge", lambda *_: Verdict(("worse than the constant: so it is",), {"test": {}})
    )
    status, out, err = ctr(*TABLE, "--window-days", "40", "--json")
    assert status == 3
    assert "not published: it is worse than the constant: so it is; --force publishes it all the same" in err
    result = json.loads(out)
    assert (result["reason"], result["evaluation"]["poor"]) == ("poor", ["worse than the constant: so it is"])
    left_alone(folder)
    status, _, err = ctr(*TABLE, "--window-days", "40", "--force")
    assert status == 0, err


def test_a_better_candidate_is_live_and_the_document_has_both_evaluations(ctr: Ctr, folder: Path) -> None:
    status, out, err = ctr(*TABLE, "--window-days", "40", "--json")
    assert status == 0, err
    result = json.loads(out)
    store = ModelStore(folder / "model_store", "deepfm")
    assert (result["published"], result["live"], result["version"], store.pointer().stable) == (True, 1, 2, 2)
    assert result["rows"] == {"train": 648, "validation": 216, "test": 96}, "40 days of an hour a row"
    spans = [result["data"][part] for part in ("train", "validation", "test")]
    assert spans[0]["to"] <= spans[1]["from"] <= spans[1]["to"] <= spans[2]["from"], "the newest rows are held out"
    shown = result["evaluation"]
    assert shown["gain"] == pytest.approx(shown["live"]["log_loss"] - shown["candidate"]["log_loss"])
    assert shown["gain"] >= shown["min_gain"] == -0.001
    assert shown["seen_by_live"] == 0.0
    assert result["keys"]["new"] >= 8
    assert result["gate"]["passed"]
    assert result["gate"]["against"] == 1
    manifest = store.manifest(2)
    assert manifest.metrics["test"] == shown["candidate"]
    assert set(manifest.metrics["baselines"]) == {"constant", "logistic_regression", "version 1"}
    assert manifest.metrics["baselines"]["version 1"] == shown["live"]
    assert shown["poor"] == []
    assert "version 1" in (store.path(2) / "report.html").read_text()
    assert manifest.config["retrained"]["from"] == 1
    assert manifest.config["retrained"]["learning_rate"] == pytest.approx(0.005), "a quarter"
    assert manifest.config["trainer"]["learning_rate"] == 0.02, "which the next retraining takes a quarter of again"
    _, data = opened(folder)
    assert data.timestamps_N is not None
    newest = data.take(np.argsort(data.timestamps_N)[-96:])
    for version, who in ((1, "live"), (2, "candidate")):
        p_N = probabilities(store.load(version), encode(newest))
        assert log_loss(newest.labels_N, p_N) == pytest.approx(shown[who]["log_loss"], abs=1e-5), "of what is served"
    for words in ("Training deepfm from version 1 on", "validation log loss", "1, live", "candidate", "2 is live"):
        assert words in err


def test_what_goes_live_has_seen_the_whole_window(ctr: Ctr, folder: Path) -> None:
    """The comparison is of models that have not seen its rows, and what is served is fitted again on all."""
    store, data = opened(folder)
    live = store.load(1)
    config = config_of(live.manifest)
    outcome = RetrainOutcome(1)
    retrain(
        RetrainConfig(replace(config, refit=True), RetrainWindow(days=40), min_gain=-1.0, force=True),
        data,
        store,
        live,
        outcome,
        gate=lambda version: None,
    )
    assert store.pointer().stable == 2
    manifest = store.manifest(2)
    assert manifest.config["refitted"] == {"rows": 960, "epochs": manifest.config["best_epoch"], "has_seen_test": True}
    assert manifest.config["metrics_of"] == "the held-out model"
    assert manifest.config["retrained"]["fresh"]
    slot = data.schema.layout("user").id_slot
    keys, counts = np.unique(encode(data.take(np.arange(240, 1200))).user.keys[:, slot], return_counts=True)
    assert set(keys[counts >= 2].tolist()) <= set(store.load(2).program.vocabulary_V.tolist())


def test_not_good_enough_is_status_3_one_line_and_nothing_left(ctr: Ctr, folder: Path) -> None:
    status, out, err = ctr(*TABLE, "--min-gain", "0.5", "--json")
    assert status == 3
    result = json.loads(out)
    assert (result["published"], result["reason"], result["version"], result["gate"]) == (False, "gain", None, None)
    assert result["message"].startswith("not published: on the newest 120 rows its log loss is")
    assert "and has to be better by 0.50000 at least (--min-gain 0.5)" in result["message"]
    assert result["message"] in err
    assert result["evaluation"]["candidate"]["auc"] > 0.6
    left_alone(folder)


def test_fresh_weights_from_the_newest_file_alone_are_told_what_they_lack(ctr: Ctr, folder: Path, run_ctr: Ctr) -> None:
    header, *rows = (folder / "clicks.csv").read_text().splitlines()
    (folder / "today.csv").write_text("\n".join([header, *rows[-200:]]))
    alone = ("--data", "today.csv", *TABLE[2:], "--min-gain", "0.5")
    told = "fresh weights learned from 135 rows, version 1 from 540: name the older files with the new one"
    status, _, err = run_ctr("retrain", *alone)
    assert (status, told in " ".join(err.split())) == (3, True), err
    assert "older files" not in ctr(*alone)[2], "--warm goes on from what it has"
    assert "older files" not in run_ctr("retrain", *TABLE, "--min-gain", "0.5")[2], "it has more rows than it had"


def test_what_the_gate_refuses_is_status_3_and_keeps_its_report(
    ctr: Ctr, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTR_GATE_TIMEOUT_S", "0.1")
    status, out, err = ctr(*TABLE, "--min-gain", "-1", "--json")
    assert status == 3
    assert json.loads(out)["reason"] == "timeout"
    assert "did not end within 0.1 s" in err
    left_alone(folder, versions=(1, 2))
    report = read_report(folder / "model_store" / "deepfm" / "2")
    assert report is not None
    assert not report.passed


def test_the_second_of_two_says_so_and_ends(ctr: Ctr, folder: Path) -> None:
    with retraining_lock(ModelStore(folder / "model_store", "deepfm")):
        status, out, err = ctr(*TABLE, "--json")
    assert status == 3
    assert json.loads(out)["reason"] == "busy"
    assert "deepfm is being retrained already by process" in err
    left_alone(folder)


def test_a_killed_retraining_leaves_no_lock_that_holds(folder: Path) -> None:
    store = ModelStore(folder / "model_store", "deepfm")
    (store.folder / LOCK).write_text("process 1 on elsewhere\n")
    with retraining_lock(store), (store.folder / LOCK).open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_only_new_ends_where_there_is_nothing_new(ctr: Ctr, folder: Path) -> None:
    status, out, err = ctr("--data", "old.csv", *TABLE[2:], "--only-new", "--json")
    assert (status, json.loads(out)["reason"]) == (3, "old")
    assert "no row is newer" in err
    left_alone(folder)


@pytest.mark.usefixtures("gate_in_process")
def test_a_live_version_that_is_not_trusted_is_not_run(
    ctr: Ctr, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    monkeypatch.setenv("CTR_TRUSTED_KEYS", str(public))
    status, _, err = ctr(*TABLE)
    assert status == 1
    assert "not signed" in err
    left_alone(folder)
    monkeypatch.setenv("CTR_SIGNING_KEY", str(private))
    store = ModelStore.open(folder / "model_store", "deepfm", private, [public])
    store.promote(store.publish_copy(store.path(1)))
    status, out, err = ctr(*TABLE, "--min-gain", "-1", "--json")
    assert status == 0, err
    assert (json.loads(out)["live"], store.load(3).version) == (2, 3), "signed, by what was retrained"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--data", "nothing.csv", *TABLE[2:]), "nothing.csv: no such file"),
        (TABLE[:4], "name the column with --timestamp"),
        ((*TABLE, "--window-rows", "12"), "give more rows"),
        ((*TABLE, "--features", "other.yaml"), "new: price_class; gone: city"),
        ((*TABLE, "--model", "nowhere"), "nowhere has no live version"),
        ((*TABLE, "--every", "now and then"), "30m"),
        ((*TABLE, "--metric", "luck"), "--metric"),
    ],
)
def test_bad_input_is_status_2_and_says_what_to_do(
    ctr: Ctr, folder: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    other = FEATURES.replace("name: city, entity: user", "name: price_class, source: price, entity: item")
    (folder / "other.yaml").write_text(other)
    status, out, err = ctr(*arguments, "--json")
    assert (status, out) == (2, "")
    assert complaint in err
    assert "Traceback" not in err
    left_alone(folder)


def refit(folder: Path, gate: Callable[[int], Any], **options: Any) -> tuple[RetrainOutcome, ModelStore]:
    store, data = opened(folder)
    live = store.load(1)
    config = RetrainConfig(config_of(live.manifest), min_gain=-1.0, **options)
    result = RetrainOutcome(1)
    retrain(config, data, store, live, result, gate=gate)
    return result, store


def test_fresh_weights_need_no_live_weights(folder: Path) -> None:
    result, store = refit(folder, lambda _: None, fresh=True, window=RetrainWindow(rows=600))
    assert store.pointer().stable == 2
    assert set(result.keys) == {"new"}
    assert store.manifest(2).config["retrained"]["learning_rate"] == 0.02


def test_interrupted_while_it_is_judged_it_leaves_no_version(folder: Path) -> None:
    had_manifest = []

    def stopped(version: int) -> None:
        had_manifest.append((folder / "model_store" / "deepfm" / str(version) / "manifest.json").exists())
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        refit(folder, stopped)
    assert had_manifest == [True]
    left_alone(folder)


def test_a_rollback_or_a_promotion_meanwhile_is_not_undone(folder: Path) -> None:
    def other(_: int) -> None:
        publish_tiny(ModelStore(folder / "model_store", "deepfm"))

    with pytest.raises(NotPublished, match="version 3 went live in place of 1 meanwhile") as refused:
        refit(folder, other)
    assert refused.value.reason == "moved"
    assert ModelStore(folder / "model_store", "deepfm").pointer().stable == 3


def test_a_version_that_does_not_say_how_it_was_trained_is_refused(store: ModelStore) -> None:
    publish_tiny(store)
    with pytest.raises(ConfigError, match=r"does not say how it was trained .* `ctr train --publish` first"):
        config_of(store.manifest(1))


def test_a_version_trained_on_a_gpu_is_retrained_without_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    manifest = ModelStore(folder / "model_store", "deepfm").manifest(1)
    trainer = manifest.config["trainer"] | {"device": "cuda", "precision": "bfloat16"}
    job = config_of(msgspec.structs.replace(manifest, config=manifest.config | {"trainer": trainer}))
    assert (job.trainer.learning_rate, job.model.hidden) == (0.02, (8,))
    assert getattr(job.trainer, "device", "cpu") == "cpu"


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000], ids=["s", "ms", "us", "ns"])
def test_days_are_counted_from_the_newest_row_whatever_the_unit(folder: Path, unit: int) -> None:
    _, data = opened(folder)
    assert data.timestamps_N is not None
    data = replace(data, timestamps_N=data.timestamps_N * unit)
    window = RetrainWindow(days=1.0).newest(data)
    assert window.timestamps_N is not None
    assert (len(window), window.timestamps_N.max()) == (24, (START + 1199 * HOUR) * unit)
    assert len(RetrainWindow(days=1.0, rows=10).newest(data)) == 10
    assert len(RetrainWindow().newest(data)) == 1200


def test_days_of_what_is_no_date_are_refused(folder: Path) -> None:
    _, data = opened(folder)
    with pytest.raises(ConfigError, match="are no dates; use --window-rows"):
        RetrainWindow(days=1.0).newest(replace(data, timestamps_N=np.arange(len(data))))


def test_the_newest_rows_are_by_time_and_not_by_place(folder: Path) -> None:
    _, data = opened(folder)
    order = np.random.default_rng(0).permutation(len(data))
    window = RetrainWindow(rows=100).newest(data.take(order))
    assert window.timestamps_N is not None
    assert sorted(window.timestamps_N) == [START + n * HOUR for n in range(1100, 1200)]


def test_the_gain_and_its_error_are_what_they_say() -> None:
    rng = np.random.default_rng(3)
    labels_N = rng.integers(0, 2, 500).astype(np.float32)
    live_N = rng.uniform(0.05, 0.95, 500)
    new_N = (live_N + labels_N) / 2
    result = compare("log_loss", labels_N, new_N, live_N)
    each = [np.where(labels_N == 1, -np.log(p_N), -np.log(1 - p_N)) for p_N in (live_N, new_N)]
    assert result["gain"] == pytest.approx((each[0] - each[1]).mean())
    assert result["log_loss_gain_error"] == pytest.approx((each[0] - each[1]).std(ddof=1) / 500**0.5)
    assert -result["difference"]["log_loss"]["value"] == pytest.approx(result["gain"])
    assert result["difference"]["auc"]["low"] <= result["candidate"]["auc"] - result["live"]["auc"]
    assert compare("auc", labels_N, new_N, live_N)["gain"] > 0 > compare("auc", labels_N, live_N, new_N)["gain"]


def test_a_gain_of_nothing_is_neither_better_nor_worse() -> None:
    metrics = {"log_loss": 0.5, "auc": 0.7}
    shown = {"metric": "auc", "rows": 10, "candidate": metrics, "live": metrics, "gain": 0.0, "min_gain": 0.001}
    assert "it is neither better nor worse, and has to be better by 0.00100 at least" in shortfall(shown, 4)


@pytest.mark.parametrize(("gain", "accepted"), [(0.0, True), (-0.001, True), (-0.0011, False), (float("nan"), False)])
def test_what_cannot_be_compared_is_not_good_enough(gain: float, accepted: bool) -> None:
    metrics = {"log_loss": 0.5, "auc": 0.7}
    shown = {"metric": "auc", "rows": 10, "candidate": metrics, "live": metrics, "gain": gain, "min_gain": -0.001}
    assert (shortfall(shown, 4) == "") is accepted
    change = "cannot be compared" if np.isnan(gain) else "is worse by 0.00110"
    said = (
        f"its AUC is 0.70000, that of version 4 0.70000: it {change}, and may be worse by 0.00100 at most (--min-gain"
    )
    assert accepted or said in shortfall(shown, 4)


def test_what_the_live_version_had_is_read_from_its_manifest(folder: Path) -> None:
    store, data = opened(folder)
    manifest = store.manifest(1)
    assert newest_time(manifest) == START + 799 * HOUR
    assert newest_time(manifest, "train") == START + 539 * HOUR, "three quarters of 720"
    assert newest_time(msgspec.structs.replace(manifest, data={"train": {"to": 12}, "rows": 3})) == 12
    assert newest_time(msgspec.structs.replace(manifest, data={})) is None
    check_same_schema(data.schema, store.load(1))


def test_a_store_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match="cannot write to"),
        retraining_lock(ModelStore(tmp_path / "file", "deepfm")),
    ):
        raise AssertionError


@pytest.mark.parametrize(("to", "seconds"), [("2026-09-21T14:13:20+00:00", 1790000000), (1790000000000, 1790000000)])
def test_the_newest_row_of_an_older_version_is_known_in_seconds(folder: Path, to: object, seconds: float) -> None:
    store, _ = opened(folder)
    manifest = msgspec.structs.replace(store.manifest(1), data={"train": {"rows": 1, "to": to}})
    assert newest_time(manifest) == seconds


def test_a_version_of_thinned_rows_asks_how_many_of_the_new_ones_were_kept(ctr: Ctr, folder: Path) -> None:
    status, out, err = ctr(*TABLE, "--negative-rate", "0.25", "--min-gain", "-9", "--force", "--json")
    assert status == 0, err
    assert json.loads(out)["data"]["negative_rate"] == 0.25
    status, _, err = ctr(*TABLE)
    assert status == 2, err
    assert "version 2 was trained on 0.25 of the rows without a click: say --negative-rate 0.25" in err
