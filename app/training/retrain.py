"""Retrain: train the live version's architecture on the newest rows, and publish the result only if it is no worse.

    all rows, oldest to newest      ............|------- window -------|
    the window                                  | training | valid. | test |

Both the candidate and the live version are measured on the newest part, which the candidate has not trained on. The
candidate passes the gate and goes live, or nothing changes at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from app.errors import ArtifactError, NotPublished
from app.models.base import CtrModel
from app.models.preprocessing import Preprocessing
from app.publishing.publish import Gate, publish_staged
from app.registry.artifact.artifact import Artifact
from app.registry.artifact.manifest import Manifest
from app.registry.store.model_store import ModelStore
from app.registry.store.store_lock import writing_to
from app.runtime.file_lock import try_lock
from app.training.calibrated_model import calibrate_and_measure
from app.training.data.dataset import Dataset
from app.training.data_summary import summarise_data
from app.training.evaluation.baselines import BaselineResult
from app.training.evaluation.comparison import compare, probabilities, shortfall
from app.training.evaluation.verdict import JUDGES
from app.training.job import Notify, OnProgress, TrainingJob
from app.training.judgement import fit_baselines_on, judge_trained
from app.training.live_version import check_same_schema, seen_share
from app.training.loop.trainer import FitResult, Trainer
from app.training.preprocessing.expand import ExpandedRows
from app.training.refit import refit
from app.training.retrain_config import RetrainConfig
from app.training.warm_start import ContinuedPreprocessingFit, live_preprocessing, restore_unused_rows, warm_start
from app.training.write_version import write_version

LOCK = ".retrain.lock"
FEW_ROWS = 0.5
"""Fresh weights with less than this share of the rows that the live version had are likely to be worse."""


@dataclass
class RetrainOutcome:
    """Records what one retraining has done so far; a refused one is shown with what it has."""

    live: int
    """Number of the version that was live when it began."""
    rows: dict[str, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    fitted: FitResult | None = None
    version: int | None = None
    """Number of the new version, once it is in the store."""
    seconds: float = 0.0


@contextlib.contextmanager
def retraining_lock(store: ModelStore) -> Iterator[None]:
    """Admit one retraining of a model at a time; the kernel releases the lock if the process that holds it dies.

    Raises:
        NotPublished: `busy` if another is at work.
        ArtifactError: `file` if the store cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        with writing_to(store.folder):
            store.folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((store.folder / LOCK).open("a+"))
            is_locked = try_lock(lock.fileno())
        if not is_locked:
            lock.seek(0)
            owner = lock.read(200).strip()
            raise NotPublished("busy", f"{store.name} is being retrained already{f' by {owner}' if owner else ''}")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        lock.flush()
        yield


