"""Configure a retraining: which rows are new, how it trains, and when its result is good enough to publish."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from app.errors import ConfigError
from app.features.times import DATED_S, UNITS_A_SECOND
from app.training.data.dataset import Dataset
from app.training.evaluation.comparison import Metric
from app.training.job_config import JobConfig
from app.training.loop.trainer_config import TrainerConfig

MIN_GAIN = -0.001
"""By default a candidate may be this much worse, in nats: 1.7 standard errors on 10,000 rows (docs/deploy.md)."""
WARM_RATE = 0.25
"""Factor of the learning rate if training goes on from the live version's weights (docs/deploy.md)."""
DAY_S = 86_400


@dataclass(frozen=True)
class RetrainWindow:
    """Selects the rows that count as new; both limits apply if both are given."""

    rows: int | None = None
    days: float | None = None
    """Length of the window in days before the newest row, not before now."""

    def newest(self, data: Dataset) -> Dataset:
        """Return the rows within the window, in the order of the data.

        Raises:
            ConfigError: the rows have no time, or days are asked for and their times are no dates.
        """
        if data.timestamps_N is None:
            raise ConfigError(
                f"{data.source}: its rows have no time, so none are the newest; name the column with --timestamp"
            )
        chosen = np.argsort(data.timestamps_N, kind="stable")
        if self.rows is not None:
            chosen = chosen[-self.rows :]
        if self.days is not None:
            newest = float(data.timestamps_N.max())
            if newest < DATED_S:
                raise ConfigError(f"{data.source}: times up to {newest:.0f} are no dates; use --window-rows")
            units = next((units for above, units in UNITS_A_SECOND.items() if newest > above), 1.0)
            chosen = chosen[data.timestamps_N[chosen] > newest - self.days * DAY_S * units]
        return data.take(np.sort(chosen))


@dataclass(frozen=True)
class RetrainConfig:
    """Holds the choices of one retraining."""

    job: JobConfig
    """Configuration for training fresh weights; the new version's manifest keeps it for the next retraining."""
    window: RetrainWindow = field(default_factory=RetrainWindow)
    fresh: bool = True
    """Begin with fresh weights, and not with the live version's: the better model on all sets (docs/deploy.md)."""
    learning_rate: float | None = None
    """Learning rate; None takes the job's, times `WARM_RATE` if training begins with the live version's weights."""
    metric: Metric = "log_loss"
    min_gain: float = MIN_GAIN
    """Least improvement of the metric over the live version, in the metric's unit; below 0 it may be worse."""
    force: bool = False
    """Publish a candidate that is poor, too: worse than the constant or than logistic regression."""

    @property
    def trainer(self) -> TrainerConfig:
        """Return the trainer's configuration for this retraining."""
        rate = self.learning_rate or self.job.trainer.learning_rate * (1.0 if self.fresh else WARM_RATE)
        return replace(self.job.trainer, learning_rate=rate)
