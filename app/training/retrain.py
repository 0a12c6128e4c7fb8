"""The scheduled job: the newest rows, from the live version on, and live itself only if it is no worse than that.

    all rows, oldest to newest      ............|------- window -------|
    the window                                  | training | valid. | test |

Both the candidate and the live version are measured on the newest part, which the candidate has not trained on. What
comes of it goes through the gate and live, or nothing changes at all.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import ArtifactError, ConfigError, NotPublished
from app.publishing.publish import publish_staged
from app.registry.artifact.artifact import Artifact
from app.registry.store.model_store import ModelStore
from app.runtime.file_lock import try_lock
from app.training.data.dataset import Dataset
from app.training.evaluation.comparison import Metric, compare, probabilities, shortfall
from app.training.job import JobConfig, describe
from app.training.live_version import check_same_schema, seen_share
from app.training.loop.epochs import ProgressUpdate
from app.training.loop.trainer import FitResult, Trainer
from app.training.loop.trainer_config import TrainerConfig
from app.training.warm_start import ContinuedPreprocessingFit, live_preprocessing, restore_absent, warm_start

LOCK = ".retrain.lock"
MIN_GAIN = -0.001
"""By default a candidate may be so much worse, in nats: 1.7 standard errors on 10,000 rows (docs/deploy.md)."""
WARM_RATE = 0.25
"""Of the learning rate, where weights that are good already are to be moved and not found (docs/deploy.md)."""
DAY_S = 86_400
EARLIEST_S = 1e8
"""1973: what is smaller is a count of something else."""
SECONDS_TO = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}
"""Times above the key are not seconds since 1970 but these parts of one: nano-, micro-, milliseconds."""


@dataclass(frozen=True)
class Window:
    """Which rows count as new; both limits apply where both are given."""

    rows: int | None = None
    days: float | None = None
    """Back from the newest row, not from now."""

    def newest(self, data: Dataset) -> Dataset:
        """Raises ConfigError where the rows have no time, or days are asked for and it is no date."""
        if data.timestamps_N is None:
            raise ConfigError(
                f"{data.source}: its rows have no time, so none are the newest; name the column with --timestamp"
            )
        chosen = np.argsort(data.timestamps_N, kind="stable")
        if self.rows is not None:
            chosen = chosen[-self.rows :]
        if self.days is not None:
            newest = float(data.timestamps_N.max())
            if newest < EARLIEST_S:
                raise ConfigError(f"{data.source}: times up to {newest:.0f} are no dates; use --window-rows")
            unit = next((unit for above, unit in SECONDS_TO.items() if newest > above), 1.0)
            chosen = chosen[data.timestamps_N[chosen] > newest - self.days * DAY_S * unit]
        return data.take(np.sort(chosen))


@dataclass(frozen=True)
class RetrainConfig:
    job: JobConfig
    """As fresh weights would be trained: the next retraining begins with it again."""
    window: Window = field(default_factory=Window)
    fresh: bool = False
    """Begin with fresh weights."""
    learning_rate: float | None = None
    """None for the job's, or `WARM_RATE` of it where weights are the live version's."""
    metric: Metric = "log_loss"
    min_gain: float = MIN_GAIN
    """Least improvement of the metric over the live version, in the metric's unit; below 0 it may be worse."""

    @property
    def trainer(self) -> TrainerConfig:
        """What it is trained with, this time."""
        rate = self.learning_rate or self.job.trainer.learning_rate * (1.0 if self.fresh else WARM_RATE)
        return replace(self.job.trainer, learning_rate=rate)


@dataclass
class Round:
    """What is known of one retraining so far; a refused one is shown as far as it came."""

    live: int
    rows: dict[str, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    fitted: FitResult | None = None
    version: int | None = None
    seconds: float = 0.0


@contextlib.contextmanager
def alone(store: ModelStore) -> Iterator[None]:
    """One retraining of a model at a time; the kernel gives the lock back with the process that held it.

    Raises NotPublished("busy") where another is at work, ArtifactError("file") where the store cannot be written to.
    """
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        lock = (store.folder / LOCK).open("a+")
    except OSError as error:
        raise ArtifactError("file", f"cannot write to {store.folder}: {error.strerror}") from error
    with lock:
        if not try_lock(lock.fileno()):
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
    found: Round,
    *,
    admit: Callable[[int], object],
    say: Callable[[str], None] = lambda _: None,
    report: Callable[[ProgressUpdate], None] | None = None,
    command: str = "",
) -> Path:
    """Train on the newest rows, compare, judge, publish.

    Args:
        found: filled in on the way, so that it can be shown whatever happens.
        command: the command line that started it, for the report.
        admit: the gate; told the new number before it goes live, and raises ArtifactError to refuse it.

    Returns:
        The folder of the version, which is stable now.

    Raises:
        NotPublished: with a reason: `gain` it is worse than the live version, `moved` something else went live while
            it was trained, or the gate's.
        DataError, ConfigError: the rows or the options do not fit.
    """
    started = time.perf_counter()
    check_same_schema(data.schema, live)
    kept = replace(config.job, split=replace(config.job.split, kind="time"))
    job = replace(kept, trainer=config.trainer)
    if not config.fresh:
        job = replace(job, preparation=ContinuedPreprocessingFit(job.preparation.min_count, live_preprocessing(live)))
    prepared = job.build().prepare(config.window.newest(data), None, say)
    found.rows, found.data = {part: len(rows) for part, rows in prepared.data.items()}, describe(prepared.data)

    say(f"Training {config.job.model.name} from {'fresh weights' if config.fresh else f'version {live.version}'} on")
    train, validation = (prepared.rows[part] for part in ("train", "validation"))
    model = config.job.model.build(prepared.preprocessing)
    warm = None if config.fresh else warm_start(model, prepared.preprocessing, live, train)
    found.fitted = Trainer(job.trainer, model, prepared.preprocessing).fit(
        train, validation, report, warm=warm is not None
    )
    if warm is None:
        found.keys = {"new": len(prepared.preprocessing.vocabulary_V)}
    else:
        absent = restore_absent(model, prepared.preprocessing, warm, train)
        found.keys = {"known": warm.known_keys, "new": warm.new_keys, "without a row": absent}
    trained = job.build().measured(prepared, model, found.fitted)

    test = prepared.encoded["test"]
    new_N = trained.calibration.probabilities(trained.logits["test"])
    found.evaluation = compare(config.metric, test.labels_N, new_N, probabilities(live, test), prepared.groups("test"))
    found.evaluation |= {
        "min_gain": config.min_gain,
        "seen_by_live": seen_share(live.manifest, prepared.data["test"]),
    }
    found.seconds = time.perf_counter() - started
    refused = shortfall(found.evaluation, live.version)
    if refused:
        raise NotPublished("gain", refused)

    also = {
        "retrained": {
            "from": live.version,
            "window": asdict(config.window),
            "fresh": config.fresh,
            "learning_rate": config.trainer.learning_rate,
            "keys": found.keys,
        }
    }

    def gate(version: int) -> None:
        found.version = version
        try:
            admit(version)
        except ArtifactError as error:
            raise NotPublished(error.reason, str(error)) from error

    with store.staging() as staged:
        beside = {f"version {live.version}": found.evaluation["live"]}
        kept.build().finish(prepared, trained, beside, staged, store.name, command, started, say, also)
        say("Checking it as it would be served")
        version = publish_staged(store, staged, gate, replaces=live.version, discard_if_interrupted=True)
    found.seconds = time.perf_counter() - started
    return store.path(version)