def retrain(
    config: RetrainConfig,
    data: Dataset,
    store: ModelStore,
    live: Artifact,
    outcome: RetrainOutcome,
    *,
    gate: Gate,
    notify: Notify = lambda message: None,
    on_progress: OnProgress | None = None,
    command: str = "",
) -> Path:
    """Train on the newest rows, compare with the live version, gate, publish.

    Args:
        outcome: filled in step by step, so that it can be shown even if a step fails.
        gate: called with the new version's number before it goes live; it raises ArtifactError to refuse it.
        notify: called with a message for the user at the start of each stage.
        on_progress: called every few batches of training.
        command: the command line that started the retraining, for the report.

    Returns:
        The folder of the version, which is stable now.

    Raises:
        NotPublished: `gain` if the candidate is worse than the live version, `poor` if it is worse than the constant or
            than logistic regression, `moved` if another version went live
            while it was trained, or the gate's reason.
        DataError, ConfigError: the rows or the options do not fit.
    """
    started = time.perf_counter()
    check_same_schema(data.schema, live)
    fresh_job = replace(config.job, split=replace(config.job.split, kind="time"))
    job = replace(fresh_job, trainer=config.trainer)
    if not config.fresh:
        fit = ContinuedPreprocessingFit(**asdict(job.preparation), live=live_preprocessing(live))
        job = replace(job, preparation=fit)
    window = config.window.newest(data)
    prepared = TrainingJob(job).prepare(window, None, notify)
    outcome.rows = {part: len(rows) for part, rows in prepared.data.items()}
    outcome.data = summarise_data(prepared.data)

    begin = "with fresh weights" if config.fresh else f"from version {live.version} on"
    notify(f"Training {config.job.model.name} {begin}")
    train, validation = (prepared.rows[part] for part in ("train", "validation"))
    model = config.job.model.build(prepared.preprocessing)
    warm = None if config.fresh else warm_start(model, prepared.preprocessing, live, train)
    outcome.fitted = Trainer(job.trainer, model, prepared.preprocessing).fit(
        train, validation, on_progress, warm=warm is not None
    )
    if warm is None:
        outcome.keys = {"new": len(prepared.preprocessing.vocabulary_V)}
    else:
        without_row = restore_unused_rows(model, prepared.preprocessing, warm, train)
        outcome.keys = {"known": warm.known_keys, "new": warm.new_keys, "without a row": without_row}
    if "linear_share" not in job.given:  # windows have other numbers of rows than the live version had
        job = replace(job, linear_share=None)
    trained = calibrate_and_measure(job, prepared, model, outcome.fitted)

    test = prepared.encoded["test"]
    new_N, live_N = trained.calibration.probabilities(trained.logits["test"]), probabilities(live, test)
    outcome.evaluation = compare(config.metric, test.labels_N, new_N, live_N, prepared.groups("test"), test.weighting)
    outcome.evaluation |= {
        "min_gain": config.min_gain,
        "seen_by_live": seen_share(live.manifest, prepared.data["test"]),
    }
    outcome.seconds = time.perf_counter() - started
    reason = shortfall(outcome.evaluation, live.version)
    if reason:
        raise NotPublished("gain", reason + _few_rows(config, outcome.rows["train"], live.manifest))

    baselines = fit_baselines_on(prepared, job.trainer.seed, notify, JUDGES, trained.linear)
    poor = judge_trained(prepared, trained, baselines).poor
    outcome.evaluation["poor"] = poor
    if poor and not config.force:
        raise NotPublished("poor", f"not published: it is {'; it is '.join(poor)}; --force publishes it all the same")

    refitted = None
    if job.refit:
        notify(f"Fitting it again on all {len(window):,} rows, for {outcome.fitted.best_epoch + 1} epochs")

        def start(model: CtrModel, preprocessing: Preprocessing, train: ExpandedRows) -> Callable[[], object]:
            weights = warm_start(model, preprocessing, live, train)
            return lambda: restore_unused_rows(model, preprocessing, weights, train)

        refitted = refit(
            job,
            window,
            test,
            outcome.fitted,
            prepared.preprocessing,
            has_seen_test=True,
            start=None if config.fresh else start,
            averaged=trained.average,
            on_progress=on_progress,
        ).calibrated(
            trained.calibration, trained.logits["validation"], prepared.encoded["validation"].learned_weighting
        )
    manifest_details = {
        "retrained": {
            "from": live.version,
            "window": asdict(config.window),
            "fresh": config.fresh,
            "learning_rate": config.trainer.learning_rate,
            "keys": outcome.keys,
        }
    }

    def gate_or_refuse(version: int) -> None:
        outcome.version = version
        try:
            gate(version)
        except ArtifactError as error:
            raise NotPublished(error.reason, str(error)) from error

    with store.staging() as staged:
        baselines[f"version {live.version}"] = BaselineResult({"test": live_N}, {"test": outcome.evaluation["live"]})
        write_version(
            replace(fresh_job, linear_share=trained.average.share),
            prepared,
            trained,
            baselines,
            staged,
            store.name,
            command,
            started,
            notify,
            manifest_details,
            refitted=refitted,
        )
        notify("Checking it as it would be served")
        version = publish_staged(store, staged, gate_or_refuse, replaces=live.version, discard_if_interrupted=True)
    outcome.seconds = time.perf_counter() - started
    return store.path(version)


def _few_rows(config: RetrainConfig, rows: int, live: Manifest) -> str:
    """Say where fresh weights had far fewer rows to learn from than the live version: often the newest file alone."""
    trained_on = live.data.get("train", {}).get("rows", 0)
    if not config.fresh or rows >= FEW_ROWS * trained_on:
        return ""
    return (
        f"; fresh weights learned from {rows:,} rows, version {live.version} from {trained_on:,}: name the older "
        "files with the new one (--data FOLDER), or go on from its weights with --warm"
    )
